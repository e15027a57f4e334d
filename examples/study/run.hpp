// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <istream>
#include <ostream>
#include <string>
#include <vector>

#include "study/task.hpp"

namespace study {

/// How long and in what portions every method trains: AdamW without weight decay, gradients clipped
/// to a norm of 1, warm-up, cosine to a tenth; methods that restart have the jagged schedule.
struct Training {
  Index batch = 8;
  Index steps = 300;
  Index warm_up = 20;
  Index restart_every = 100;
  Index restart_warm_up = 10;
  Index curve_points = 10;
};

/// What tells one run of a method from another.
struct RunSettings {
  Index rank = 0;
  double learning_rate = 0;
  std::uint64_t seed = 0;  ///< Of the order of the examples, the adapters, and a fresh decoder.
};

/// What a model makes of one held-out set.
struct Score {
  double loss = 0;   ///< Nats a target.
  double exact = 0;  ///< Part of the responses whose every token is the likeliest; 0 if not asked.
};

struct CurvePoint {
  Index step = 0;
  std::vector<Score> scores;  ///< By held-out set.
};

/// The update that one kind of layer has learnt, on average over the layers.
struct KindSpectrum {
  std::string kind;  ///< "q_proj".
  double above = 0;  ///< Singular values above 0.1.
  double effective_rank = 0;
  std::vector<double> values;  ///< Descending.
};

struct RunResult {
  RunSettings settings;
  Index parameters = 0;  ///< Trainable ones in the linear layers.
  Index budget = 0;      ///< LoRA's at the same rank; 0 for full training.
  Index others = 0;      ///< Trainable ones elsewhere.
  bool diverged = false;
  double seconds = 0;                  ///< Of training and evaluation.
  std::vector<CurvePoint> curve = {};  ///< From step 0 on.
  std::vector<KindSpectrum> spectra = {};

  /// The higher the better: of the first held-out set.
  [[nodiscard]] double score() const;
};

void put_run(std::ostream& out, const RunResult& run);
void get_run(std::istream& in, RunResult& run);

/// Which part of the held-out sets a run is scored on.
enum class Part { search, results };

/// One training run. Depends on the arguments alone; examples and their order are the same for all
/// methods. A search is evaluated at its end alone, and has no spectra.
[[nodiscard]] RunResult train_run(const Task& task, const Method& method, const Training& training,
                                  const RunSettings& settings, Part part);

/// A decoder with a method attached, as a run begins.
[[nodiscard]] Model start_of_run(const Task& task, const Method& method,
                                 const RunSettings& settings);

}  // namespace study
