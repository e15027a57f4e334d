// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>

#include "capacity/memory_task.hpp"

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
struct Recall {
  double accuracy = 0;  ///< Characters right (the largest logit), of those that are random.
  double bits = 0;      ///< Remembered of the whole set, >= 0; at most 122 a pair.
};

/// Bits remembered: 122 a pair, less the cross-entropy in bits of the digits' random part, summed
/// over the set, and not below 0. The version digit does not count. The probability of the variant
/// digit is taken among 8, 9, a and b, so that knowing the format is not taken for memory.
[[nodiscard]] inline Recall recall_of(const Matrix& logits, const MemoryTask& task) {
  double missing = 0;
  Index right = 0;
  for (Index p = 0; p < task.pairs(); ++p) {
    const Uuid& value = task.values[static_cast<std::size_t>(p)];
    for (std::size_t d = 0; d < Uuid::digits; ++d) {
      if (!Uuid::is_random(d)) continue;
      const auto of_digit =
          logits.row(p).segment(static_cast<Index>(d * Uuid::values), Index{Uuid::values});
      const auto possible = of_digit.segment(Uuid::first_value(d), Uuid::value_count(d));
      Index best = 0;
      of_digit.maxCoeff(&best);
      right += best == Index{value.digit[d]};
      const double largest = possible.maxCoeff();
      const double sum = (possible.cast<double>().array() - largest).exp().sum();
      missing += (std::log(sum) + largest - of_digit[value.digit[d]]) / std::numbers::ln2;
    }
  }
  const auto pairs = static_cast<double>(task.pairs());
  return {.accuracy = double(right) / (pairs * double(Uuid::random_digits)),
          .bits = std::max(0.0, Uuid::random_bits * pairs - missing)};
}

}  // namespace capacity
