// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "mora/core/parallel.hpp"

namespace mora::inline MORA_ABI::detail {

template <class T>
using ConstRowArray = Eigen::Map<const Eigen::Array<T, 1, Eigen::Dynamic>>;
template <class T>
using RowArray = Eigen::Map<Eigen::Array<T, 1, Eigen::Dynamic>>;

/// y = silu(g) u with silu(g) = g s, s = 1 / (1 + exp(-g)), for rows [g, u] (Shazeer 2020, arXiv
/// 2002.05202). Where `derives`, these become the derivatives of y by g and u, which the backward
/// pass then need not take exponentials for: s (1 + g (1 - s)) u and g s.
template <bool derives, class T>
void swiglu(MutableMap<T> gate_up, MutableMap<T> y) {
  const Index width = y.cols();
  for_each_row(y.rows(), width, [&](Index i) {
    constexpr Index strip = 64;    // of which the sigmoids fit into registers and L1
    alignas(64) T sigmoid[strip];  // or exp of the first ones would round otherwise
    T* const row = gate_up.data() + i * gate_up.outerStride();
    T* const to = y.data() + i * y.outerStride();
    for (Index start = 0; start < width; start += strip) {
      const Index size = std::min(strip, width - start);
      RowArray<T>(sigmoid, size) = (T(1) + (-ConstRowArray<T>(row + start, size)).exp()).inverse();
      for (Index j = 0; j < size; ++j) {
        const T g = row[start + j];
        const T u = row[width + start + j];
        const T s = sigmoid[j];
        const T silu = g * s;
        to[start + j] = silu * u;
        if constexpr (derives) {
          row[start + j] = s * (T(1) + g * (T(1) - s)) * u;
          row[width + start + j] = silu;
        }
      }
    }
  });
}

/// From dy to [dg, du], which may overwrite the derivatives that swiglu left.
template <class T>
void swiglu_backward(const ConstMap<T>& derivatives, const ConstMap<T>& dy,
                     MutableMap<T> d_gate_up) {
  const Index width = dy.cols();
  for_each_row(dy.rows(), width, [&](Index i) {
    const T* const row = derivatives.data() + i * derivatives.outerStride();
    const T* const d = dy.data() + i * dy.outerStride();
    T* const to = d_gate_up.data() + i * d_gate_up.outerStride();
    for (Index j = 0; j < width; ++j) to[j] = row[j] * d[j];
    for (Index j = 0; j < width; ++j) to[width + j] = row[width + j] * d[j];
  });
}

}  // namespace mora::inline MORA_ABI::detail
