// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "mora/models/llama/llama.hpp"
#include "mora/optim/adamw.hpp"

namespace experiment {

using mora::Index;
using Decoder = mora::Llama<float>;
using DecoderOptimizer = mora::AdamW<float>;

/// What tells two uses of one method apart.
struct MethodUse {
  Index rank = 0;             ///< LoRA's, which sets the budget of all.
  std::uint64_t seed = 0;     ///< Of operators that have one, and of what follows a restart.
  std::uint64_t numbers = 0;  ///< The seed of the random numbers that adapters start with.
};

/// A way to train the linear layers of a decoder, without its type.
struct DecoderMethod {
  std::string name;
  bool full = false;  ///< Every weight trains: no budget.
  /// Puts it on all linear layers but the head, under a name.
  std::function<void(Decoder&, const std::string& name, const MethodUse&)> attach;
  /// Multiply-adds a token of one of its adapters, beside those of the frozen layer.
  std::function<Index(const mora::AnyAdapter<float>&)> work;
  /// Folds what was learnt into the frozen weights and begins anew, the number-th time; empty for
  /// methods that never do.
  std::function<void(Decoder&, DecoderOptimizer&, Index number, const MethodUse&)> restart = {};
  /// AdamW at a learning rate; empty: with no groups.
  std::function<DecoderOptimizer(double learning_rate)> optimizer = {};

  [[nodiscard]] DecoderOptimizer make_optimizer(double learning_rate) const {
    if (optimizer) return optimizer(learning_rate);
    return DecoderOptimizer({.learning_rate = learning_rate});
  }
};

/// Multiply-adds a token of all adapters under a name, and LoRA's number of parameters at a rank in
/// the layers that they are on.
[[nodiscard]] Index decoder_work(const Decoder& model, const DecoderMethod& method,
                                 const std::string& name);
[[nodiscard]] Index decoder_budget(const Decoder& model, Index rank);

/// All that can be asked for by name, in the order of the tables: those of for_each_method, those
/// of for_each_relative, and what is a way to train rather than an adapter.
[[nodiscard]] const std::vector<DecoderMethod>& decoder_methods();

/// Throws mora::ArgumentError for a name that is none, with those that are.
[[nodiscard]] const DecoderMethod& decoder_method(const std::string& name);

}  // namespace experiment
