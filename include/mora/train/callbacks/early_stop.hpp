// SPDX-License-Identifier: MIT
#pragma once

#include <limits>
#include <string>
#include <utility>

#include "mora/train/hooks.hpp"

namespace mora::inline MORA_ABI {

/// Settings of EarlyStop.
struct EarlyStopSettings {
  Index patience = 3;                ///< >= 1, evaluations in a row without an improvement.
  double minimum_improvement = 0.0;  ///< >= 0, by which the mean loss falls below the best one.
  std::string evaluation{};          ///< The evaluator's name; empty: the first that reports.

  /// Throws ArgumentError naming the setting that is out of range.
  void validate() const {
    detail::require_at_least<Index>("patience", 1, patience);
    detail::require_range("minimum_improvement", minimum_improvement, 0.0,
                          std::numeric_limits<double>::infinity());
  }
};

/// Stops a run whose evaluation loss does not fall any more. NaN is no improvement.
class EarlyStop {
 public:
  /// What a run that is resumed has to put back.
  struct State {
    double best = std::numeric_limits<double>::infinity();
    Index best_step = 0;
    Index waited = 0;  ///< Evaluations since the best one.
  };

  explicit EarlyStop(EarlyStopSettings settings = {}) : EarlyStop(std::move(settings), State()) {}
  EarlyStop(EarlyStopSettings settings, const State& state)
      : settings_(std::move(settings)), state_(state) {
    settings_.validate();
    detail::require_at_least<Index>("early stop, evaluations since the best one", 0, state.waited);
  }

  /// A run that was stopped does not go on.
  [[nodiscard]] Control on_begin(const TrainSettings&) const { return patient(); }

  [[nodiscard]] const State& state() const { return state_; }

  [[nodiscard]] Control on_evaluation(const EvaluationInfo& info) {
    if (settings_.evaluation.empty()) settings_.evaluation = info.name;
    if (info.name != settings_.evaluation) return Control::go_on;
    const double loss = info.loss.mean();
    if (loss < state_.best - settings_.minimum_improvement) {
      state_ = {.best = loss, .best_step = info.state.step, .waited = 0};
      return Control::go_on;
    }
    ++state_.waited;
    return patient();
  }

 private:
  [[nodiscard]] Control patient() const {
    return state_.waited < settings_.patience ? Control::go_on : Control::stop;
  }

  EarlyStopSettings settings_;
  State state_;
};

}  // namespace mora::inline MORA_ABI
