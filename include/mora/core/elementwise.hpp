// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include "mora/core/matrix.hpp"

namespace mora::inline MORA_ABI::detail {

/// Whether every number is finite: 0 * x is 0 for a finite x and NaN otherwise, and a sum keeps a
/// NaN, so one vectorised pass decides.
template <class Derived>
[[nodiscard]] bool all_finite(const Eigen::DenseBase<Derived>& x) {
  using T = typename Derived::Scalar;
  return x.size() == 0 || (x.derived().array() * T(0)).sum() == T(0);
}

/// The largest absolute value; infinite or NaN when a number is.
template <class Derived>
[[nodiscard]] double largest_magnitude(const Eigen::DenseBase<Derived>& x) {
  if (x.size() == 0) return 0.0;
  return static_cast<double>(x.derived().cwiseAbs().template maxCoeff<Eigen::PropagateNaN>());
}

/// The sum of absolute values: an upper bound of the largest one that is infinite or NaN when a
/// number is. Several sums side by side, as one would wait for each addition.
template <class T>
[[nodiscard]] double magnitude_bound(const ConstMap<T>& x) {
  constexpr Index lanes = 64;
  Eigen::Array<T, lanes, 1> sums = Eigen::Array<T, lanes, 1>::Zero();
  double rest = 0.0;
  for (Index i = 0; i < x.rows(); ++i) {
    const T* const row = x.data() + i * x.outerStride();
    Index j = 0;
    for (; j + lanes <= x.cols(); j += lanes) {
      sums += Eigen::Map<const Eigen::Array<T, lanes, 1>>(row + j).abs();
    }
    for (; j < x.cols(); ++j) rest += std::abs(static_cast<double>(row[j]));
  }
  return static_cast<double>(sums.sum()) + rest;
}

}  // namespace mora::inline MORA_ABI::detail
