// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <string_view>
#include <utility>

#include "mora/core/elementwise.hpp"
#include "mora/core/parameter.hpp"
#include "mora/train/hooks.hpp"

namespace mora::inline MORA_ABI {

/// Calls `save(const TrainState&)` every so many steps and after the last one, and only for a state
/// that is good to have: never after a step that was skipped (the next good one is saved in its
/// place), and never with a weight that is not finite, which throws NumericError with the step and
/// the parameter. So a good checkpoint is not replaced by a bad one. The model stays the caller's;
/// callbacks that change it come before this one.
template <Module M, std::invocable<const TrainState&> F>
class CheckpointEvery {
 public:
  /// Throws ArgumentError unless period >= 1.
  CheckpointEvery(Index period, M& model, F save)
      : period_(period), model_(&model), save_(std::move(save)) {
    detail::require_at_least<Index>("checkpoint, period", 1, period);
  }

  void on_begin(const TrainSettings& settings) { saved_ = settings.start.step; }
  void on_step(const StepInfo& info) {
    last_is_good_ = !info.skipped();
    const bool due = info.state.step / period_ > saved_ / period_;
    if (due && last_is_good_) save(info.state);
  }
  void on_end(const TrainResult& result) {
    if (result.state.step > saved_ && last_is_good_) save(result.state);
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
  }

  Index period_;
  M* model_;
  F save_;
  Index saved_ = 0;
  bool last_is_good_ = false;
};

}  // namespace mora::inline MORA_ABI
