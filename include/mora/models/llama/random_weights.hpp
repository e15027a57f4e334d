// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "mora/adapters/frozen_linear.hpp"
#include "mora/adapters/side.hpp"
#include "mora/core/large_memory.hpp"
#include "mora/core/random.hpp"
#include "mora/models/llama/tensors.hpp"

namespace mora::inline MORA_ABI::detail {

/// A decoder's weights in the order of LlamaTensors: normal with the given deviation, norms one.
/// Throws ArgumentError for a deviation that is not finite.
template <Real T, Generator64 G>
[[nodiscard]] std::vector<FrozenLinear<T>> random_weights(const LlamaConfig& config, G& generator,
                                                          double deviation) {
  require_factor<T>("deviation", deviation);
  std::vector<FrozenLinear<T>> weights;
  const LlamaTensors tensors(config);
  for (const LlamaTensor& tensor : tensors.all()) {
    const auto memory = allocate_large<T>(tensor.rows * tensor.cols);
    const std::span<T> numbers(memory.get(), static_cast<std::size_t>(tensor.rows * tensor.cols));
    if (tensor.vector) {
      std::ranges::fill(numbers, T(1));
    } else {
      fill_normal(numbers, deviation, generator);
    }
    weights.emplace_back(memory.get(), tensor.rows, tensor.cols, memory);
  }
  return weights;
}

}  // namespace mora::inline MORA_ABI::detail
