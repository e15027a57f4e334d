// SPDX-License-Identifier: MIT
#pragma once

#include "mora/core/index.hpp"

namespace mora::inline MORA_ABI::detail {

/// At least what a cache line and the widest vector hold, in numbers.
inline constexpr Index line_numbers = 64;
[[nodiscard]] inline Index whole_lines(Index size) {
  return (size + line_numbers - 1) / line_numbers * line_numbers;
}

/// What whole vectors of any width hold: a row of so many takes no numbers one by one.
inline constexpr Index vector_numbers = 16;
[[nodiscard]] inline Index whole_vectors(Index size) {
  return (size + vector_numbers - 1) / vector_numbers * vector_numbers;
}

}  // namespace mora::inline MORA_ABI::detail
