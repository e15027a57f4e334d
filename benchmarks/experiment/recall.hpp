// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

#include "experiment/uuid.hpp"

namespace experiment {

/// What a model knows of a set of values.
struct Recall {
  double accuracy = 0;  ///< Characters right (the largest logit), of those that are random.
  double bits = 0;      ///< Remembered of the whole set, >= 0; at most 122 a value.
};

/// Counts what logits say about the digits of values, digit by digit.
///
/// Bits remembered: 122 a value, less the cross-entropy in bits of the digits' random part, summed
/// over the set, and not below 0. The version digit does not count. The probability of the variant
/// digit is taken among 8, 9, a and b, so that knowing the format is not taken for memory.
class RecallCount {
 public:
  /// `logits`: a row whose first 16 numbers belong to the digits 0 to f; more of them, for tokens
  /// that are no digits, can only make a character wrong. `place`: of the digit in its value.
  template <class Logits>
  void add(std::size_t place, const Logits& logits, Index digit) {
    if (!Uuid::is_random(place)) return;
    Index best = 0;
    logits.maxCoeff(&best);
    ++digits_;
    right_ += best == digit;
    const auto possible = logits.segment(Uuid::first_value(place), Uuid::value_count(place));
    const double largest = possible.maxCoeff();
    const double sum = (possible.template cast<double>().array() - largest).exp().sum();
    missing_ += (std::log(sum) + largest - logits[digit]) / std::numbers::ln2;
  }

  /// Of whole values, all of whose digits were added.
  [[nodiscard]] Recall result() const {
    const auto digits = static_cast<double>(digits_);
    const double values = digits / double(Uuid::random_digits);
    return {.accuracy = double(right_) / digits,
            .bits = std::max(0.0, Uuid::random_bits * values - missing_)};
  }

 private:
  double missing_ = 0;  // bits
  Index right_ = 0;
  Index digits_ = 0;
};

}  // namespace experiment
