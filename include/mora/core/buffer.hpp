// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include "mora/core/matrix.hpp"

namespace mora::inline MORA_ABI::detail {

/// Working memory that only grows, so that passes over batches of changing sizes allocate nothing
/// once the largest has been seen.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  // A copy first, as Eigen's own assignment leaves memory that is freed already when it has none.
  Buffer(const Buffer&) = default;
  Buffer& operator=(const Buffer& other) { return *this = Buffer(other); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }
  ~Buffer() = default;

  /// Uninitialised, contiguous [rows, cols]; ends the life of what was there before.
  MutableMap<T> shape(Index rows, Index cols) {
    rows_ = cols_ = 0;  // for when there is no memory
    if (memory_.size() < rows * cols) resize(memory_, rows * cols, 1);
    rows_ = rows;
    cols_ = cols;
    return map();
  }
  [[nodiscard]] Index cols() const { return cols_; }
  [[nodiscard]] MutableMap<T> map() {
    return {memory_.data(), rows_, cols_, Eigen::OuterStride<>(cols_)};
  }
  [[nodiscard]] ConstMap<T> map() const {
    return {memory_.data(), rows_, cols_, Eigen::OuterStride<>(cols_)};
  }
  [[nodiscard]] T* data() { return memory_.data(); }
  [[nodiscard]] const T* data() const { return memory_.data(); }

 private:
  void swap(Buffer& other) noexcept {
    memory_.swap(other.memory_);
    std::swap(rows_, other.rows_);
    std::swap(cols_, other.cols_);
  }

  // An Eigen array, for its alignment.
  Eigen::Array<T, Eigen::Dynamic, Eigen::Dynamic> memory_;
  Index rows_ = 0;
  Index cols_ = 0;
};

/// Columns [first, first + count) of a map, as a map. Without rows there may be no memory to step
/// into.
template <class Map>
[[nodiscard]] Map columns_of(const Map& x, Index first, Index count) {
  return Map(const_cast<typename Map::PointerArgType>(x.data()) + (x.rows() == 0 ? 0 : first),
             x.rows(), count, Eigen::OuterStride<>(x.outerStride()));
}

}  // namespace mora::inline MORA_ABI::detail
