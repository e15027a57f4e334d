// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>

#include "mora/models/llama/backward.hpp"

namespace mora::inline MORA_ABI::detail {

/// Rows of logits at a time: 32 MB of float, and enough of them for a fast product.
[[nodiscard]] inline Index head_tile(Index vocabulary, Index rows) {
  return std::clamp<Index>((Index{1} << 23) / vocabulary, std::min<Index>(64, rows),
                           std::max<Index>(rows, 1));
}

/// logits = hidden x head^T.
template <Real T>
void head_logits(const LlamaParts<T>& parts, LlamaForward<T>& forward, const ConstMap<T>& hidden,
                 MutableMap<T> logits, typename AnyAdapter<T>::SavedPointer* saved,
                 Index first_row = 0) {
  fill_zero(logits);
  const std::size_t place = parts.tensors.head();
  if (place == LlamaTensors::embedding()) {  // tied: it may be the copy that trains
    parts.template add_embedding_product<Operand::transposed>(logits, hidden);
  } else {
    forward.add_linear(place, hidden, logits, saved, first_row);
  }
}

/// The loss over positions that have a target, from work.hidden: a tile of logits at a time, so
/// that they never exist for all positions, and positions without a target cost nothing. With a
/// backward pass it adds weight times the gradient of the sum to the head's gradients, and leaves
/// the gradient by the hidden states in work.d_stream.
template <Real T>
LossSum head_loss(const LlamaParts<T>& parts, LlamaWorkspace<T>& work, const Batch& batch,
                  const DropoutStream* dropout, LlamaBackward<T>* backward, LlamaAdapterSet<T>* set,
                  double weight, bool needs_hidden) {
  work.rows.clear();
  work.targets.clear();
  for (Index i = 0; i < batch.positions(); ++i) {
    const Token target = batch.targets[static_cast<std::size_t>(i)];
    if (target == ignored) continue;
    work.rows.push_back(i);
    work.targets.push_back(target);
  }
  const auto count = static_cast<Index>(work.rows.size());
  work.losses.resize(work.rows.size());
  const Index width = parts.config.hidden_size;
  const Index vocabulary = parts.config.vocab_size;
  const Index tile = head_tile(vocabulary, count);
  const std::size_t place = parts.tensors.head();
  const bool tied = place == LlamaTensors::embedding();
  const T gradient_weight = static_cast<T>(weight);
  const ConstMap<T> hidden = as_const(work.hidden.map());
  LlamaForward<T> forward(parts, work, dropout);
  typename AnyAdapter<T>::SavedPointer& saved = work.head_saved;
  if (needs_hidden) work.d_stream.shape(batch.positions(), width).setZero();

  for (Index first = 0; first < count; first += tile) {
    const Index rows = std::min(tile, count - first);
    const auto row_of = [&](Index i) { return work.rows[static_cast<std::size_t>(first + i)]; };
    MutableMap<T> x = work.head_input.shape(rows, width);
    for (Index i = 0; i < rows; ++i) x.row(i) = hidden.row(row_of(i));
    MutableMap<T> logits = work.logits.shape(rows, vocabulary);
    head_logits(parts, forward, as_const(x), logits, backward ? &saved : nullptr, first);
    cross_entropy(logits, work.targets.data() + first, backward ? &gradient_weight : nullptr,
                  work.losses.data() + first);
    if (!backward) continue;
    MutableMap<T> dx = work.d_head_input.shape(needs_hidden ? rows : 0, width);
    fill_zero(dx);
    if (tied) {
      if (needs_hidden) {
        parts.template add_embedding_product<Operand::plain>(dx, as_const(logits));
      }
      if (set->trained[place]) {
        add_product<Operand::transposed, Operand::plain, T>(
            gradient_of(set->trained[place]->parameter), T(1), as_const(logits), as_const(x));
      }
    } else {
      backward->linear(place, as_const(x), as_const(logits), saved, needs_hidden ? &dx : nullptr,
                       first);
    }
    for (Index i = 0; needs_hidden && i < rows; ++i) work.d_stream.map().row(row_of(i)) = dx.row(i);
  }
  LossSum total;
  for (const double loss : work.losses) total.sum += loss;
  total.count = count;
  return total;
}

}  // namespace mora::inline MORA_ABI::detail
