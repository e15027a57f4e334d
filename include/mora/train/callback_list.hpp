// SPDX-License-Identifier: MIT
#pragma once

#include <tuple>

#include "mora/train/hooks.hpp"

namespace mora::inline MORA_ABI::detail {

/// The callbacks of a run over a model M, and which of them has which hook. Each call goes to all
/// that have the hook, in order, and returns stop when one of them does.
template <class M, class... C>
class CallbackList {
 public:
  static constexpr bool evaluates = (Evaluates<C, M> || ...);

  explicit CallbackList(C&... callbacks) : all_(callbacks...) {}

  [[nodiscard]] Control begin(const TrainSettings& settings) {
    return each([&]<class Hook>(Hook& hook) {
      if constexpr (HasBegin<Hook>) return heed([&] { return hook.on_begin(settings); });
      return Control::go_on;
    });
  }
  [[nodiscard]] Control step(const StepInfo& info) {
    return each([&]<class Hook>(Hook& hook) {
      if constexpr (HasStep<Hook>) return heed([&] { return hook.on_step(info); });
      return Control::go_on;
    });
  }
  /// Every evaluator, and what all callbacks say to its result.
  [[nodiscard]] Control evaluate(const M& model, const TrainState& state) {
    return each([&]<class Hook>(Hook& hook) {
      if constexpr (Evaluates<Hook, M>) {
        return tell({.state = state, .name = hook.name(), .loss = hook.evaluate(model)});
      }
      return Control::go_on;
    });
  }
  void step_end(const StepInfo& info) {
    (void)each([&]<class Hook>(Hook& hook) {
      if constexpr (HasStepEnd<Hook>) hook.on_step_end(info);
      return Control::go_on;
    });
  }
  void end(const TrainResult& result) {
    (void)each([&]<class Hook>(Hook& hook) {
      if constexpr (HasEnd<Hook>) hook.on_end(result);
      return Control::go_on;
    });
  }

 private:
  [[nodiscard]] Control tell(const EvaluationInfo& info) {
    return each([&]<class Hook>(Hook& hook) {
      if constexpr (HasEvaluation<Hook>) return heed([&] { return hook.on_evaluation(info); });
      return Control::go_on;
    });
  }
  template <class F>
  [[nodiscard]] Control each([[maybe_unused]] const F& f) {
    Control control = Control::go_on;
    std::apply(
        [&](auto&... callback) {
          ((control = f(callback) == Control::stop ? Control::stop : control), ...);
        },
        all_);
    return control;
  }

  std::tuple<C&...> all_;
};

}  // namespace mora::inline MORA_ABI::detail
