// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/models/llama/config.hpp"

namespace mora::inline MORA_ABI {

/// The places of a tensor in a decoder layer, in the order of the table below.
enum class LlamaSlot : std::size_t {
  input_norm,
  query,
  key,
  value,
  attention_output,
  post_attention_norm,
  gate,
  up,
  down,
};
inline constexpr std::size_t llama_slots = 9;

/// One tensor of a model. A norm's weight is a matrix of one row here; files have it as a vector.
struct LlamaTensor {
  std::string name;  ///< Hugging Face's: "model.layers.0.self_attn.q_proj.weight".
  Index rows = 0;
  Index cols = 0;
  Index layer = -1;     ///< -1 outside of the layers.
  bool linear = false;  ///< A linear layer; else a norm or the embedding.
  bool vector = false;

  /// The module's: without ".weight".
  [[nodiscard]] std::string_view module() const {
    return std::string_view(name).substr(0, name.rfind('.'));
  }
};

/// Names and shapes of all tensors of a LLaMA: the one table that whoever makes, loads, saves,
/// adapts or visits a model's tensors reads. The order: embedding, layers by LlamaSlot, final norm,
/// head (absent when tied to the embedding).
class LlamaTensors {
 public:
  explicit LlamaTensors(const LlamaConfig& config) : layers_(config.num_hidden_layers) {
    config.validate();
    const Index hidden = config.hidden_size;
    const Index inner = config.intermediate_size;
    const Index query = config.query_size();
    const Index key_value = config.key_value_size();
    struct Row {
      std::string_view name;
      Index rows;
      Index cols;
    };
    const std::array<Row, llama_slots> layer_rows = {{
        {"input_layernorm", 1, hidden},
        {"self_attn.q_proj", query, hidden},
        {"self_attn.k_proj", key_value, hidden},
        {"self_attn.v_proj", key_value, hidden},
        {"self_attn.o_proj", hidden, query},
        {"post_attention_layernorm", 1, hidden},
        {"mlp.gate_proj", inner, hidden},
        {"mlp.up_proj", inner, hidden},
        {"mlp.down_proj", hidden, inner},
    }};
    add("model.embed_tokens", config.vocab_size, hidden, -1, false);
    for (Index layer = 0; layer < layers_; ++layer) {
      for (std::size_t slot = 0; slot < llama_slots; ++slot) {
        const Row& row = layer_rows[slot];
        add(detail::concat("model.layers.", layer, ".", row.name), row.rows, row.cols, layer,
            !is_norm(static_cast<LlamaSlot>(slot)));
      }
    }
    add("model.norm", 1, hidden, -1, false);
    if (!config.tie_word_embeddings) add("lm_head", config.vocab_size, hidden, -1, true);
  }

  [[nodiscard]] const std::vector<LlamaTensor>& all() const { return all_; }
  [[nodiscard]] const LlamaTensor& operator[](std::size_t i) const { return all_[i]; }
  [[nodiscard]] std::size_t size() const { return all_.size(); }

  /// Where the tensor of this module is. Throws ArgumentError where there is no such module.
  [[nodiscard]] std::size_t place_of(std::string_view module) const {
    for (std::size_t place = 0; place < size(); ++place) {
      if (all_[place].module() == module) return place;
    }
    throw ArgumentError(detail::concat("no module has the name '", module, "'"));
  }

  /// Places in the table.
  [[nodiscard]] static constexpr std::size_t embedding() { return 0; }
  [[nodiscard]] static constexpr std::size_t at(Index layer, LlamaSlot slot) {
    return 1 + static_cast<std::size_t>(layer) * llama_slots + static_cast<std::size_t>(slot);
  }
  [[nodiscard]] std::size_t norm() const { return at(layers_, LlamaSlot::input_norm); }
  /// The embedding's when tied.
  [[nodiscard]] std::size_t head() const { return norm() + 1 < size() ? norm() + 1 : embedding(); }

 private:
  [[nodiscard]] static bool is_norm(LlamaSlot slot) {
    return slot == LlamaSlot::input_norm || slot == LlamaSlot::post_attention_norm;
  }
  void add(std::string module, Index rows, Index cols, Index layer, bool linear) {
    const bool vector = rows == 1 && !linear && module != "model.embed_tokens";
    all_.push_back({std::move(module) + ".weight", rows, cols, layer, linear, vector});
  }

  Index layers_;
  std::vector<LlamaTensor> all_;
};

}  // namespace mora::inline MORA_ABI
