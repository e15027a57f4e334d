// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "mora/adapters/any_adapter.hpp"
#include "mora/io/stored_tensor.hpp"

namespace mora::inline MORA_ABI {

/// What is merged into one module's weight, in memory only when its turn comes: one of the two.
template <Real T>
struct ModuleUpdate {
  std::string module;  ///< "model.layers.0.self_attn.q_proj".
  Index out_features = 0;
  Index in_features = 0;
  bool bias = false;  ///< It has one as well, which is not merged.
  /// Makes the adapter, each time that it is called.
  std::function<std::shared_ptr<const AnyAdapter<T>>()> adapter = {};
  /// The new weight, which is read some rows at a time from its file.
  std::optional<StoredTensor> weight = {};
};

}  // namespace mora::inline MORA_ABI
