// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "capacity/digit_loss.hpp"

namespace capacity {

/// How long and in what portions every method trains.
struct Training {
  Index batch = 32;          ///< Or the whole set where that is smaller.
  Index passes = 80;         ///< Over the set.
  Index least_seen = 16000;  ///< Pairs, counted at each visit: what small sets train for at least,
  Index most_for_least = 1000;  ///< but in no more than that many steps.
  Index curve_points = 12;

  [[nodiscard]] Index steps(Index pairs) const {
    const Index at_a_time = std::min(batch, pairs);
    return std::max(std::min(most_for_least, (least_seen + at_a_time - 1) / at_a_time),
                    passes * ((pairs + batch - 1) / batch));
  }
};

/// What tells one run from another.
struct RunSettings {
  Index rank = 0;
  Index pairs = 0;
  double learning_rate = 0;
  std::uint64_t seed = 0;
};

struct CurvePoint {
  Index step = 0;
  Recall recall;
};

struct RunResult {
  RunSettings settings;
  Index parameters = 0;
  Index budget = 0;  ///< LoRA's parameters at the same rank; 0 for full training.
  Index work = 0;    ///< Multiply-adds a pair of the adapters, beside the frozen layers.
  Index steps = 0;
  Recall recall;          ///< After the last step.
  bool diverged = false;  ///< A gradient was not finite; nothing is remembered then.
  double seconds = 0;
  std::vector<CurvePoint> curve;

  [[nodiscard]] double bits_per_parameter() const { return recall.bits / double(parameters); }
};

}  // namespace capacity
