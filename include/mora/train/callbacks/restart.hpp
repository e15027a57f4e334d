// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <utility>

#include "mora/core/error.hpp"
#include "mora/train/hooks.hpp"

namespace mora::inline MORA_ABI {

/// Calls `restart(number)` after every so many steps, with 1 for the first restart, but not after
/// the last step of the run: where ReLoRA and ReMoRA fold adapters into the frozen weights and
/// begin new ones. The number follows from the step alone, so that a resumed run restarts as the
/// uninterrupted one; whoever makes a finished run longer calls the restart that it ended at. It
/// comes before callbacks that save the model. With JaggedSchedule the period is its restart_every.
///
///     mora::RestartEvery restarts(2000, [&](mora::Index number) {
///       const auto seed = static_cast<std::uint64_t>(number);
///       model.restart([&](const std::string&, const mora::FrozenLinear<float>& weight) {
///         return mora::AnyAdapter<float>(mora::MoraAdapter<float, mora::RandomSharing>(
///             weight, {.rank = 8, .op = {.seed = seed}}));
///       });
///       optimizer.reset_state("M");
///     });
template <std::invocable<Index> F>
class RestartEvery {
 public:
  /// Throws ArgumentError unless period >= 1.
  RestartEvery(Index period, F restart) : period_(period), restart_(std::move(restart)) {
    detail::require_at_least<Index>("restart, period", 1, period);
  }

  void on_step(const StepInfo& info) {
    if (info.state.step % period_ != 0 || info.state.step == info.steps) return;
    restart_(info.state.step / period_);
  }

 private:
  Index period_;
  F restart_;
};

}  // namespace mora::inline MORA_ABI
