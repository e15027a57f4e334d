// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "experiment/decoder_methods.hpp"
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

using Method = experiment::DecoderMethod;

/// One training run from fresh adapters on all linear layers of the base. Depends on the arguments
/// alone: what is to be remembered and its order are the same for all methods.
[[nodiscard]] RunResult memory_run(const Method& method, const Base& base, const Training& training,
                                   const RunSettings& settings);

/// All that are compared, in the order of the tables: single adapters on a frozen base.
[[nodiscard]] std::vector<std::string> all_methods();

}  // namespace uuid_memorization
