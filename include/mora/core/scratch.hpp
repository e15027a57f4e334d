// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "mora/core/matrix.hpp"

namespace mora::inline MORA_ABI::detail {

/// The numbers of a tile: 4 MB of floats.
inline constexpr Index scratch_tile = Index{1} << 20;

/// Uninitialised working memory of this thread, kept for the next call with the same `Purpose`, so
/// that a const forward pass allocates nothing once warmed up. It grows to the largest need and is
/// kept until the thread ends, so what it is asked for is bounded: tiles of tokens and of weights
/// (`scratch_tile` numbers, or one token or row where that is more), four tiles of an update's
/// rows, and packing buffers. A call with the same purpose ends the life of the former contents.
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

/// An object of this thread that is kept in the same way: for what has buffers of its own.
template <class Object, class Purpose>
[[nodiscard]] Object& kept() {
  thread_local Object object;
  return object;
}

/// Calls `f(first, count)` for tiles of [0, size), whose items take `width` numbers each.
template <class F>
void for_each_tile(Index size, Index width, const F& f) {
  const Index tile = std::max<Index>(1, scratch_tile / std::max<Index>(1, width));
  for (Index first = 0; first < size; first += tile) f(first, std::min(tile, size - first));
}

}  // namespace mora::inline MORA_ABI::detail
