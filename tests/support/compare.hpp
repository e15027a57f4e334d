// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <mora/core/matrix.hpp>
#include <optional>

#include "support/tolerance.hpp"

/// \file
/// Comparisons of matrices, for EXPECT_TRUE. NaN is near nothing: every entry is asked whether it
/// is near enough, as Eigen's maxCoeff may pass over a NaN.

namespace mora_tests {

namespace detail {

template <class A, class B>
[[nodiscard]] testing::AssertionResult same_size(const Eigen::DenseBase<A>& found,
                                                 const Eigen::DenseBase<B>& expected) {
  if (found.rows() == expected.rows() && found.cols() == expected.cols()) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure() << "is " << found.rows() << "x" << found.cols()
                                     << ", expected " << expected.rows() << "x" << expected.cols();
}

/// Whether `agree(found, expected)` for every pair of entries.
template <class A, class B, class F>
[[nodiscard]] testing::AssertionResult all_agree(const Eigen::DenseBase<A>& found,
                                                 const Eigen::DenseBase<B>& expected,
                                                 const F& agree) {
  if (auto result = same_size(found, expected); !result) return result;
  const typename A::PlainObject a = found;
  const typename B::PlainObject b = expected;
  for (Eigen::Index i = 0; i < a.rows(); ++i) {
    for (Eigen::Index j = 0; j < a.cols(); ++j) {
      if (agree(a(i, j), b(i, j))) continue;
      return testing::AssertionFailure()
             << "entry (" << i << ", " << j << ") is " << a(i, j) << ", expected " << b(i, j)
             << ", difference " << double(a(i, j)) - double(b(i, j));
    }
  }
  return testing::AssertionSuccess();
}

}  // namespace detail

/// How near is near: within `relative` times `magnitude`. The default is the tolerance of the found
/// scalar, relative to the largest expected number.
struct Within {
  std::optional<double> relative = std::nullopt;
  std::optional<double> magnitude = std::nullopt;
};

/// Whether every number is near the expected one.
template <class A, class B>
[[nodiscard]] testing::AssertionResult near(const Eigen::DenseBase<A>& found,
                                            const Eigen::DenseBase<B>& expected,
                                            const Within& within = {}) {
  double largest = 0.0;
  const typename B::PlainObject values = expected;
  for (Eigen::Index i = 0; i < values.size(); ++i) {
    largest = std::max(largest, std::abs(double(values.data()[i])));
  }
  const double allowed =
      within.relative.value_or(tolerance<typename A::Scalar>) * within.magnitude.value_or(largest);
  if (!std::isfinite(allowed)) return testing::AssertionFailure() << "expected an infinite number";
  return detail::all_agree(
      found, values, [=](auto a, auto b) { return std::abs(double(a) - double(b)) <= allowed; });
}

/// The same for two numbers of type T.
template <class T>
[[nodiscard]] testing::AssertionResult near(double found, double expected, double magnitude) {
  return near(mora::RowVector<double>::Constant(1, found),
              mora::RowVector<double>::Constant(1, expected),
              {.relative = tolerance<T>, .magnitude = magnitude});
}

/// Whether every number compares equal: -0 is 0, NaN equals nothing.
template <class A, class B>
[[nodiscard]] testing::AssertionResult equal(const Eigen::DenseBase<A>& found,
                                             const Eigen::DenseBase<B>& expected) {
  return detail::all_agree(found, expected, [](auto a, auto b) { return a == b; });
}

/// Whether every bit is the same: -0 is not 0, and a NaN is that NaN.
template <class A, class B>
[[nodiscard]] testing::AssertionResult same_bits(const Eigen::DenseBase<A>& found,
                                                 const Eigen::DenseBase<B>& expected) {
  static_assert(sizeof(typename A::Scalar) == sizeof(typename B::Scalar));
  return detail::all_agree(found, expected,
                           [](auto a, auto b) { return std::memcmp(&a, &b, sizeof a) == 0; });
}

}  // namespace mora_tests
