// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "mora/train/hooks.hpp"

namespace mora::inline MORA_ABI {

/// The curves of a run in memory. Pass it by name: `History history; train(..., history);`.
class History {
 public:
  struct Step {
    Index step;  ///< From 1.
    double loss;
    double factor;
    double gradient_norm;
    bool skipped;
  };
  struct Evaluation {
    Index step;
    std::string name;
    double loss;  ///< Mean.
  };

  [[nodiscard]] const std::vector<Step>& steps() const { return steps_; }
  [[nodiscard]] const std::vector<Evaluation>& evaluations() const { return evaluations_; }

  void on_begin(const TrainSettings& settings) {
    // A run that is to go on until something stops it may have any number of steps.
    const Index expected = std::min<Index>(settings.steps - settings.start.step, 1 << 20);
    steps_.reserve(steps_.size() + static_cast<std::size_t>(std::max<Index>(expected, 0)));
  }
  void on_step(const StepInfo& info) {
    steps_.push_back({info.state.step, info.loss, info.factor, info.gradient_norm, info.skipped()});
  }
  void on_evaluation(const EvaluationInfo& info) {
    evaluations_.push_back({info.state.step, std::string(info.name), info.loss.mean()});
  }

 private:
  std::vector<Step> steps_;
  std::vector<Evaluation> evaluations_;
};

}  // namespace mora::inline MORA_ABI
