// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

#include "mora/core/abi.hpp"

namespace mora::inline MORA_ABI {

/// Sizes and positions: Eigen's own type, by its name in the standard library, so that what holds
/// no matrices need not include Eigen.
using Index = std::ptrdiff_t;

}  // namespace mora::inline MORA_ABI
