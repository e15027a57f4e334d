// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "mora/models/llama/llama.hpp"

namespace mora::inline MORA_ABI {

/// A module of a model, as far as an adapter folder has to know it.
struct LayerShape {
  std::string module;  ///< "model.layers.0.self_attn.q_proj".
  Index in_features = 0;
  Index out_features = 0;  ///< Of a norm, which is no linear layer, 1.
  bool linear = true;      ///< Else a norm or an embedding, which only a copy can replace.
  bool bias = false;
  std::string tied_to = {};  ///< The module whose weight is this one's too, if there is one.
};

/// Of a map from names to layers that have `in_features()` and `out_features()`, frozen or adapted.
template <class Layers>
[[nodiscard]] std::vector<LayerShape> layer_shapes(const Layers& layers) {
  std::vector<LayerShape> shapes;
  for (const auto& entry : layers) {
    const auto& layer = entry.second;
    LayerShape& shape = shapes.emplace_back();
    shape.module = entry.first;
    shape.in_features = layer.in_features();
    shape.out_features = layer.out_features();
    if constexpr (requires { layer.base(); }) {
      shape.bias = layer.base().bias().size() != 0;
    } else if constexpr (requires { layer.bias(); }) {
      shape.bias = layer.bias().size() != 0;
    }
  }
  return shapes;
}

/// Of all tensors of a LLaMA; with a tied head it is there as well.
[[nodiscard]] inline std::vector<LayerShape> layer_shapes(const LlamaConfig& config) {
  std::vector<LayerShape> shapes;
  const LlamaTensors tensors(config);
  for (const LlamaTensor& tensor : tensors.all()) {
    shapes.push_back({.module = std::string(tensor.module()),
                      .in_features = tensor.cols,
                      .out_features = tensor.rows,
                      .linear = tensor.linear});
  }
  if (config.tie_word_embeddings) {
    LayerShape head = shapes[LlamaTensors::embedding()];
    head.tied_to = std::exchange(head.module, "lm_head");
    head.linear = true;
    shapes.push_back(std::move(head));
  }
  return shapes;
}

}  // namespace mora::inline MORA_ABI
