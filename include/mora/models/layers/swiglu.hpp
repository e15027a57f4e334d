// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "mora/core/parallel.hpp"
#include "mora/models/layers/rms_norm.hpp"

namespace mora::inline MORA_ABI::detail {

template <class T>
using ConstRowArray = Eigen::Map<const Eigen::Array<T, 1, Eigen::Dynamic>>;
template <class T>
using RowArray = Eigen::Map<Eigen::Array<T, 1, Eigen::Dynamic>>;

/// y = silu(g) u with silu(g) = g / (1 + exp(-g)), for rows [g, u] (Shazeer 2020, arXiv
/// 2002.05202).
template <class T>
void swiglu(const ConstMap<T>& gate_up, MutableMap<T> y) {
  const Index width = y.cols();
  parallel_pieces(y.rows(), rows_a_piece(width), [&](Index first, Index count) {
    for (Index i = first; i < first + count; ++i) {
      const T* const row = gate_up.data() + i * gate_up.outerStride();
      const ConstRowArray<T> g(row, width);
      const ConstRowArray<T> u(row + width, width);
      RowArray<T>(y.data() + i * y.outerStride(), width) = g * u / (T(1) + (-g).exp());
    }
  });
}

/// From dy to [dg, du], which may overwrite [g, u]: du = silu(g) dy, dg = silu'(g) u dy with
/// silu'(g) = s (1 + g (1 - s)) and s = 1 / (1 + exp(-g)).
template <class T>
void swiglu_backward(const ConstMap<T>& gate_up, const ConstMap<T>& dy, MutableMap<T> d_gate_up) {
  const Index width = dy.cols();
  parallel_pieces(dy.rows(), rows_a_piece(width), [&](Index first, Index count) {
    constexpr Index strip = 64;    // of which the sigmoids fit into registers and L1
    alignas(64) T sigmoid[strip];  // or exp of the first ones would round otherwise
    for (Index i = first; i < first + count; ++i) {
      const T* const row = gate_up.data() + i * gate_up.outerStride();
      const T* const dy_row = dy.data() + i * dy.outerStride();
      T* const d_row = d_gate_up.data() + i * d_gate_up.outerStride();
      for (Index start = 0; start < width; start += strip) {
        const Index size = std::min(strip, width - start);
        RowArray<T>(sigmoid, size) =
            (T(1) + (-ConstRowArray<T>(row + start, size)).exp()).inverse();
        for (Index j = 0; j < size; ++j) {
          const T g = row[start + j];
          const T u = row[width + start + j];
          const T d = dy_row[start + j];
          const T s = sigmoid[j];
          d_row[start + j] = d * u * s * (T(1) + g * (T(1) - s));
          d_row[width + start + j] = d * g * s;
        }
      }
    }
  });
}

}  // namespace mora::inline MORA_ABI::detail
