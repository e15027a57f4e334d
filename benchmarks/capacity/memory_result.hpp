// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "capacity/digit_loss.hpp"

namespace capacity {

/// How long and in what portions every method trains.
struct Training {
  Index batch = 32;
  Index passes = 200;     ///< Over the set.
  Index min_steps = 400;  ///< So that small sets, of a step or two a pass, train long enough.
  Index curve_points = 24;

  [[nodiscard]] Index steps(Index pairs) const {
    return std::max(min_steps, passes * ((pairs + batch - 1) / batch));
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
