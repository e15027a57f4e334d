// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <ranges>
#include <type_traits>

#include "mora/core/loss_sum.hpp"
#include "mora/core/parameter.hpp"

namespace mora::inline MORA_ABI {

/// Inputs with their targets, as many as a model treats at once. `target_count()` is the number of
/// targets that the loss sums over; `token_count()`, which may be missing, what a speed is given
/// in.
template <class B>
concept TrainingBatch = std::copyable<B> && requires(const B& batch) {
  { batch.target_count() } -> std::convertible_to<Index>;
};

/// What the training loop needs of a model.
///
/// - `Batch`: a TrainingBatch.
/// - `accumulate_gradients(batch, weight)`: adds to the gradients `weight` times the gradient of
/// the
///   SUM of the losses of the batch's targets, and returns that sum, unweighted, with the number of
///   targets. Never called for a batch without targets.
/// - `loss(batch)`: the same sum without gradients.
/// - `visit_parameters(f)`: see Module.
template <class M>
concept TrainableModel = Module<M> && TrainingBatch<typename M::Batch> &&
    requires(M& model, const M& constant, const typename M::Batch& batch) {
  { model.accumulate_gradients(batch, 1.0) } -> std::convertible_to<LossSum>;
  { constant.loss(batch) } -> std::convertible_to<LossSum>;
};

/// Where the batches of training come from: `next()` returns a reference to the next one, which
/// lives until `next()` is called again. A source does not end; it begins its data anew.
template <class S, class Batch>
concept BatchSource = requires(S& source) {
  { source.next() } -> std::convertible_to<const Batch&>;
  requires std::is_lvalue_reference_v<decltype(source.next())>;
};

/// Batches that do end, such as a std::vector of them: what a model is evaluated on.
template <class R, class Batch>
concept BatchRange =
    std::ranges::input_range<R> && std::convertible_to < std::ranges::range_reference_t<R>,
const Batch& > ;

/// What steps the parameters; see Optimizer.
template <class O, class M>
concept StepsModule = requires(O& optimizer, M& model) {
  optimizer.step(model, 1.0);
};

}  // namespace mora::inline MORA_ABI
