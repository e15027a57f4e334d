// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>

#include "mora/models/llama/forward.hpp"

namespace mora::inline MORA_ABI::detail {

/// The backward pass of a LLaMA over what a forward pass kept. It computes the gradients that some
/// trainable parameter needs, and no others: none by the input of the lowest adapted layer, none of
/// frozen weights.
template <Real T>
class LlamaBackward {
 public:
  LlamaBackward(const LlamaParts<T>& parts, LlamaAdapterSet<T>& set, LlamaWorkspace<T>& work,
                const DropoutStream* dropout)
      : parts_(parts), set_(set), work_(work), forward_(parts, work, dropout), dropout_(dropout) {}

  /// Adds to gradients from work.d_stream, the gradient by the final norm's output [positions,
  /// hidden], which is overwritten. `keep` is the forward pass's.
  void run(const Batch& batch, const LlamaNeeds& needs, Keep keep) {
    if (!needs.hidden) return;
    MutableMap<T> d = work_.d_stream.map();
    norm(parts_.tensors.norm(), as_const(work_.last_stream.map()), work_.inverse.data(), d,
         needs.stream.back());
    for (auto layer = needs.block.size(); layer-- > 0 && needs.block[layer];) {
      const ConstMap<T> x = as_const(work_.streams[layer].map());
      LlamaBlock<T>* state = keep == Keep::blocks ? &work_.blocks[layer] : &work_.block;
      if (keep == Keep::streams) {
        forward_.recompute_layer(static_cast<Index>(layer), batch, x, *state);
      }
      run_layer(static_cast<Index>(layer), batch, x, *state, d, needs.stream[layer]);
    }
    if (needs.stream.front()) embedding(batch, as_const(d));
  }

  /// Gradients of the adapted layer at `place`: adds to its parameters' and, unless null, to dx.
  /// x [tokens, in] may be empty for an adapter that does not save its input. `first_row` is the
  /// forward pass's.
  void linear(std::size_t place, const ConstMap<T>& x, const ConstMap<T>& dy,
              const typename AnyAdapter<T>::SavedPointer& saved, MutableMap<T>* dx,
              Index first_row = 0) {
    const FrozenLinear<T>& base = parts_.weights[place];
    if (!set_.linear[place]) {
      if (dx) add_frozen_backward(base, dy, *dx);
      return;
    }
    AdaptedModule<T>& module = *set_.linear[place];
    if (!forward_.drops(module)) {
      module.adapter.add_backward(base, x, dy, *saved, dx);
      return;
    }
    const DropoutMask mask(*dropout_, place, module.dropout);
    MutableMap<T> dropped = work_.dropped.shape(x.rows(), x.cols());
    first_row += work_.first_position;
    mask.template apply<false>(first_row, x, dropped);
    if (!dx) {
      module.adapter.add_backward(as_const(dropped), dy, *saved, nullptr);
      return;
    }
    add_frozen_backward(base, dy, *dx);
    MutableMap<T> d_dropped = work_.d_dropped.shape(dx->rows(), dx->cols());
    fill_zero(d_dropped);
    module.adapter.add_backward(as_const(dropped), dy, *saved, &d_dropped);
    mask.template apply<true>(first_row, as_const(d_dropped), *dx);
  }

 private:
  [[nodiscard]] const LlamaConfig& config() const { return parts_.config; }
  [[nodiscard]] static std::size_t at(Index layer, LlamaSlot slot) {
    return LlamaTensors::at(layer, slot);
  }
  [[nodiscard]] bool trains(Index layer, std::initializer_list<LlamaSlot> slots) const {
    return std::any_of(slots.begin(), slots.end(),
                       [&](LlamaSlot slot) { return set_.trains(at(layer, slot)); });
  }

  /// The gradients of a product's layers, whose output gradients dy has beside one another; the one
  /// by their input is written to dx, unless that is null. before(first, count) makes rows of dy
  /// ready; after(first, count) has those of dx.
  template <class Before, class After>
  void product(Index layer, LlamaProduct product, const ConstMap<T>& x, const ConstMap<T>& dy,
               const LlamaBlock<T>& state, MutableMap<T>* dx, const Before& before,
               const After& after) {
    if (dx && parts_.step) {
      const PackedFactor<T>& w = parts_.step->at(layer, product).backward;
      for_each_few_rows(dy.rows(), [&](Index first, Index count) {
        before(first, count);
        w.product(rows_of(*dx, first, count), T(1), rows_of(dy, first, count));
        after(first, count);
      });
    } else {
      before(0, dy.rows());
      if (dx) fill_zero(*dx);
    }
    Index first = 0;
    for (const LlamaSlot slot : slots_of(product)) {
      const std::size_t place = at(layer, slot);
      const Index outputs = parts_.tensors[place].rows;
      const ConstMap<T> own = columns_of(dy, first, outputs);
      const auto& saved = state.adapters[static_cast<std::size_t>(slot)];
      if (!parts_.step) {
        linear(place, x, own, saved, dx);
      } else if (auto& module = set_.linear[place]) {
        module->adapter.add_backward(x, own, *saved, nullptr);
      }
      first += outputs;
    }
    if (dx && !parts_.step) after(0, dy.rows());
  }

  /// d becomes the gradient by the norm's input, where the norm's output had d and is all that its
  /// input reaches.
  void norm(std::size_t place, const ConstMap<T>& x, const T* inverse, MutableMap<T> d,
            bool needs_input) {
    norm_weight(place, x, inverse, as_const(d));
    if (!needs_input) return;
    MutableMap<T> copy = work_.d_normed.shape(d.rows(), d.cols());
    copy = d;
    fill_zero(d);
    rms_norm_add_backward(x, parts_.vector(place), inverse, as_const(copy), d);
  }
  /// Rows [first, first + count) of d += the gradient by the norm's input x.
  void norm_rows(std::size_t place, const ConstMap<T>& x, const T* inverse, MutableMap<T> d_normed,
                 MutableMap<T> d, Index first, Index count) const {
    rms_norm_add_backward(rows_of(x, first, count), parts_.vector(place), inverse + first,
                          as_const(rows_of(d_normed, first, count)), rows_of(d, first, count));
  }
  void norm_weight(std::size_t place, const ConstMap<T>& x, const T* inverse,
                   const ConstMap<T>& dy) {
    if (!set_.trained[place]) return;
    rms_norm_add_weight_gradient(x, inverse, dy,
                                 gradient_of(set_.trained[place]->parameter).data());
  }

  /// From d, the gradient by the layer's output, to d by its input x (that only if needed).
  void run_layer(Index layer, const Batch& batch, const ConstMap<T>& x, LlamaBlock<T>& state,
                 MutableMap<T> d, bool needs_input) {
    using enum LlamaSlot;
    const bool needs_normed = needs_input || trains(layer, {input_norm});
    const bool needs_qkv = needs_normed || trains(layer, {query, key, value});
    const bool needs_middle = needs_qkv || trains(layer, {attention_output});
    feed_forward(layer, state, d, needs_middle);
    if (needs_middle) attention(layer, batch, x, state, d, needs_qkv, needs_normed, needs_input);
  }

  void feed_forward(Index layer, LlamaBlock<T>& state, MutableMap<T> d, bool needs_middle) {
    using enum LlamaSlot;
    const Index rows = d.rows();
    const Index inner = config().intermediate_size;
    const bool needs_normed = needs_middle || trains(layer, {post_attention_norm});
    const bool needs_activation = needs_normed || trains(layer, {gate, up});
    if (!needs_activation && !trains(layer, {down})) return;

    MutableMap<T> gate_up = state.gate_up.map();
    MutableMap<T> d_activation = work_.d_activation.shape(rows, inner);
    const ConstMap<T> activation = saves_input(layer, {down})
                                       ? as_const(state.activation.map())
                                       : as_const(work_.block.activation.shape(0, inner));
    // In place: nothing reads the derivatives after this.
    product(layer, LlamaProduct::down, activation, as_const(d), state,
            needs_activation ? &d_activation : nullptr, no_rows, [&](Index first, Index count) {
              const MutableMap<T> own = rows_of(gate_up, first, count);
              swiglu_backward(as_const(own), rows_of(as_const(d_activation), first, count), own);
            });
    if (!needs_activation) return;

    MutableMap<T> d_normed = work_.d_normed.shape(rows, config().hidden_size);
    const ConstMap<T> middle = as_const(state.middle.map());
    const std::size_t norm_place = at(layer, post_attention_norm);
    const ConstMap<T> normed = normed_for(layer, {gate, up}, norm_place, middle);
    MutableMap<T>* const dx = needs_normed ? &d_normed : nullptr;
    product(layer, LlamaProduct::gate_up, normed, as_const(gate_up), state, dx, no_rows,
            [&](Index first, Index count) {
              if (!needs_middle) return;
              norm_rows(norm_place, middle, state.second_inverse.data(), d_normed, d, first, count);
            });
    if (!needs_normed) return;
    norm_weight(norm_place, middle, state.second_inverse.data(), as_const(d_normed));
  }

  void attention(Index layer, const Batch& batch, const ConstMap<T>& x, LlamaBlock<T>& state,
                 MutableMap<T> d, bool needs_qkv, bool needs_normed, bool needs_input) {
    using enum LlamaSlot;
    const Index rows = d.rows();
    MutableMap<T> d_attention = work_.d_attention.shape(rows, config().query_size());
    product(layer, LlamaProduct::attention_output, as_const(state.attention.map()), as_const(d),
            state, needs_qkv ? &d_attention : nullptr, no_rows, no_rows);
    if (!needs_qkv) return;

    const ConstMap<T> qkv = as_const(state.qkv.map());
    MutableMap<T> d_qkv = work_.d_qkv.shape(rows, qkv.cols());
    attend(batch, qkv, state, as_const(d_attention), d_qkv);

    MutableMap<T> d_normed = work_.d_normed.shape(rows, config().hidden_size);
    const std::size_t norm_place = at(layer, input_norm);
    const ConstMap<T> normed = normed_for(layer, {query, key, value}, norm_place, x);
    MutableMap<T>* const dx = needs_normed ? &d_normed : nullptr;
    product(
        layer, LlamaProduct::query_key_value, normed, as_const(d_qkv), state, dx,
        [&](Index first, Index count) {
          rotate_rows<true>(work_.rotary, rows_of(d_qkv, first, count),
                            config().num_attention_heads + config().key_value_heads(),
                            work_.positions.data() + first);
        },
        [&](Index first, Index count) {
          if (!needs_input) return;
          norm_rows(norm_place, x, state.first_inverse.data(), d_normed, d, first, count);
        });
    if (!needs_normed) return;
    norm_weight(norm_place, x, state.first_inverse.data(), as_const(d_normed));
  }

  /// d_qkv, on one thread for each sequence and key/value head, which several query heads add to.
  void attend(const Batch& batch, const ConstMap<T>& qkv, LlamaBlock<T>& state,
              const ConstMap<T>& d_attention, MutableMap<T> d_qkv) {
    const Index heads = config().num_attention_heads;
    const Index kv_heads = config().key_value_heads();
    const Index group = heads / kv_heads;
    const ConstMap<T> attended = as_const(state.attention.map());
    const T* const log_sum = state.log_sum.data();
    const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(config().head_size())));
    parallel_pieces(batch.sequences() * kv_heads, 1, [&](Index item, Index) {
      const Index sequence = item / kv_heads;
      const Index kv_head = item % kv_heads;
      const Index first = batch.starts[static_cast<std::size_t>(sequence)];
      const Index count = batch.starts[static_cast<std::size_t>(sequence) + 1] - first;
      const auto own = [&](const auto& all, Index head) {
        return head_of(config(), rows_of(all, first, count), head);
      };
      own(keys_of(config(), d_qkv), kv_head).setZero();
      own(values_of(config(), d_qkv), kv_head).setZero();
      for (Index head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        own(queries_of(config(), d_qkv), head).setZero();
        attention_add_backward<T>(
            own(queries_of(config(), qkv), head), own(keys_of(config(), qkv), kv_head),
            own(values_of(config(), qkv), kv_head), scale, own(attended, head),
            log_sum + first * heads + head, heads, own(d_attention, head),
            own(queries_of(config(), d_qkv), head), own(keys_of(config(), d_qkv), kv_head),
            own(values_of(config(), d_qkv), kv_head));
      }
    });
  }

  void embedding(const Batch& batch, const ConstMap<T>& d) {
    MutableMap<T> table = gradient_of(set_.trained[LlamaTensors::embedding()]->parameter);
    // A thread has columns of its own: tokens occur several times.
    parallel_pieces(d.cols(), 64, [&](Index first, Index count) {
      for (Index i = 0; i < d.rows(); ++i) {
        T* const to = table.data() + batch.tokens[static_cast<std::size_t>(i)] * table.cols();
        const T* const from = d.data() + i * d.outerStride();
        for (Index j = first; j < first + count; ++j) to[j] += from[j];
      }
    });
  }

  [[nodiscard]] bool saves_input(Index layer, std::initializer_list<LlamaSlot> slots) const {
    return std::any_of(slots.begin(), slots.end(), [&](LlamaSlot slot) {
      const auto& module = set_.linear[at(layer, slot)];
      return module && module->adapter.saves_input();
    });
  }
  /// The norm's output, computed again where an adapter of the slots needs it, else empty.
  [[nodiscard]] ConstMap<T> normed_for(Index layer, std::initializer_list<LlamaSlot> slots,
                                       std::size_t norm_place, const ConstMap<T>& x) {
    if (!saves_input(layer, slots)) return as_const(work_.normed.shape(0, x.cols()));
    MutableMap<T> normed = work_.normed.shape(x.rows(), x.cols());
    rms_norm<T>(x, parts_.vector(norm_place), config().rms_norm_eps, normed, nullptr);
    return as_const(normed);
  }

  const LlamaParts<T>& parts_;
  LlamaAdapterSet<T>& set_;
  LlamaWorkspace<T>& work_;
  LlamaForward<T> forward_;
  const DropoutStream* dropout_;
};

}  // namespace mora::inline MORA_ABI::detail
