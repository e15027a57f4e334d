// SPDX-License-Identifier: MIT
#pragma once

#include "mora/adapters/side.hpp"
#include "mora/core/parameter.hpp"

namespace mora::inline MORA_ABI {

/// An adapter's trainable parameters beside LoRA's number at the same rank.
struct Budget {
  Index parameters = 0;
  Index budget = 0;  ///< r (in + out).

  [[nodiscard]] double used() const { return double(parameters) / double(budget); }
};

/// The parameters of a layer or adapter with `in_features()` and `out_features()`, against LoRA's
/// at `rank`. Throws as lora_budget does.
template <class Layer>
[[nodiscard]] Budget budget_of(const Layer& layer, Index rank) {
  return {parameter_count(layer), lora_budget(layer.in_features(), layer.out_features(), rank)};
}

}  // namespace mora::inline MORA_ABI
