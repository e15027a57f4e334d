// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include "mora/core/matrix.hpp"
#include "mora/core/vectors.hpp"

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

/// Whether every number is zero; one that trained says no in its first row.
template <class T>
[[nodiscard]] bool is_zero(const ConstMap<T>& x) {
  for (Index i = 0; i < x.rows(); ++i) {
    if (!(largest_magnitude(x.row(i)) == 0.0)) return false;
  }
  return true;
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

/// The sum of `term(j)` over j < size, in lanes of its own, which the compiler turns into vectors;
/// unlike Eigen's sums it does not depend on the alignment of what is read.
template <class T, class Term>
[[nodiscard]] T sum_of(Index size, const Term& term) {
  constexpr Index lanes = 16;
  T sums[lanes] = {};
  Index j = 0;
  for (; j + lanes <= size; j += lanes) {
    for (Index k = 0; k < lanes; ++k) sums[k] += term(j + k);
  }
  repeat<4>([&](auto halvings) {
    constexpr Index width = lanes >> (halvings + 1);
    for (Index k = 0; k < width; ++k) sums[k] += sums[k + width];
  });
  for (; j < size; ++j) sums[0] += term(j);
  return sums[0];
}

/// Sums of products of two and of three vectors.
template <class T>
[[nodiscard]] T dot(const T* a, const T* b, Index size) {
  return sum_of<T>(size, [=](Index j) { return a[j] * b[j]; });
}
template <class T>
[[nodiscard]] T dot(const T* a, const T* b, const T* c, Index size) {
  return sum_of<T>(size, [=](Index j) { return a[j] * b[j] * c[j]; });
}

}  // namespace mora::inline MORA_ABI::detail
