// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstring>

#include "mora/core/parallel.hpp"
#include "mora/core/product.hpp"
#include "mora/core/small_matrix.hpp"

/// \file
/// Products with a matrix whose numbers have 16 bits. A part that fits the cache is widened at a
/// time, so that memory is read at 2 bytes a number and nothing of the matrix's size is ever made.
/// The sums are those of add_product over the widened matrix, in the same order, so that results
/// are the same bit for bit; but for a single row, where the order is another.

namespace mora::inline MORA_ABI::detail {

/// y[i] += w[first + i] x for so many rows.
template <int rows, Float16Bits F>
void add_small_dots(float* y, const SmallMatrix<F>& w, Index first, const float* x) {
  Lanes sums[rows] = {};
  Index j = 0;
  for (; j + lane_count <= w.cols; j += lane_count) {
    Lanes factor;
    std::memcpy(&factor, x + j, sizeof factor);
    for (int i = 0; i < rows; ++i) {
      Lanes numbers;
      widen_lanes(w.at(first + i, j), numbers);
      sums[i] += numbers * factor;
    }
  }
  for (int i = 0; i < rows; ++i) {
    float sum = 0;
    for (Index k = 0; k < lane_count; ++k) sum += sums[i][k];
    for (Index k = j; k < w.cols; ++k) sum += widen<float>(*w.at(first + i, k)) * x[k];
    y[i] += sum;
  }
}

/// y += w x. Eight rows at a time, whose sums in flight hide their latency and whose streams keep
/// memory busy.
template <Float16Bits F>
void add_small_matrix_vector(float* y, const SmallMatrix<F>& w, const float* x) {
  constexpr int together = 8;
  parallel_pieces(w.rows, vector_piece(w.cols, together), [&](Index first, Index count) {
    Index i = first;
    for (; i + together <= first + count; i += together) add_small_dots<together>(y + i, w, i, x);
    for (; i < first + count; ++i) add_small_dots<1>(y + i, w, i, x);
  });
}

/// y += op(w) x by Eigen's kernel, for blocks of w that are read again from the first cache.
template <Operand OpW, Float16Bits F, class T>
void add_small_blocks_vector(T* y, const SmallMatrix<F>& w, const T* x) {
  constexpr bool plain = OpW == Operand::plain;
  constexpr Index height = 8;
  constexpr Index width = 512;  // 16 KB of floats
  const Index outputs = plain ? w.rows : w.cols;
  const Index piece = vector_piece(plain ? w.cols : w.rows, plain ? height : width);
  parallel_pieces(outputs, piece, [&](Index first, Index count) {
    alignas(64) std::array<T, height * width> memory;
    const Index first_row = plain ? first : 0;
    const Index last_row = plain ? first + count : w.rows;
    const Index first_col = plain ? 0 : first;
    const Index last_col = plain ? w.cols : first + count;
    for (Index i = first_row; i < last_row; i += height) {
      for (Index j = first_col; j < last_col; j += width) {
        const Index rows = std::min(height, last_row - i);
        const Index cols = std::min(width, last_col - j);
        const MutableMap<T> block(memory.data(), rows, cols, Eigen::OuterStride<>(cols));
        widen_block(w, i, j, block);
        add_matrix_vector_here<OpW>(y + (plain ? i : j), T(1), as_const(block),
                                    x + (plain ? j : i));
      }
    }
  });
}

/// c += a op(w).
template <Operand OpW, Float16Bits F, class T>
void add_small_product(MutableMap<T> c, const ConstMap<T>& a, const SmallMatrix<F>& w) {
  if (c.rows() != 1) {
    return add_product_by_parts<OpW>(
        c, a, [&](Index row, Index col, MutableMap<T> to) { widen_block(w, row, col, to); });
  }
  constexpr bool transposed = OpW == Operand::transposed;
  if constexpr (transposed && std::same_as<T, float>) {
    add_small_matrix_vector(c.data(), w, a.data());
  } else {
    constexpr Operand op = transposed ? Operand::plain : Operand::transposed;
    add_small_blocks_vector<op>(c.data(), w, a.data());
  }
}

}  // namespace mora::inline MORA_ABI::detail
