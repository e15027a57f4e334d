// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "support/fixture.hpp"
#include "support/llama.hpp"

/// \file
/// Models and batches from fixtures/llama_*.safetensors.

namespace mora_tests {

[[nodiscard]] inline LlamaConfig config_of(const Fixture& fixture) {
  LlamaConfig config;
  config.vocab_size = fixture.integer("vocab_size");
  config.hidden_size = fixture.integer("hidden_size");
  config.intermediate_size = fixture.integer("intermediate_size");
  config.num_hidden_layers = fixture.integer("num_hidden_layers");
  config.num_attention_heads = fixture.integer("num_attention_heads");
  config.num_key_value_heads = fixture.integer("num_key_value_heads");
  config.head_dim = fixture.integer("head_dim");
  config.max_position_embeddings = fixture.integer("max_position_embeddings");
  config.rms_norm_eps = fixture.number("rms_norm_eps");
  config.rope_theta = fixture.number("rope_theta");
  config.tie_word_embeddings = fixture.text("tie_word_embeddings") == "true";
  return config;
}

[[nodiscard]] inline Llama<double> model_of(const Fixture& fixture) {
  const LlamaConfig config = config_of(fixture);
  std::vector<mora::FrozenLinear<double>> weights;
  const LlamaTensors tensors(config);
  for (const auto& tensor : tensors.all()) weights.emplace_back(fixture.tensor(tensor.name));
  return {config, std::move(weights)};
}

template <class Integer>
[[nodiscard]] std::vector<Integer> integers_of(const mora::Matrix<double>& numbers) {
  return {numbers.data(), numbers.data() + numbers.size()};
}
[[nodiscard]] inline Batch batch_of(const Fixture& fixture) {
  return {integers_of<Token>(fixture.tensor("tokens")),
          integers_of<Token>(fixture.tensor("targets")),
          integers_of<Index>(fixture.tensor("starts"))};
}

}  // namespace mora_tests
