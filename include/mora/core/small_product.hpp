// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstring>

#include "mora/core/lines.hpp"
#include "mora/core/matrix_vector.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/product.hpp"
#include "mora/core/small_matrix.hpp"

/// \file
/// Products with a matrix whose numbers have 16 bits. A part that fits the cache is widened at a
/// time, so that memory is read at 2 bytes a number and nothing of the matrix's size is ever made.
/// The sums are those of add_product over the widened matrix, in the same order, so that results
/// are the same bit for bit; but for a single row, where the order is another.

namespace mora::inline MORA_ABI::detail {

/// How many rows of w are read at once: their sums in flight hide the latency of additions, and
/// their streams keep memory busy.
inline constexpr int rows_together = 8;

/// y[i] += w[first + i] x for so many rows.
template <int rows, Float16Bits F, class T>
void add_small_dots(T* y, const SmallMatrix<F>& w, Index first, const T* x) {
  using Wide = typename LanesOf<T>::type;
  Wide sums[rows] = {};
  Index j = 0;
  for (; j + lane_count <= w.cols; j += lane_count) {
    Wide factor;
    std::memcpy(&factor, x + j, sizeof factor);
    for (int i = 0; i < rows; ++i) {
      Lanes numbers;
      widen_lanes(w.at(first + i, j), numbers);
      sums[i] += __builtin_convertvector(numbers, Wide) * factor;
    }
  }
  for (int i = 0; i < rows; ++i) {
    T sum = 0;
    for (Index k = 0; k < lane_count; ++k) sum += sums[i][k];
    for (Index k = j; k < w.cols; ++k) sum += widen<T>(*w.at(first + i, k)) * x[k];
    y[i] += sum;
  }
}

/// y += w x.
template <Float16Bits F, class T>
void add_small_matrix_vector(T* y, const SmallMatrix<F>& w, const T* x) {
  parallel_pieces(w.rows, vector_piece(w.cols, rows_together), [&](Index first, Index count) {
    const Index last = first + count;
    Index i = first;
    for (; i + rows_together <= last; i += rows_together) {
      add_small_dots<rows_together>(y + i, w, i, x);
    }
    for (; i < last; ++i) add_small_dots<1>(y + i, w, i, x);
  });
}

/// y[j] += w[first + i][j] x[first + i] for so many rows and the columns [begin, end).
template <int rows, Float16Bits F, class T>
void add_small_rows(T* y, const SmallMatrix<F>& w, Index first, Index begin, Index end,
                    const T* x) {
  using Wide = typename LanesOf<T>::type;
  Index j = begin;
  for (; j + lane_count <= end; j += lane_count) {
    Wide sum;
    std::memcpy(&sum, y + j, sizeof sum);
    for (int i = 0; i < rows; ++i) {
      Lanes numbers;
      widen_lanes(w.at(first + i, j), numbers);
      sum += __builtin_convertvector(numbers, Wide) * x[first + i];
    }
    std::memcpy(y + j, &sum, sizeof sum);
  }
  for (; j < end; ++j) {
    for (int i = 0; i < rows; ++i) y[j] += widen<T>(*w.at(first + i, j)) * x[first + i];
  }
}

/// y += wᵀ x. Pieces are columns, so that no two threads add to one number; as many for every
/// thread, of a page or so where threads are few. A number's sum is the same in any piece.
template <Float16Bits F, class T>
void add_small_transposed_vector(T* y, const SmallMatrix<F>& w, const T* x) {
  const Index threads = thread_count();
  const Index pages = (w.cols + page_numbers<F> / 2) / page_numbers<F>;
  const Index pieces = std::max<Index>(1, (pages + threads - 1) / threads) * threads;
  const Index piece =
      std::max(vector_piece(w.rows, line_numbers), whole_lines((w.cols + pieces - 1) / pieces));
  parallel_pieces(w.cols, piece, [&](Index first, Index count) {
    const Index last = first + count;
    Index i = 0;
    for (; i + rows_together <= w.rows; i += rows_together) {
      add_small_rows<rows_together>(y, w, i, first, last, x);
    }
    for (; i < w.rows; ++i) add_small_rows<1>(y, w, i, first, last, x);
  });
}

/// c += a op(w).
template <Operand OpW, Float16Bits F, class T>
void add_small_product(MutableMap<T> c, const ConstMap<T>& a, const SmallMatrix<F>& w) {
  if (c.rows() != 1) {
    return add_product_by_parts<OpW>(c, a, [&](Index row, Index col, MutableMap<T> to) {
      widen_block(w, row, col, to);
      return as_const(to);
    });
  }
  if constexpr (OpW == Operand::transposed) {
    add_small_matrix_vector(c.data(), w, a.data());
  } else {
    add_small_transposed_vector(c.data(), w, a.data());
  }
}

}  // namespace mora::inline MORA_ABI::detail
