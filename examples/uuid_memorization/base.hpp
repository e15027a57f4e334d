// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <string>
#include <vector>

#include "mora/adapters/frozen_linear.hpp"
#include "mora/models/llama/config.hpp"
#include "uuid_memorization/pair_recall.hpp"

namespace uuid_memorization {

/// The decoder that adapters are put on, and how it was trained before.
struct BaseSettings {
  // With 136, r (in + out) is the square of an even number for every layer at r = 2 and 8: all
  // methods then have exactly LoRA's number of parameters.
  Index width = 64;
  Index inner = 136;
  Index layers = 2;
  Index heads = 4;

  Index steps = 2000;  ///< Of AdamW with warm-up over 5 % and cosine to 0.
  Index batch = 32;    ///< Sequences; half of them pairs to remember, half functions of the key.
  Index pairs = 128;   ///< To remember.
  double learning_rate = 3e-3;
  std::uint64_t seed = 0xba5e;

  [[nodiscard]] mora::LlamaConfig config() const {
    return {.vocab_size = vocabulary,
            .hidden_size = width,
            .intermediate_size = inner,
            .num_hidden_layers = layers,
            .num_attention_heads = heads,
            .max_position_embeddings = pair_positions};
  }
  /// All of it, for the name of a file and for a line in it.
  [[nodiscard]] std::string name() const;
};

/// A trained base: weights in the order of mora::LlamaTensors, shared by all runs.
struct Base {
  BaseSettings settings;
  std::vector<mora::FrozenLinear<float>> weights;
};

/// Whether a base attends to the key: its own pairs with their keys, and with values exchanged
/// between the keys, which must cost it what it knows; and values that are the key, for keys that
/// it has never seen, of which it must get every digit from its place. That it also learnt to swap
/// the halves of a key is reported, and not asked for.
struct BaseCheck {
  PairRecall own;
  PairRecall exchanged;
  PairRecall copy;
  PairRecall swapped;
  PairRecall unknown;  ///< Pairs that it has never seen, as the runs have them: chance.

  [[nodiscard]] bool attends_to_key() const {
    return copy.accuracy > 0.95 && own.accuracy > 0.95 && exchanged.accuracy < 0.25;
  }
};

/// Trains a base: all weights, on pairs to remember and on fresh keys with a function of them.
[[nodiscard]] Base train_base(const BaseSettings& settings, std::ostream& log);

/// The base from its file in the folder, or else trained and put there. A file that is not what was
/// written is refused: mora::FormatError.
[[nodiscard]] Base cached_base(const BaseSettings& settings, const std::filesystem::path& folder,
                               std::ostream& log);

[[nodiscard]] BaseCheck check(const Base& base);

}  // namespace uuid_memorization
