// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <ostream>
#include <string_view>
#include <utility>
#include <vector>

#include "experiment/weight_file.hpp"
#include "mora/adapters/frozen_linear.hpp"
#include "mora/models/llama/config.hpp"
#include "mora/models/llama/tensors.hpp"

namespace experiment {

using FrozenWeights = std::vector<mora::FrozenLinear<float>>;

/// A decoder's weights, in the order of mora::LlamaTensors, from their file; or else what `make()`
/// makes, which is put there. `contents` says all that they depend on. A file that is not what was
/// written, or of another decoder, is refused: mora::FormatError.
template <class Make>
[[nodiscard]] FrozenWeights cached_weights(const std::filesystem::path& path,
                                           std::string_view contents,
                                           const mora::LlamaConfig& config, std::ostream& log,
                                           const Make& make) {
  if (!std::filesystem::exists(path)) {
    std::filesystem::create_directories(path.parent_path());
    FrozenWeights made = make();
    Weights weights;
    for (const auto& weight : made) weights.emplace_back(weight.weight());
    write_weights(path, contents, weights);
    return made;
  }
  FrozenWeights found;
  for (mora::Matrix<float>& weight : read_weights(path, contents)) {
    found.emplace_back(std::move(weight));
  }
  const mora::LlamaTensors tensors(config);
  bool fits = found.size() == tensors.size();
  for (std::size_t i = 0; fits && i < found.size(); ++i) {
    fits = found[i].out_features() == tensors[i].rows && found[i].in_features() == tensors[i].cols;
  }
  if (!fits) throw mora::FormatError(path, "expected the shapes of the decoder, found others");
  log << "base: " << path.string() << std::endl;
  return found;
}

}  // namespace experiment
