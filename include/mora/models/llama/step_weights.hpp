// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "mora/core/product.hpp"
#include "mora/models/llama/workspace.hpp"

namespace mora::inline MORA_ABI::detail {

struct StackedWeight;

/// A product of a decoder layer: the linear layers that read the same input, their outputs beside
/// one another.
enum class LlamaProduct : std::size_t { query_key_value, attention_output, gate_up, down };
inline constexpr std::size_t llama_products = 4;

/// The linear layers' slots, product by product.
inline constexpr std::array linear_slots = {
    LlamaSlot::query, LlamaSlot::key, LlamaSlot::value, LlamaSlot::attention_output,
    LlamaSlot::gate,  LlamaSlot::up,  LlamaSlot::down};

[[nodiscard]] inline std::span<const LlamaSlot> slots_of(LlamaProduct product) {
  constexpr std::array<std::size_t, llama_products + 1> first = {0, 3, 4, 6, 7};
  const auto i = static_cast<std::size_t>(product);
  return std::span(linear_slots).subspan(first[i], first[i + 1] - first[i]);
}

/// The weights that all groups of a training step multiply with: W + Delta W of each product of a
/// layer, stacked, and packed once for the kernel, forward and for gradients by inputs. A group's
/// pass then reads no W, and adapters compute but the gradients of their parameters.
template <Real T>
class StepWeights {
 public:
  struct Packed {
    PackedFactor<T> forward;   // (W + Delta W)^T
    PackedFactor<T> backward;  // W + Delta W
  };

  StepWeights() = default;
  StepWeights(const StepWeights&) {}  // a copy of a model has none of its memory
  StepWeights& operator=(const StepWeights&) {
    clear();
    return *this;
  }
  StepWeights(StepWeights&&) noexcept = default;
  StepWeights& operator=(StepWeights&&) noexcept = default;
  ~StepWeights() = default;

  /// Whether they are no larger than what two groups keep of `group_rows` tokens each.
  [[nodiscard]] static bool fits(const LlamaConfig& config, const LlamaTensors& tensors,
                                 Index group_rows) {
    Index numbers = 0;
    for (const LlamaTensor& tensor : tensors.all()) {
      if (tensor.linear && tensor.layer >= 0) numbers += 2 * tensor.rows * tensor.cols;
    }
    return numbers <= 2 * group_rows * kept_numbers(config);
  }
  /// Whether every adapter can work like that: dropout makes one see another input.
  [[nodiscard]] static bool possible(const LlamaParts<T>& parts) {
    for (std::size_t place = 0; place < parts.tensors.size(); ++place) {
      const LlamaTensor& tensor = parts.tensors[place];
      if (!tensor.linear || tensor.layer < 0) continue;
      const AdaptedModule<T>* const module = parts.adapter(place);
      if (module && (module->dropout > 0.0 || !module->adapter.can_save())) return false;
    }
    return true;
  }

  /// Those of now, in memory that is kept. On all threads.
  void make(const LlamaParts<T>& parts) {
    const auto layers = static_cast<std::size_t>(parts.config.num_hidden_layers);
    packed_.resize(layers * llama_products);
    Index largest = 0;
    for (const LlamaTensor& tensor : parts.tensors.all()) {
      if (tensor.layer >= 0) largest = std::max(largest, 3 * tensor.rows * tensor.cols);
    }
    parallel_pieces(
        std::ssize(packed_), 1, [&] { (void)scratch<T, StackedWeight>(largest); },
        [&](Index i, Index) {
          constexpr auto products = Index{llama_products};
          pack(parts, i / products, static_cast<LlamaProduct>(i % products),
               packed_[static_cast<std::size_t>(i)]);
        });
  }
  void clear() { packed_.clear(); }

  [[nodiscard]] const Packed& at(Index layer, LlamaProduct product) const {
    return packed_[static_cast<std::size_t>(layer) * llama_products +
                   static_cast<std::size_t>(product)];
  }

 private:
  static void pack(const LlamaParts<T>& parts, Index layer, LlamaProduct product, Packed& packed) {
    Index rows = 0;
    Index cols = 0;
    for (const LlamaSlot slot : slots_of(product)) {
      const LlamaTensor& tensor = parts.tensors[LlamaTensors::at(layer, slot)];
      rows += tensor.rows;
      cols = tensor.cols;
    }
    MutableMap<T> weight = scratch<T, StackedWeight>(rows, cols);
    Index row = 0;
    for (const LlamaSlot slot : slots_of(product)) {
      const std::size_t place = LlamaTensors::at(layer, slot);
      MutableMap<T> own = rows_of(weight, row, parts.tensors[place].rows);
      FrozenAccess::read_rows(parts.weights[place], 0, own);
      if (const auto* const module = parts.adapter(place)) module->adapter.add_update(own);
      row += own.rows();
    }
    packed.forward.template pack<Operand::transposed>(as_const(weight));
    packed.backward.template pack<Operand::plain>(as_const(weight));
  }

  std::vector<Packed> packed_;  // [layers, products]
};

}  // namespace mora::inline MORA_ABI::detail
