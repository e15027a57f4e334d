// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "experiment/decoder_methods.hpp"
#include "programs/any_data.hpp"

namespace study {

using mora::Index;
using Model = experiment::Decoder;
using Optimizer = experiment::DecoderOptimizer;
using Method = experiment::DecoderMethod;

/// The name that everything which trains is attached under.
inline constexpr const char* learner = "learner";

using Examples = programs::TrainingData;

/// Text that nothing trains on, in two parts: one that learning rates are chosen by, one that
/// results are measured on.
struct HeldOut {
  std::string name;
  std::vector<mora::Batch> search;
  std::vector<mora::Batch> results;
};

/// `count` examples for each part, by turns and from all over the data, in batches of `batch`.
[[nodiscard]] inline HeldOut held_out(std::string name, const Examples& examples, Index count,
                                      Index batch) {
  HeldOut set{std::move(name), {}, {}};
  const Index all = std::min(2 * count, examples.size());
  for (Index i = 0; i < all; ++i) {
    auto& part = i % 2 == 0 ? set.search : set.results;
    if (part.empty() || part.back().sequences() == batch) part.emplace_back();
    examples.add_to(i * (examples.size() / all), part.back());
  }
  return set;
}

/// What is to be learnt, on top of what.
struct Task {
  std::string name;  ///< Says all that the runs depend on besides their own settings.
  /// The decoder that a run begins with.
  std::function<Model(std::uint64_t seed)> start;
  /// Norms and embedding train as well, as the paper's pretraining has it.
  bool trains_embedding = false;
  Examples train;
  std::vector<HeldOut> held_out;  ///< The first is what learning rates are chosen by.
  bool exact = false;             ///< Whether whole responses are counted that come out right.
};

}  // namespace study
