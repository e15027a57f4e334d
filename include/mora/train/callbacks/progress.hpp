// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cmath>
#include <functional>
#include <ostream>
#include <utility>

#include "mora/train/hooks.hpp"
#include "mora/train/number_text.hpp"

namespace mora::inline MORA_ABI {

/// Lines for a person who waits, on a stream that stays the caller's:
///
///   step 120 of 1000, loss 1.234, 5321 tokens/s, 2 min 10 s left
///
/// One for the first step, then at most one in `every_seconds`; speed and time left are those of
/// the steps since the line before. Evaluations have lines of their own.
class Progress {
 public:
  /// Seconds since any fixed time.
  using Clock = std::function<double()>;

  explicit Progress(std::ostream& out, double every_seconds = 10.0, Clock clock = &steady_seconds)
      : out_(&out), every_(every_seconds), clock_(std::move(clock)) {}

  void on_begin(const TrainSettings& settings) { begin_window(clock_(), settings.start.step); }

  void on_step(const StepInfo& info) {
    tokens_ += info.tokens;
    const double now = clock_();
    const double seconds = now - since_;
    const bool last = info.state.step == info.steps;
    if (printed_ && seconds < every_ && !last && !info.skipped()) return;
    *out_ << "step " << Text(info.state.step) << " of " << Text(info.steps) << ", loss "
          << Text(info.loss, 4);
    if (seconds > 0.0) {
      const auto steps = static_cast<double>(info.state.step - first_step_);
      *out_ << ", " << Text(std::llround(static_cast<double>(tokens_) / seconds)) << " tokens/s";
      if (!last) {
        *out_ << ", ";
        write_duration(static_cast<double>(info.steps - info.state.step) * seconds / steps);
        *out_ << " left";
      }
    }
    if (info.skipped()) *out_ << ", skipped: " << info.fault;
    *out_ << std::endl;
    printed_ = true;
    begin_window(now, info.state.step);
  }

  void on_evaluation(const EvaluationInfo& info) {
    *out_ << "step " << Text(info.state.step) << ", " << info.name << ": loss "
          << Text(info.loss.mean(), 4) << std::endl;
  }

  void on_end(const TrainResult& result) {
    if (result.stopped) *out_ << "stopped after step " << Text(result.state.step) << std::endl;
  }

 private:
  using Text = detail::NumberText;

  [[nodiscard]] static double steady_seconds() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(now).count();
  }
  void begin_window(double now, Index step) {
    since_ = now;
    first_step_ = step;
    tokens_ = 0;
  }
  /// In the two largest units.
  void write_duration(double seconds) {
    const long long whole = std::llround(seconds);
    if (whole >= 3600) {
      *out_ << Text(whole / 3600) << " h " << Text(whole / 60 % 60) << " min";
    } else if (whole >= 60) {
      *out_ << Text(whole / 60) << " min " << Text(whole % 60) << " s";
    } else {
      *out_ << Text(whole) << " s";
    }
  }

  std::ostream* out_;
  double every_;
  Clock clock_;
  bool printed_ = false;
  // The window: since the line before.
  double since_ = 0.0;
  Index first_step_ = 0;
  Index tokens_ = 0;
};

}  // namespace mora::inline MORA_ABI
