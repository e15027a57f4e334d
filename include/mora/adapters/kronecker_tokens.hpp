// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "mora/core/matrix.hpp"
#include "mora/core/parallel.hpp"

/// \file
/// Tokens as matrices, one after another in memory, either way round: what the products with the
/// factors of a Kronecker product read and write.

namespace mora::inline MORA_ABI::detail {

template <class T>
[[nodiscard]] MutableMap<T> packed(T* data, Index rows, Index cols) {
  return {data, rows, cols, Eigen::OuterStride<>(cols)};
}
template <class T>
[[nodiscard]] ConstMap<T> packed(const T* data, Index rows, Index cols) {
  return {data, rows, cols, Eigen::OuterStride<>(cols)};
}
/// Of each of `tokens` matrices [rows, cols] the transpose.
template <class T>
void transpose_tokens(Index tokens, Index rows, Index cols, const T* from, T* to) {
  const Index size = rows * cols;
  for_each_row(tokens, size, [=](Index t) {
    packed(to + t * size, cols, rows) = packed(from + t * size, rows, cols).transpose();
  });
}
/// Tokens [rows, cols] as a step on W1's side reads them, which is transposed, or on W2's; in
/// `memory` where they do not lie so.
template <class T>
[[nodiscard]] const T* enter_tokens(const ConstMap<T>& tokens, bool transposed, Index rows,
                                    Index cols, T* memory) {
  const Index size = rows * cols;
  if (!transposed && (tokens.outerStride() == size || tokens.rows() <= 1)) return tokens.data();
  for_each_row(tokens.rows(), size, [&](Index t) {
    const T* const from = tokens.data() + t * tokens.outerStride();
    T* const to = memory + t * size;
    if (transposed) {
      packed(to, cols, rows) = packed(from, rows, cols).transpose();
    } else {
      std::copy(from, from + size, to);
    }
  });
  return memory;
}
/// The way back: adds them.
template <class T>
void leave_tokens(const T* memory, bool transposed, Index rows, Index cols, MutableMap<T> tokens) {
  const Index size = rows * cols;
  for_each_row(tokens.rows(), size, [&](Index t) {
    const T* const from = memory + t * size;
    MutableMap<T> to = packed(tokens.data() + t * tokens.outerStride(), rows, cols);
    if (transposed) {
      to += packed(from, cols, rows).transpose();
    } else {
      to += packed(from, rows, cols);
    }
  });
}

}  // namespace mora::inline MORA_ABI::detail
