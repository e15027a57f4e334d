// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "uuid_memorization/base.hpp"

namespace uuid_memorization {

/// How long and in what portions every method trains: AdamW without weight decay, warm-up over 5 %
/// of the steps, cosine to 0.
struct Training {
  Index batch = 16;
  Index steps = 200;
  Index curve_points = 20;
};

/// What tells one run from another.
struct RunSettings {
  Index rank = 0;  ///< LoRA's, which sets the budget of all; 0 for full training.
  Index pairs = 0;
  double learning_rate = 0;
  std::uint64_t seed = 0;  ///< Of the pairs, their order and the adapters.
};

struct CurvePoint {
  Index step = 0;
  PairRecall recall;
};

struct RunResult {
  RunSettings settings;
  Index parameters = 0;
  Index budget = 0;  ///< LoRA's parameters at the same rank; 0 for full training.
  Index work = 0;    ///< Multiply-adds a token of the adapters, beside the frozen layers.
  Index steps = 0;
  PairRecall recall;      ///< After the last step.
  bool diverged = false;  ///< A gradient was not finite; nothing is remembered then.
  double seconds = 0;
  std::vector<CurvePoint> curve;  ///< From step 0 on.

  [[nodiscard]] double bits_per_parameter() const { return recall.bits / double(parameters); }
};

/// A method without its type.
struct Method {
  std::string name;
  bool full = false;
  /// One training run from fresh adapters on all linear layers of the base. Depends on the
  /// arguments alone: what is to be remembered and its order are the same for all methods.
  std::function<RunResult(const Base&, const Training&, const RunSettings&)> run;
};

/// All that are compared, in the order of the tables.
[[nodiscard]] std::vector<Method> all_methods();

}  // namespace uuid_memorization
