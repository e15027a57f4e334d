// SPDX-License-Identifier: MIT
#pragma once

#include <limits>

namespace mora_tests {

template <class T>
inline constexpr T nan = std::numeric_limits<T>::quiet_NaN();
template <class T>
inline constexpr T infinity = std::numeric_limits<T>::infinity();

}  // namespace mora_tests
