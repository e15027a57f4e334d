// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "mora/adapters/linear.hpp"
#include "mora/io/peft/peft_folder.hpp"

namespace mora::inline MORA_ABI {

/// Puts all adapters of a folder on a LLaMA under `name`, and switches that on; all of them or
/// none. Throws as PeftFolder::adapters and Llama::attach do.
template <Real T>
void attach_peft(Llama<T>& model, const std::string& name, const PeftFolder& folder) {
  model.attach(name, folder.adapters<T>(layer_shapes(model.config())));
}

/// Gives the layers of a map from names to AdaptedLinear the adapters of a folder; all of them or
/// none. Such layers have no dropout: folder.config().dropout is what the caller's training may put
/// in front of them. Throws as PeftFolder::adapters does, ArgumentError naming the layer for one
/// that the folder has no adapter for, or one of another type, and StateError while one is merged.
///
///     std::map<std::string, mora::LoraLinear<float>> layers = ...;
///     mora::load_peft(layers, mora::PeftFolder("my-adapter"));
template <class Layers>
void load_peft(Layers& layers, const PeftFolder& folder) {
  using Layer = typename Layers::mapped_type;
  using A = typename Layer::AdapterType;
  auto adapters = folder.adapters<typename Layer::Scalar>(layer_shapes(layers));
  std::vector<std::pair<A*, A*>> moves;  // from, to
  for (auto& [module, layer] : layers) {
    A* found = nullptr;
    for (auto& each : adapters) {
      if (each.module != module) continue;
      found = each.adapter.template get_if<A>();
      if (!found) {
        throw ArgumentError(detail::concat(
            "layer ", module, ": its adapter in the folder is of another type than the layer's"));
      }
    }
    if (!found)
      throw ArgumentError(detail::concat("layer ", module, ": the folder has no adapter"));
    moves.emplace_back(found, &layer.adapter());
  }
  for (const auto& [from, to] : moves) *to = std::move(*from);
}

}  // namespace mora::inline MORA_ABI
