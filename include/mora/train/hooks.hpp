// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <string_view>
#include <type_traits>

#include "mora/core/loss_sum.hpp"
#include "mora/train/settings.hpp"

namespace mora::inline MORA_ABI {

/// What a hook may return; one that returns nothing goes on.
enum class Control { go_on, stop };

/// A step that was made, or skipped.
struct StepInfo {
  TrainState state;            ///< After it: `state.step` is its number, counted from 1.
  Index steps = 0;             ///< Of the whole run.
  double loss = 0.0;           ///< Mean over its targets, before the step.
  double factor = 0.0;         ///< The schedule's.
  double gradient_norm = 0.0;  ///< Before clipping.
  Index targets = 0;
  Index tokens = 0;          ///< Targets, where batches do not count their tokens.
  std::string_view fault{};  ///< Why it was skipped, or empty. Lives until the hook returns.

  [[nodiscard]] bool skipped() const { return !fault.empty(); }
};

/// One evaluation of the model.
struct EvaluationInfo {
  TrainState state;       ///< When it was made.
  std::string_view name;  ///< The evaluator's. Lives until the hook returns.
  LossSum loss;
};

/// How a run ended.
struct TrainResult {
  TrainState state;
  bool stopped = false;  ///< By a hook.
};

namespace detail {

template <class C>
concept HasBegin = requires(C& c, const TrainSettings& settings) {
  c.on_begin(settings);
};
template <class C>
concept HasStep = requires(C& c, const StepInfo& info) {
  c.on_step(info);
};
template <class C>
concept HasStepEnd = requires(C& c, const StepInfo& info) {
  c.on_step_end(info);
};
template <class C>
concept HasEvaluation = requires(C& c, const EvaluationInfo& info) {
  c.on_evaluation(info);
};
template <class C>
concept HasEnd = requires(C& c, const TrainResult& result) {
  c.on_end(result);
};
template <class C, class M>
concept Evaluates = requires(C& c, const M& model) {
  { c.evaluate(model) } -> std::convertible_to<LossSum>;
  { c.name() } -> std::convertible_to<std::string_view>;
};

/// A member of a hook's name that could not be called as one would never be.
template <class C, class M>
concept HooksFit = (HasBegin<C> || !requires { &C::on_begin; }) &&
                   (HasStep<C> || !requires { &C::on_step; }) &&
                   (HasStepEnd<C> || !requires { &C::on_step_end; }) &&
                   (HasEvaluation<C> || !requires { &C::on_evaluation; }) &&
                   (HasEnd<C> || !requires { &C::on_end; }) &&
                   (Evaluates<C, M> || !requires { &C::evaluate; });

/// What a hook says; `call` calls it.
template <class Call>
[[nodiscard]] Control heed(const Call& call) {
  using Result = decltype(call());
  static_assert(std::is_void_v<Result> || std::is_same_v<Result, Control>,
                "mora: a hook returns nothing or a mora::Control");
  if constexpr (std::is_void_v<Result>) {
    call();
    return Control::go_on;
  } else {
    return call();
  }
}

}  // namespace detail

/// An object that takes part in a training run, by any of these members:
///
/// - `on_begin(const TrainSettings&)`, before the first step;
/// - `on_step(const StepInfo&)`, after every step: the weights are the new ones;
/// - `on_evaluation(const EvaluationInfo&)`, after each evaluation;
/// - `on_step_end(const StepInfo&)`, after the step's evaluations as well, or when a hook stopped
///   the run before them: where to save what a run goes on from;
/// - `on_end(const TrainResult&)`, after the last step or when a hook stopped the run, and not when
///   an exception ends it;
/// - `evaluate(const M&)` and `name()`, for an evaluator: see EvaluateOn.
///
/// Each returns nothing or a Control (`on_step_end`, `on_end`: nothing). Hooks of one event are
/// called in the order of the callbacks, all of them even when one says stop. A member of such a
/// name that takes something else is an error.
template <class C, class M>
concept Callback = detail::HooksFit<C, M> &&
    (detail::HasBegin<C> || detail::HasStep<C> || detail::HasStepEnd<C> ||
     detail::HasEvaluation<C> || detail::HasEnd<C> || detail::Evaluates<C, M>);

}  // namespace mora::inline MORA_ABI
