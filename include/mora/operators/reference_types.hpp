// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <utility>

#include "mora/operators/rotation.hpp"
#include "mora/operators/sharing.hpp"

namespace mora::inline MORA_ABI {

/// The numbers that the paper's code has for operators.
inline constexpr std::array mora_types = {1, 2, 3, 4, 6};

/// Calls `f(operator)` with the operator that the paper's code calls `mora_type` in
/// adapter_config.json: the one place where that integer means something. The results of f have
/// one type. Throws ArgumentError for numbers that the reference does not have (5 among them).
template <class F>
decltype(auto) with_mora_type(int mora_type, F&& f) {
  switch (mora_type) {
    case 1: return std::forward<F>(f)(Sharing{});
    case 2: return std::forward<F>(f)(AdjacentSharing{});
    case 3: return std::forward<F>(f)(AdjacentStridedSharing{});
    case 4: return std::forward<F>(f)(StridedAdjacentSharing{});
    case 6: return std::forward<F>(f)(Rotation{});
    default:
      throw ArgumentError(detail::concat("mora_type: expected 1, 2, 3, 4 or 6, found ", mora_type));
  }
}

}  // namespace mora::inline MORA_ABI
