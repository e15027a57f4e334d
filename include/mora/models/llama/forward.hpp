// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "mora/models/layers/attention.hpp"
#include "mora/models/layers/cross_entropy.hpp"
#include "mora/models/layers/dropout.hpp"
#include "mora/models/layers/rms_norm.hpp"
#include "mora/models/layers/swiglu.hpp"
#include "mora/models/llama/cache.hpp"
#include "mora/models/llama/step_weights.hpp"

namespace mora::inline MORA_ABI::detail {

/// What a forward pass keeps.
enum class Keep {
  nothing,  ///< Inference.
  blocks,   ///< What the backward pass needs of each layer that it reaches.
  streams,  ///< The inputs of those layers alone: the backward pass computes the rest again.
};

/// Columns of queries, keys and values in the buffer that holds all three.
template <class Map>
[[nodiscard]] Map queries_of(const LlamaConfig& config, const Map& qkv) {
  return columns_of(qkv, 0, config.query_size());
}
template <class Map>
[[nodiscard]] Map keys_of(const LlamaConfig& config, const Map& qkv) {
  return columns_of(qkv, config.query_size(), config.key_value_size());
}
template <class Map>
[[nodiscard]] Map values_of(const LlamaConfig& config, const Map& qkv) {
  return columns_of(qkv, config.query_size() + config.key_value_size(), config.key_value_size());
}
template <class Map>
[[nodiscard]] Map head_of(const LlamaConfig& config, const Map& x, Index head) {
  return columns_of(x, head * config.head_size(), config.head_size());
}

/// Throws what Batch::validate throws, and ArgumentError for a sequence that is longer than the
/// model's positions: before memory is asked for.
inline void require_batch(const LlamaConfig& config, const Batch& batch, Index past) {
  batch.validate(config.vocab_size);
  for (Index s = 0; s < batch.sequences(); ++s) {
    const Index length =
        batch.starts[static_cast<std::size_t>(s) + 1] - batch.starts[static_cast<std::size_t>(s)];
    if (length > config.max_position_embeddings - past) {
      throw ArgumentError(concat("sequence ", s, ": expected at most max_position_embeddings = ",
                                 config.max_position_embeddings, " tokens, found ", past + length));
    }
  }
}

/// Positions of a batch's tokens within their sequences, and the turns that belong to them.
template <Real T>
void prepare_positions(const LlamaConfig& config, const Batch& batch, Index past,
                       LlamaWorkspace<T>& work) {
  work.positions.clear();
  Index longest = 0;
  for (Index s = 0; s < batch.sequences(); ++s) {
    const Index length =
        batch.starts[static_cast<std::size_t>(s) + 1] - batch.starts[static_cast<std::size_t>(s)];
    longest = std::max(longest, length);
    for (Index i = 0; i < length; ++i) work.positions.push_back(past + i);
  }
  work.rotary.compute(past, longest, config.head_size(), config.rope_theta);
}

/// Calls f(first, count) for a few rows at a time, which the caches hold from one operation to the
/// next, and never for one alone (whose sums compilers may round otherwise) but where it is all.
template <class F>
void for_each_few_rows(Index rows, const F& f) {
  constexpr Index most = 8 * Index{block_rows};
  for (Index first = 0; first < rows;) {
    const Index left = rows - first;
    const Index count = left <= most + 1 ? left : most;
    f(first, count);
    first += count;
  }
}
/// Where nothing belongs to the rows of a product.
inline constexpr auto no_rows = [](Index, Index) {};

/// The forward pass of a LLaMA, layer by layer: h' = h + o(attention(norm(h))),
/// h'' = h' + down(silu(gate(norm(h'))) up(norm(h'))).
template <Real T>
class LlamaForward {
 public:
  LlamaForward(const LlamaParts<T>& parts, LlamaWorkspace<T>& work, const DropoutStream* dropout)
      : parts_(parts), work_(work), dropout_(dropout) {}

  /// The final norm's output [positions, hidden], in work.hidden. Arguments were checked. Keys and
  /// values go behind the cache's tokens; whoever calls advances it when nothing can fail any more.
  void run(const Batch& batch, const LlamaNeeds& needs, Keep keep, LlamaCache<T>* cache) {
    const Index rows = batch.positions();
    prepare_positions(config(), batch, cache ? cache->length() : 0, work_);
    const auto layers = static_cast<std::size_t>(config().num_hidden_layers);
    if (keep != Keep::nothing) work_.streams.resize(layers);
    if (keep == Keep::blocks) work_.blocks.resize(layers);
    const auto stream = [&](std::size_t layer) -> Buffer<T>& {
      if (layer == layers) return work_.last_stream;
      const bool kept = keep != Keep::nothing && needs.block[layer];
      return kept ? work_.streams[layer] : work_.passing[layer % 2];
    };
    embed(batch, stream(0).shape(rows, config().hidden_size));
    for (std::size_t layer = 0; layer < layers; ++layer) {
      const bool kept = keep == Keep::blocks && needs.block[layer];
      run_layer(static_cast<Index>(layer), batch, as_const(stream(layer).map()),
                stream(layer + 1).shape(rows, config().hidden_size),
                kept ? work_.blocks[layer] : work_.block, kept, cache);
    }
    rms_norm(as_const(work_.last_stream.map()), parts_.vector(parts_.tensors.norm()),
             config().rms_norm_eps, work_.hidden.shape(rows, config().hidden_size),
             work_.inverse.shape(rows, 1).data());
  }

  /// y, the layer's output, from x, its input; the backward pass of the layer needs `state`, and
  /// what adapters save, if `kept`.
  void run_layer(Index layer, const Batch& batch, const ConstMap<T>& x, MutableMap<T> y,
                 LlamaBlock<T>& state, bool kept, LlamaCache<T>* cache) {
    attention(layer, batch, x, state, kept, cache);
    const ConstMap<T> activation = activate(layer, state, kept);
    const ConstMap<T> middle = as_const(state.middle.map());
    compute<true>(
        layer, LlamaProduct::down, activation, y, state, kept,
        [&](Index first, Index count) { rows_of(y, first, count) = rows_of(middle, first, count); },
        no_rows);
  }

  /// `state` again, for the layer's backward pass alone, which does not need the layer's output:
  /// the product with W of `down` is left out, but where an adapter computes the whole layer.
  void recompute_layer(Index layer, const Batch& batch, const ConstMap<T>& x,
                       LlamaBlock<T>& state) {
    attention(layer, batch, x, state, true, nullptr);
    const ConstMap<T> activation = activate(layer, state, true);
    const std::size_t place = LlamaTensors::at(layer, LlamaSlot::down);
    const AdaptedModule<T>* const module = parts_.adapter(place);
    if (!module) return;
    typename AnyAdapter<T>::SavedPointer& saved =
        state.adapters[static_cast<std::size_t>(LlamaSlot::down)];
    if (module->adapter.can_save() && !drops(*module)) {
      return module->adapter.save(activation, saved);
    }
    MutableMap<T> unused = work_.passing[0].shape(x.rows(), x.cols());
    fill_zero(unused);
    if (module->adapter.additive()) {
      add_adapter(place, *module, activation, unused, &saved, 0);
    } else {
      module->adapter.add_forward(parts_.weights[place], activation, unused, &saved);
    }
  }

  /// y += the adapted layer at `place`. Dropout needs to know which rows of the pass these are.
  void add_linear(std::size_t place, const ConstMap<T>& x, MutableMap<T> y,
                  typename AnyAdapter<T>::SavedPointer* saved, Index first_row = 0) {
    const FrozenLinear<T>& base = parts_.weights[place];
    const AdaptedModule<T>* const module = parts_.adapter(place);
    if (!module) {
      add_frozen_forward(base, x, y);
    } else if (drops(*module)) {
      add_frozen_forward(base, x, y);
      add_adapter(place, *module, x, y, saved, first_row);
    } else {
      module->adapter.add_forward(base, x, y, saved);
    }
  }

  /// Whether numbers of the adapter's input are dropped in this pass.
  [[nodiscard]] bool drops(const AdaptedModule<T>& module) const {
    return dropout_ && module.dropout > 0.0;
  }

 private:
  [[nodiscard]] const LlamaConfig& config() const { return parts_.config; }
  [[nodiscard]] const T* vector(Index layer, LlamaSlot slot) const {
    return parts_.vector(LlamaTensors::at(layer, slot));
  }

  /// y += the part of an additive adapter.
  void add_adapter(std::size_t place, const AdaptedModule<T>& module, const ConstMap<T>& x,
                   MutableMap<T> y, typename AnyAdapter<T>::SavedPointer* saved, Index first_row) {
    if (!drops(module)) return module.adapter.add_forward(x, y, saved);
    MutableMap<T> dropped = work_.dropped.shape(x.rows(), x.cols());
    DropoutMask(*dropout_, place, module.dropout)
        .template apply<false>(work_.first_position + first_row, x, dropped);
    module.adapter.add_forward(as_const(dropped), y, saved);
  }

  /// Attention and its residual: state.middle from x, the layer's input.
  void attention(Index layer, const Batch& batch, const ConstMap<T>& x, LlamaBlock<T>& state,
                 bool kept, LlamaCache<T>* cache) {
    const Index rows = x.rows();
    MutableMap<T> normed = work_.normed.shape(rows, config().hidden_size);
    T* const inverse = state.first_inverse.shape(rows, 1).data();
    MutableMap<T> qkv =
        state.qkv.shape(rows, config().query_size() + 2 * config().key_value_size());
    compute<false>(
        layer, LlamaProduct::query_key_value, as_const(normed), qkv, state, kept,
        [&](Index first, Index count) {
          norm(layer, LlamaSlot::input_norm, x, normed, inverse, first, count);
        },
        [&](Index first, Index count) {
          rotate_rows<false>(work_.rotary, rows_of(qkv, first, count),
                             config().num_attention_heads + config().key_value_heads(),
                             work_.positions.data() + first);
        });
    MutableMap<T> attended = state.attention.shape(rows, config().query_size());
    T* const log_sum = state.log_sum.shape(rows, config().num_attention_heads).data();
    if (cache) {
      attend_to_cache(layer, as_const(qkv), attended, *cache);
    } else {
      attend(batch, as_const(qkv), attended, log_sum);
    }
    MutableMap<T> middle = state.middle.shape(rows, config().hidden_size);
    compute<true>(
        layer, LlamaProduct::attention_output, as_const(attended), middle, state, kept,
        [&](Index first, Index count) { rows_of(middle, first, count) = rows_of(x, first, count); },
        no_rows);
  }

  /// What `down` maps, silu(gate(norm(h'))) up(norm(h')), from h' = state.middle.
  ConstMap<T> activate(Index layer, LlamaBlock<T>& state, bool kept) {
    const ConstMap<T> middle = as_const(state.middle.map());
    const Index rows = middle.rows();
    MutableMap<T> normed = work_.normed.shape(rows, config().hidden_size);
    T* const inverse = state.second_inverse.shape(rows, 1).data();
    const Index inner = config().intermediate_size;
    MutableMap<T> gate_up = state.gate_up.shape(rows, 2 * inner);
    const AdaptedModule<T>* const down = parts_.adapter(LlamaTensors::at(layer, LlamaSlot::down));
    const bool keeps = kept && down && down->adapter.saves_input();
    MutableMap<T> activation = (keeps ? state : work_.block).activation.shape(rows, inner);
    compute<false>(
        layer, LlamaProduct::gate_up, as_const(normed), gate_up, state, kept,
        [&](Index first, Index count) {
          norm(layer, LlamaSlot::post_attention_norm, middle, normed, inverse, first, count);
        },
        [&](Index first, Index count) {
          const MutableMap<T> from = rows_of(gate_up, first, count);
          const MutableMap<T> to = rows_of(activation, first, count);
          kept ? swiglu<true>(from, to) : swiglu<false>(from, to);
        });
    return as_const(activation);
  }

  void embed(const Batch& batch, MutableMap<T> x) const {
    for (Index i = 0; i < x.rows(); ++i) {
      parts_.embed(batch.tokens[static_cast<std::size_t>(i)], rows_of(x, i, 1));
    }
  }

  /// Rows [first, first + count) of a norm before a product, and of its factors.
  void norm(Index layer, LlamaSlot slot, const ConstMap<T>& x, MutableMap<T> y, T* inverse,
            Index first, Index count) const {
    rms_norm(rows_of(x, first, count), vector(layer, slot), config().rms_norm_eps,
             rows_of(y, first, count), inverse + first);
  }

  /// The outputs of the product's layers beside one another, in y or added to it. before(first,
  /// count) makes rows ready, of x and, where it is added to, of y; after(first, count) has them of
  /// the result.
  template <bool adds, class Before, class After>
  void compute(Index layer, LlamaProduct product, const ConstMap<T>& x, MutableMap<T> y,
               LlamaBlock<T>& state, bool kept, const Before& before, const After& after) {
    if (parts_.step) {
      const PackedFactor<T>& w = parts_.step->at(layer, product).forward;
      for_each_few_rows(x.rows(), [&](Index first, Index count) {
        before(first, count);
        const MutableMap<T> own = rows_of(y, first, count);
        adds ? w.add_product(own, T(1), rows_of(x, first, count))
             : w.product(own, T(1), rows_of(x, first, count));
        after(first, count);
      });
    } else {
      before(0, x.rows());
      if (!adds) fill_zero(y);
    }
    Index first = 0;
    for (const LlamaSlot slot : slots_of(product)) {
      const std::size_t place = LlamaTensors::at(layer, slot);
      const Index outputs = parts_.tensors[place].rows;
      auto* const saved = kept ? &state.adapters[static_cast<std::size_t>(slot)] : nullptr;
      if (!parts_.step) {
        add_linear(place, x, columns_of(y, first, outputs), saved);
      } else if (const auto* const module = parts_.adapter(place); module && saved) {
        module->adapter.save(x, *saved);
      }
      first += outputs;
    }
    if (!parts_.step) after(0, x.rows());
  }

  [[nodiscard]] T scale() const {
    return static_cast<T>(1.0 / std::sqrt(static_cast<double>(config().head_size())));
  }

  void attend(const Batch& batch, const ConstMap<T>& qkv, MutableMap<T> out, T* log_sum) const {
    const Index heads = config().num_attention_heads;
    const Index group = heads / config().key_value_heads();
    parallel_pieces(batch.sequences() * heads, 1, [&](Index item, Index) {
      const Index sequence = item / heads;
      const Index head = item % heads;
      const Index first = batch.starts[static_cast<std::size_t>(sequence)];
      const Index count = batch.starts[static_cast<std::size_t>(sequence) + 1] - first;
      const ConstMap<T> own = rows_of(qkv, first, count);
      attention_forward<T>(head_of(config(), queries_of(config(), own), head),
                           head_of(config(), keys_of(config(), own), head / group),
                           head_of(config(), values_of(config(), own), head / group), scale(),
                           head_of(config(), rows_of(out, first, count), head),
                           log_sum + first * heads + head, heads);
    });
  }

  void attend_to_cache(Index layer, const ConstMap<T>& qkv, MutableMap<T> out,
                       LlamaCache<T>& cache) const {
    const Index past = cache.length();
    const Index all = past + qkv.rows();
    cache.keys(layer, past, qkv.rows()) = keys_of(config(), qkv);
    cache.values(layer, past, qkv.rows()) = values_of(config(), qkv);
    const ConstMap<T> keys = as_const(cache.keys(layer, 0, all));
    const ConstMap<T> values = as_const(cache.values(layer, 0, all));
    const Index group = config().num_attention_heads / config().key_value_heads();
    parallel_pieces(config().num_attention_heads, 1, [&](Index head, Index) {
      attention_forward<T>(head_of(config(), queries_of(config(), qkv), head),
                           head_of(config(), keys, head / group),
                           head_of(config(), values, head / group), scale(),
                           head_of(config(), out, head), nullptr, 0);
    });
  }

  const LlamaParts<T>& parts_;
  LlamaWorkspace<T>& work_;
  const DropoutStream* dropout_;  // null: nothing is dropped
};

}  // namespace mora::inline MORA_ABI::detail
