// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include "mora/core/elementwise.hpp"
#include "mora/core/parallel.hpp"

namespace mora::inline MORA_ABI::detail {

/// RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467): y = w x / sqrt(mean(x^2) + epsilon), row by
/// row. `inverse` [rows], unless null, keeps 1 / sqrt(...) for the backward pass.
template <class T>
void rms_norm(const ConstMap<T>& x, const T* weight, double epsilon, MutableMap<T> y, T* inverse) {
  const Index cols = x.cols();
  for_each_row(x.rows(), cols, [&](Index i) {
    const T* const from = x.data() + i * x.outerStride();
    T* const to = y.data() + i * y.outerStride();
    const T mean = dot(from, from, cols) / static_cast<T>(cols);
    const T factor = T(1) / std::sqrt(mean + static_cast<T>(epsilon));
    for (Index j = 0; j < cols; ++j) to[j] = from[j] * factor * weight[j];
    if (inverse) inverse[i] = factor;
  });
}

/// dx += f (w dy - x^ mean(w dy x^)) with x^ = f x and f = `inverse`.
template <class T>
void rms_norm_add_backward(const ConstMap<T>& x, const T* weight, const T* inverse,
                           const ConstMap<T>& dy, MutableMap<T> dx) {
  const Index cols = x.cols();
  for_each_row(x.rows(), cols, [&](Index i) {
    const T* const from = x.data() + i * x.outerStride();
    const T* const g = dy.data() + i * dy.outerStride();
    T* const to = dx.data() + i * dx.outerStride();
    const T factor = inverse[i];
    const T mean = dot(from, g, weight, cols) / static_cast<T>(cols);
    const T along = factor * factor * factor * mean;
    for (Index j = 0; j < cols; ++j) to[j] += factor * weight[j] * g[j] - along * from[j];
  });
}

/// dw += sum over rows of dy x^. Each thread has columns of its own, so that the sum's order does
/// not depend on their number.
template <class T>
void rms_norm_add_weight_gradient(const ConstMap<T>& x, const T* inverse, const ConstMap<T>& dy,
                                  T* dw) {
  parallel_pieces(x.cols(), 64, [&](Index first, Index count) {
    for (Index i = 0; i < x.rows(); ++i) {
      const T* const from = x.data() + i * x.outerStride() + first;
      const T* const g = dy.data() + i * dy.outerStride() + first;
      for (Index j = 0; j < count; ++j) dw[first + j] += inverse[i] * from[j] * g[j];
    }
  });
}

}  // namespace mora::inline MORA_ABI::detail
