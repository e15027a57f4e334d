// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "experiment/recall.hpp"
#include "mora/core/matrix.hpp"
#include "uuid_memorization/pairs.hpp"

namespace uuid_memorization {

/// What a model knows of pairs, each digit of a value given the digits before it.
struct PairRecall {
  double loss = 0;        ///< Mean cross-entropy of a value's digit, over the whole vocabulary.
  double accuracy = 0;    ///< Random characters of which the token was the likeliest.
  double bits = 0;        ///< Remembered of the whole set: see experiment::RecallCount.
  double verbatim = 0;    ///< Pairs with all digits right, which greedy decoding repeats exactly.
  double first_four = 0;  ///< Accuracy of the first four: others can follow from those before.
};

/// Counts pairs by their logits.
class PairRecallCount {
 public:
  /// `logits`: [32, vocabulary], what the model expects at each place of the value.
  template <class Logits>
  void add(const Logits& logits, const Uuid& value) {
    bool all_right = true;
    for (std::size_t place = 0; place < Uuid::digits; ++place) {
      const auto row = logits.row(static_cast<Index>(place));
      const Index digit = value.digit[place];
      digits_.add(place, row, digit);
      Index best = 0;
      const double largest = row.maxCoeff(&best);
      const double sum = (row.template cast<double>().array() - largest).exp().sum();
      loss_ += std::log(sum) + largest - double(row[digit]);
      all_right = all_right && best == digit;
      if (place < 4) first_right_ += best == digit;
    }
    ++pairs_;
    verbatim_ += all_right;
  }

  [[nodiscard]] PairRecall result() const {
    const experiment::Recall recall = digits_.result();
    const auto pairs = static_cast<double>(pairs_);
    return {.loss = loss_ / (pairs * double(Uuid::digits)),
            .accuracy = recall.accuracy,
            .bits = recall.bits,
            .verbatim = double(verbatim_) / pairs,
            .first_four = double(first_right_) / (4.0 * pairs)};
  }

 private:
  experiment::RecallCount digits_;
  double loss_ = 0;
  Index pairs_ = 0;
  Index verbatim_ = 0;
  Index first_right_ = 0;
};

/// Of all pairs, `between` being the separator, some at a time.
template <class Model>
[[nodiscard]] PairRecall recall_of(const Model& model, const PairSet& pairs,
                                   Token between = separator::recall) {
  constexpr Index at_a_time = 32;
  PairRecallCount count;
  mora::Batch batch;
  for (Index first = 0; first < pairs.size(); first += at_a_time) {
    const Index end = std::min(pairs.size(), first + at_a_time);
    batch.clear();
    for (Index i = first; i < end; ++i) {
      add_pair(pairs[i].key, between, pairs[i].value, batch);
    }
    const mora::Matrix<float> logits = model.logits(batch);
    for (Index i = first; i < end; ++i) {
      count.add(logits.middleRows((i - first) * pair_positions + first_target, Index{Uuid::digits}),
                pairs[i].value);
    }
  }
  return count.result();
}

}  // namespace uuid_memorization
