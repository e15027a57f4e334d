// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <mora/models/llama/generate.hpp>
#include <string>
#include <vector>

#include "support/batches.hpp"
#include "support/compare.hpp"
#include "support/random.hpp"

/// \file
/// Small random decoders. Link support/llama.cpp, which compiles them once for all tests.

extern template class mora::Llama<float>;
extern template class mora::Llama<double>;

namespace mora_tests {

using mora::Llama;
using mora::LlamaConfig;
using mora::LlamaTensors;
using mora::Targets;

/// No two of its sizes are equal: query heads in groups, heads of another width than hidden /
/// heads.
[[nodiscard]] inline LlamaConfig small_config(bool tied = false) {
  LlamaConfig config;
  config.vocab_size = 13;
  config.hidden_size = 10;
  config.intermediate_size = 11;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 4;
  config.max_position_embeddings = 64;
  config.rms_norm_eps = 1e-5;
  config.rope_theta = 100.0;
  config.tie_word_embeddings = tied;
  return config;
}

/// Random weights, large enough that nothing is nearly linear, and norms around one.
template <class T>
[[nodiscard]] std::vector<mora::FrozenLinear<T>> random_weights(const LlamaConfig& config,
                                                                std::uint64_t seed = 1) {
  Random random(seed);
  std::vector<mora::FrozenLinear<T>> weights;
  const LlamaTensors tensors(config);
  for (const mora::LlamaTensor& tensor : tensors.all()) {
    auto weight = random.matrix<double>(tensor.rows, tensor.cols, 0.4);
    if (tensor.vector) weight.array() += 1.0;
    weights.emplace_back(mora::Matrix<T>(weight.template cast<T>()));
  }
  return weights;
}
template <class T = double>
[[nodiscard]] Llama<T> random_model(const LlamaConfig& config = small_config(),
                                    std::uint64_t seed = 1) {
  return {config, random_weights<T>(config, seed)};
}

/// Sequences of these lengths; all positions but the last have targets, but for a prompt in the
/// second sequence.
[[nodiscard]] inline Batch random_batch(const std::vector<Index>& lengths = {5, 7, 1, 3},
                                        Index vocabulary = small_config().vocab_size,
                                        std::uint64_t seed = 2) {
  Random random(seed);
  Batch batch;
  for (const Index length : lengths) {
    batch.add_next_tokens(random_tokens(random, length, vocabulary),
                          batch.sequences() == 1 ? std::min<Index>(3, length) : 0);
  }
  return batch;
}

/// So many sequences that threads take groups of them, of uneven lengths.
[[nodiscard]] inline Batch grouped_batch(Index vocabulary = small_config().vocab_size,
                                         Index sequences = 40) {
  std::vector<Index> lengths;
  for (Index i = 0; i < sequences; ++i) lengths.push_back(8 + i * 13 % 57);
  Batch batch = random_batch(lengths, vocabulary);
  mora::detail::SequenceGroups groups;
  groups.cut(batch, false);
  EXPECT_GE(groups.size(), mora::detail::SequenceGroups::fewest);
  return batch;
}

/// One sequence of a batch as a batch.
[[nodiscard]] inline Batch sequence_of(const Batch& batch, Index sequence) {
  const auto first = static_cast<std::size_t>(batch.starts[static_cast<std::size_t>(sequence)]);
  const auto end = static_cast<std::size_t>(batch.starts[static_cast<std::size_t>(sequence) + 1]);
  Batch one;
  one.add(std::span(batch.tokens).subspan(first, end - first),
          std::span(batch.targets).subspan(first, end - first));
  return one;
}

/// Adapters of a kind, with settings under which every part of them counts.
enum class Kind { lora, rotation, sharing, dora, hira, miss, lokr, asylora, full };
template <class T>
void attach(Llama<T>& model, const std::string& name, Kind kind, const Targets& targets,
            double dropout = 0.0);

/// "lm_head", "model.norm", ...: everything.
[[nodiscard]] inline Targets all_tensors(const LlamaConfig& config) {
  Targets targets;
  const LlamaTensors tensors(config);
  for (const auto& tensor : tensors.all()) targets.modules.emplace_back(tensor.module());
  return targets;
}

/// Moves what trains away from where it starts: adapters start without an effect.
template <class T>
void disturb(Llama<T>& model, double deviation = 0.3, std::uint64_t seed = 3) {
  Random random(seed);
  model.visit_parameters([&](std::string_view, mora::Parameter<T>& p) {
    p.value += random.matrix<T>(p.value.rows(), p.value.cols(), deviation);
  });
}

template <class T>
using Gradients = std::map<std::string, mora::Matrix<T>>;

template <class T>
[[nodiscard]] Gradients<T> gradients_of(const Llama<T>& model) {
  Gradients<T> all;
  model.visit_parameters([&](std::string_view name, const mora::Parameter<T>& p) {
    all[std::string(name)] = p.gradient;
  });
  return all;
}
/// Those of one pass over the batch, on a copy.
template <class T>
[[nodiscard]] Gradients<T> gradients_of(Llama<T> model, const Batch& batch, double weight = 1.0) {
  mora::zero_gradients(model);
  (void)model.accumulate_gradients(batch, weight);
  return gradients_of(model);
}

/// `agree(found, expected)` for every gradient, and the same names.
template <class T, class F>
void expect_gradients(const Gradients<T>& found, const Gradients<T>& expected, const F& agree) {
  ASSERT_EQ(found.size(), expected.size());
  ASSERT_FALSE(expected.empty());
  for (const auto& [name, gradient] : expected) {
    ASSERT_TRUE(found.contains(name)) << name;
    EXPECT_TRUE(agree(found.at(name), gradient)) << name;
  }
}
template <class T>
void expect_near(const Gradients<T>& found, const Gradients<T>& expected,
                 const Within& within = {}) {
  expect_gradients(found, expected,
                   [&](const auto& a, const auto& b) { return near(a, b, within); });
}
template <class T>
void expect_same_bits(const Gradients<T>& found, const Gradients<T>& expected) {
  expect_gradients(found, expected, [](const auto& a, const auto& b) { return same_bits(a, b); });
}

extern template void attach(Llama<float>&, const std::string&, Kind, const Targets&, double);
extern template void attach(Llama<double>&, const std::string&, Kind, const Targets&, double);

}  // namespace mora_tests
