// SPDX-License-Identifier: MIT
#pragma once

#include "mora/core/matrix.hpp"

namespace mora::inline MORA_ABI::detail {

/// Uninitialised working memory of this thread, kept for the next call with the same `Purpose`, so
/// that a const forward pass allocates nothing once warmed up. Only tiles of bounded size are kept
/// here (megabytes). A call with the same purpose ends the life of the former contents.
template <class T, class Purpose>
[[nodiscard]] T* scratch(Index size) {
  // An Eigen array, for its alignment.
  thread_local Eigen::Array<T, Eigen::Dynamic, Eigen::Dynamic> memory;
  if (memory.size() < size) resize(memory, size, 1);
  return memory.data();
}

/// The same as a matrix.
template <class T, class Purpose>
[[nodiscard]] MutableMap<T> scratch(Index rows, Index cols) {
  return {scratch<T, Purpose>(rows * cols), rows, cols, Eigen::OuterStride<>(cols)};
}

}  // namespace mora::inline MORA_ABI::detail
