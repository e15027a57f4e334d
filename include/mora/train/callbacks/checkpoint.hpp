// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <string_view>
#include <utility>

#include "mora/core/elementwise.hpp"
#include "mora/core/parameter.hpp"
#include "mora/train/hooks.hpp"

namespace mora::inline MORA_ABI {

/// Calls `save(const TrainState&)` every so many steps and at the end of the run, after the step's
/// evaluations: what EarlyStop has heard by then is a part of the state. A step that was skipped is
/// not saved (the next good one is in its place), but at the end all good ones are, and no weight
/// that is not finite, which throws NumericError with the step and the parameter. So a good
/// checkpoint is not replaced by a bad one. The model stays the caller's.
template <Module M, std::invocable<const TrainState&> F>
class CheckpointEvery {
 public:
  /// Throws ArgumentError unless period >= 1.
  CheckpointEvery(Index period, M& model, F save)
      : period_(period), model_(&model), save_(std::move(save)) {
    detail::require_at_least<Index>("checkpoint, period", 1, period);
  }

  void on_begin(const TrainSettings& settings) { saved_ = settings.start.step; }
  void on_step_end(const StepInfo& info) {
    if (info.skipped()) return;
    unsaved_ = true;
    if (info.state.step / period_ > saved_ / period_) save(info.state);
  }
  void on_end(const TrainResult& result) {
    if (unsaved_) save(result.state);
  }

 private:
  void save(const TrainState& state) {
    model_->visit_parameters([&](std::string_view name, const auto& parameter) {
      if (detail::all_finite(parameter.value)) return;
      throw NumericError(
          detail::concat("checkpoint after step ", state.step, ": ", name, " is not finite"));
    });
    save_(state);
    saved_ = state.step;
    unsaved_ = false;
  }

  Index period_;
  M* model_;
  F save_;
  Index saved_ = 0;
  bool unsaved_ = false;  ///< Whether a good step came after that.
};

}  // namespace mora::inline MORA_ABI
