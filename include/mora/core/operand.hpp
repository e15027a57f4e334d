// SPDX-License-Identifier: MIT
#pragma once

#include "mora/core/abi.hpp"

namespace mora::inline MORA_ABI::detail {

/// How a factor of a product is read.
enum class Operand { plain, transposed };

}  // namespace mora::inline MORA_ABI::detail
