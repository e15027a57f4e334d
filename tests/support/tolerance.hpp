// SPDX-License-Identifier: MIT
#pragma once

/// \file
/// The one place where tests get their tolerances from.

namespace mora_tests {

/// What rounding may do, relative to the largest number of a result.
template <class T>
inline constexpr double tolerance = 0.0;
template <>
inline constexpr double tolerance<float> = 1e-5;
template <>
inline constexpr double tolerance<double> = 1e-12;

/// Finite differences in double. The loss is linear in each argument, so that a large step costs no
/// exactness and keeps rounding small.
inline constexpr double difference_step = 1e-3;
inline constexpr double difference_tolerance = 1e-6;

}  // namespace mora_tests
