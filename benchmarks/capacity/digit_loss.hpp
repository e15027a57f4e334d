// SPDX-License-Identifier: MIT
#pragma once

#include <span>

#include "capacity/memory_task.hpp"
#include "experiment/recall.hpp"

namespace capacity {

/// Logits [pairs, 512] seen as a row of 16 for each digit, [pairs * 32, 16].
using DigitRows = Eigen::Array<float, Eigen::Dynamic, int{Uuid::values}, Eigen::RowMajor>;

/// The gradient of the training loss by the logits. The loss of a pair is the sum of the
/// cross-entropies of its 32 digits; that of a batch is the mean over its pairs.
/// `pair_of[i]`: the pair that row i of the logits is about.
inline void loss_gradient(const Matrix& logits, const MemoryTask& task,
                          std::span<const Index> pair_of, Matrix& gradient) {
  const Index rows = logits.rows() * Index{Uuid::digits};
  gradient.resize(logits.rows(), logits.cols());
  const Eigen::Map<const DigitRows> in(logits.data(), rows, Index{Uuid::values});
  Eigen::Map<DigitRows> out(gradient.data(), rows, Index{Uuid::values});
  const auto pairs = static_cast<float>(logits.rows());
  for (Index r = 0; r < rows; ++r) {
    out.row(r) = (in.row(r) - in.row(r).maxCoeff()).exp();
    out.row(r) /= out.row(r).sum() * pairs;
  }
  for (Index i = 0; i < logits.rows(); ++i) {
    const Uuid& value = task.values[static_cast<std::size_t>(pair_of[static_cast<std::size_t>(i)])];
    for (std::size_t d = 0; d < Uuid::digits; ++d) {
      out(i * Index{Uuid::digits} + static_cast<Index>(d), Index{value.digit[d]}) -= 1.0f / pairs;
    }
  }
}

/// What a network knows of a task.
[[nodiscard]] inline Recall recall_of(const Matrix& logits, const MemoryTask& task) {
  RecallCount count;
  for (Index p = 0; p < task.pairs(); ++p) {
    const Uuid& value = task.values[static_cast<std::size_t>(p)];
    for (std::size_t d = 0; d < Uuid::digits; ++d) {
      count.add(d, logits.row(p).segment(static_cast<Index>(d * Uuid::values), Index{Uuid::values}),
                Index{value.digit[d]});
    }
  }
  return count.result();
}

}  // namespace capacity
