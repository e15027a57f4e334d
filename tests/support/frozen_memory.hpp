// SPDX-License-Identifier: MIT
#pragma once

#include <mora/adapters/frozen_linear.hpp>
#include <ostream>
#include <utility>

#include "support/not_finite.hpp"

namespace mora_tests {

using mora::Index;

/// The kinds of memory that a frozen weight may lie in.
enum class Memory {
  owned,
  evaluated,
  map_with_gaps,
  misaligned_map,
  block,
  transposed_column_major
};
inline constexpr Memory every_memory[] = {Memory::owned,         Memory::evaluated,
                                          Memory::map_with_gaps, Memory::misaligned_map,
                                          Memory::block,         Memory::transposed_column_major};

inline std::ostream& operator<<(std::ostream& stream, Memory memory) {
  constexpr const char* names[] = {"owned",          "evaluated", "map with gaps",
                                   "misaligned map", "block",     "transposed column-major"};
  return stream << names[static_cast<int>(memory)];
}

/// A weight in one of them, alive as long as this object. What is not the weight is NaN, so that
/// reading it shows.
template <class T>
class FrozenMemory {
 public:
  FrozenMemory(Memory memory, const mora::Matrix<T>& weight) : memory_(memory), weight_(weight) {
    const Index out = weight.rows();
    const Index in = weight.cols();
    rows_.setConstant(out + 2, in + 3, nan<T>);
    rows_.block(1, 2, out, in) = weight;
    numbers_.setConstant(out * in + 2, nan<T>);
    Eigen::Map<mora::Matrix<T>>(numbers_.data() + 1, out, in) = weight;
    columns_ = weight.transpose();
  }
  FrozenMemory(const FrozenMemory&) = delete;
  FrozenMemory& operator=(const FrozenMemory&) = delete;

  [[nodiscard]] mora::FrozenLinear<T> layer(const mora::RowVector<T>& bias) const {
    const Index out = weight_.rows();
    const Index in = weight_.cols();
    switch (memory_) {
      case Memory::map_with_gaps:
        return {Gaps(&rows_(1, 2), out, in, Eigen::OuterStride<>(rows_.cols())), bias};
      case Memory::misaligned_map: return {Plain(numbers_.data() + 1, out, in), bias};
      case Memory::block: return {rows_.block(1, 2, out, in), bias};
      case Memory::transposed_column_major: return {columns_.transpose(), bias};
      case Memory::evaluated: return {(weight_ * T(1)).eval(), bias};
      case Memory::owned: break;
    }
    return {mora::Matrix<T>(weight_), bias};
  }

 private:
  using Plain = Eigen::Map<const mora::Matrix<T>>;
  using Gaps = Eigen::Map<const mora::Matrix<T>, Eigen::Unaligned, Eigen::OuterStride<>>;

  Memory memory_;
  mora::Matrix<T> weight_;
  mora::Matrix<T> rows_;
  mora::RowVector<T> numbers_;
  Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor> columns_;
};

}  // namespace mora_tests
