// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "mora/core/elementwise.hpp"
#include "mora/core/lines.hpp"
#include "mora/core/matrix.hpp"
#include "mora/core/operand.hpp"
#include "mora/core/parallel.hpp"

/// \file
/// The product of a matrix and a vector, which memory limits.

namespace mora::inline MORA_ABI::detail {

/// y += alpha * op(w) x for a row-major w and contiguous vectors, on this thread, by Eigen's
/// matrix-vector kernel.
template <Operand OpW, class T>
void add_matrix_vector_here(T* y, T alpha, const ConstMap<T>& w, const T* x) {
  using Vector = Eigen::Matrix<T, Eigen::Dynamic, 1>;
  if constexpr (OpW == Operand::plain) {
    Eigen::Map<Vector>(y, w.rows()).noalias() +=
        alpha * (w * Eigen::Map<const Vector>(x, w.cols()));
  } else {
    Eigen::Map<Vector>(y, w.cols()).noalias() +=
        alpha * (w.transpose() * Eigen::Map<const Vector>(x, w.rows()));
  }
}

/// How many numbers a page of memory has. Where w is read by columns a piece takes that many of
/// each row, because processors read ahead to the end of a page: pieces of 32 and 16 took 2.3
/// and 3.5 times as long.
template <class Stored>
inline constexpr Index page_numbers = 4096 / Index{sizeof(Stored)};

/// Whether w comes from memory and not from a cache, with rows of at most two pages. Longer ones
/// Eigen's kernel reads faster, eight at a time.
template <class T>
[[nodiscard]] bool is_streamed(const ConstMap<T>& w) {
  return w.size() >= (Index{1} << 20) / Index{sizeof(T)} && w.cols() <= 2 * page_numbers<T>;
}
/// y += alpha w x, one row after the other, as memory that is read in its order arrives fastest.
/// Processors do not read ahead beyond a page, so that the next page's first lines are asked for
/// (docs/results/train_step.md).
template <class T>
void add_streamed_rows(T* y, T alpha, const ConstMap<T>& w, const T* x) {
  constexpr Index page = page_numbers<T>;
  constexpr Index line = 64 / Index{sizeof(T)};
  const Index last = (w.rows() - 1) * w.outerStride() + w.cols() - 1;
  for (Index i = 0; i < w.rows(); ++i) {
    T sum = 0;
    for (Index j = 0; j < w.cols(); j += page) {
      const Index at = i * w.outerStride() + j;
      for (Index k = 0; k < 4; ++k) {
        __builtin_prefetch(w.data() + std::min(at + page + k * line, last));
      }
      sum += dot(w.data() + at, x + j, std::min(page, w.cols() - j));
    }
    y[i] += alpha * sum;
  }
}

/// How many numbers of y a piece of such a product has, in whole `step`s.
[[nodiscard]] inline Index vector_piece(Index inputs, Index step) {
  return std::max<Index>(1, (Index{1} << 17) / std::max<Index>(1, inputs * step)) * step;
}

/// The same product on pieces of y, because one core does not saturate the memory. Numbers of y do
/// not depend on the pieces.
template <Operand OpW, class T>
void add_matrix_vector(T* y, T alpha, const ConstMap<T>& w, const T* x) {
  if constexpr (OpW == Operand::plain) {
    if (is_streamed(w)) {
      const Index pieces = 4 * thread_count();  // so that no thread waits long for another
      parallel_pieces(w.rows(), (w.rows() + pieces - 1) / pieces, [&](Index first, Index count) {
        add_streamed_rows(y + first, alpha, rows_of(w, first, count), x);
      });
      return;
    }
  }
  constexpr bool plain = OpW == Operand::plain;
  const Index outputs = plain ? w.rows() : w.cols();
  const Index inputs = plain ? w.cols() : w.rows();
  const Index piece = plain ? vector_piece(inputs, 16)
                            : std::max(vector_piece(inputs, line_numbers), page_numbers<T>);
  parallel_pieces(outputs, piece, [&](Index first, Index count) {
    const ConstMap<T> part = plain ? rows_of(w, first, count)
                                   : ConstMap<T>(w.data() + first, w.rows(), count,
                                                 Eigen::OuterStride<>(w.outerStride()));
    add_matrix_vector_here<OpW>(y + first, alpha, part, x);
  });
}

}  // namespace mora::inline MORA_ABI::detail
