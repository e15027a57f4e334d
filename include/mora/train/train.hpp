// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "mora/optim/clip.hpp"
#include "mora/optim/schedule.hpp"
#include "mora/train/callback_list.hpp"
#include "mora/train/concepts.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

/// The batches of one step. Their targets are counted before the first gradient is computed, so
/// that several have to be there at once: as copies, since a source may reuse its memory.
template <class Batch>
class StepBatches {
 public:
  explicit StepBatches(Index number) : number_(static_cast<std::size_t>(number)) {}

  template <class Source>
  [[nodiscard]] std::span<const Batch> draw(Source& source) {
    if (number_ == 1) {
      const Batch& batch = source.next();
      return {std::addressof(batch), 1};
    }
    for (std::size_t i = 0; i < number_; ++i) {
      const Batch& batch = source.next();
      if (i == copies_.size()) {
        copies_.push_back(batch);
      } else {
        copies_[i] = batch;
      }
    }
    return copies_;
  }

 private:
  std::size_t number_;
  std::vector<Batch> copies_;
};

template <class Batch>
[[nodiscard]] Index token_count(const Batch& batch) {
  if constexpr (requires {
                  { batch.token_count() } -> std::convertible_to<Index>;
                }) {
    return batch.token_count();
  } else {
    return batch.target_count();
  }
}

/// The gradients of the mean loss over all targets of the batches, and that loss in `info`.
template <class M, class Batch>
void compute_gradients(M& model, std::span<const Batch> batches, StepInfo& info) {
  for (const Batch& batch : batches) {
    info.targets += batch.target_count();
    info.tokens += token_count(batch);
  }
  if (info.targets == 0) {
    throw ArgumentError(concat("step ", info.state.step, ": no targets in its ", batches.size(),
                               batches.size() == 1 ? " batch" : " batches"));
  }
  zero_gradients(model);
  LossSum loss;
  for (const Batch& batch : batches) {
    const Index targets = batch.target_count();
    if (targets == 0) continue;
    const LossSum part = model.accumulate_gradients(batch, 1.0 / static_cast<double>(info.targets));
    require_size("accumulate_gradients, targets of the batch", targets, part.count);
    loss += part;
  }
  info.loss = loss.mean();
}

/// Steps the parameters by their gradients, unless a number is not finite. Returns the fault.
template <class M, class O>
[[nodiscard]] std::string apply_gradients(M& model, O& optimizer, const TrainSettings& settings,
                                          StepInfo& info) {
  const GradientNorm gradient = settings.clip_norm > 0.0 && std::isfinite(info.loss)
                                    ? clip_gradient_norm(model, settings.clip_norm)
                                    : gradient_norm(model);
  info.gradient_norm = gradient.norm;
  std::string fault;
  if (!std::isfinite(info.loss)) fault = concat("the loss is ", info.loss);
  if (!gradient.finite()) {
    if (!fault.empty()) fault += ", ";
    fault += concat("gradient of ", gradient.not_finite, ": not finite");
  }
  if (!fault.empty()) return fault;
  try {
    optimizer.step(model, info.factor);
  } catch (const NumericError& error) {  // finite, and yet too large for a moment
    fault = error.what();
  }
  return fault;
}

[[noreturn]] inline void throw_fault(const StepInfo& info, const TrainSettings& settings) {
  std::string text = concat("step ", info.state.step, ": ", info.fault);
  if (settings.skips_allowed > 0) {
    text += concat(" (skipped before: ", info.state.skipped - 1,
                   ", allowed: ", settings.skips_allowed, ")");
  }
  throw NumericError(text);
}

}  // namespace detail

/// Trains a model: in every step the gradient of the mean loss over the targets of
/// `settings.accumulate` batches (the gradient that one large batch of all of them has), clipped,
/// and a step of the optimizer with the schedule's factor.
///
///   mora::train(model, optimizer, mora::CosineSchedule{.steps = 1000, .warm_up = 50}, batches,
///               {.steps = 1000, .clip_norm = 1.0}, mora::Progress(std::cout));
///
/// A step whose loss or gradient is not finite leaves weights and optimizer as they are; it is
/// skipped and counted, or, beyond `settings.skips_allowed`, throws NumericError with its number
/// and the first parameter concerned. Throws ArgumentError for settings out of range, for a step
/// without targets, and where evaluations are asked for and no callback evaluates.
///
/// The same model, optimizer state, batches and settings give the same bits. Between two steps all
/// state is with the arguments and in TrainState: a run that begins at `settings.start` with what
/// was stored then goes on as the one that was not interrupted. The loop itself allocates nothing
/// after its first step.
template <TrainableModel M, StepsModule<M> O, Schedule S, BatchSource<typename M::Batch> B,
          class... C>
requires(Callback<C, M>&&...) TrainResult
    train(M& model, O& optimizer, const S& schedule, B& batches, const TrainSettings& settings,
          C&&... callbacks) {
  settings.validate();
  if constexpr (requires { schedule.validate(); }) schedule.validate();
  detail::CallbackList<M, std::remove_reference_t<C>...> hooks(callbacks...);
  if (settings.evaluate_every > 0 && !hooks.evaluates) {
    throw ArgumentError(detail::concat("evaluate_every: found ", settings.evaluate_every,
                                       ", and no callback that evaluates"));
  }
  detail::StepBatches<typename M::Batch> step_batches(settings.accumulate);
  TrainResult result{.state = settings.start};
  result.stopped = hooks.begin(settings) == Control::stop;
  while (result.state.step < settings.steps && !result.stopped) {
    StepInfo info{.state = result.state, .steps = settings.steps};
    info.factor = schedule(info.state.step++);
    detail::compute_gradients(model, step_batches.draw(batches), info);
    const std::string fault = detail::apply_gradients(model, optimizer, settings, info);
    info.fault = fault;
    if (!info.skipped()) {
      info.state.targets += info.targets;
    } else if (++info.state.skipped > settings.skips_allowed) {
      detail::throw_fault(info, settings);
    }
    result.state = info.state;
    result.stopped = hooks.step(info) == Control::stop;
    const Index step = result.state.step;
    const bool due = settings.evaluate_every > 0 && step % settings.evaluate_every == 0;
    if (!result.stopped && (due || step == settings.steps)) {
      result.stopped = hooks.evaluate(model, result.state) == Control::stop;
    }
    hooks.step_end(info);
  }
  hooks.end(result);
  return result;
}

}  // namespace mora::inline MORA_ABI
