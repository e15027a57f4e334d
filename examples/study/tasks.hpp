// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <iosfwd>
#include <optional>
#include <string>

#include "mora/io/json_lines.hpp"
#include "study/task.hpp"

namespace study {

/// The decoder, the same in all experiments of a grid. With 136, r (in + out) is the square of an
/// even number for every layer at r = 2 and 8: LoRA and all of MoRA then have the same number of
/// parameters. MiSS, AsyLoRA and LoKr have at most as many, DoRA its lengths on top.
struct Shape {
  Index width = 64;
  Index inner = 136;
  Index layers = 3;
  Index heads = 4;

  /// Bytes are the tokens; the head is the embedding.
  [[nodiscard]] mora::LlamaConfig config(Index positions) const;
  [[nodiscard]] std::string name() const;
};

/// How the decoder that adapters are put on is trained before: all weights, AdamW, cosine to 0.
struct BaseTraining {
  Index steps = 2000;
  double learning_rate = 3e-3;
  std::uint64_t seed = 0xba5e;
};

/// Sizes of a task.
struct TaskSettings {
  Shape shape = {};
  BaseTraining base = {};
  Index length = 256;   ///< Positions of a window, or tokens of a prompt with its response.
  Index batch = 8;      ///< Of the base's training, and of evaluation.
  Index held_out = 64;  ///< Examples of each part of a held-out set.
};

/// The user's files; text is generated where there is none.
struct Files {
  std::optional<std::string> general, general_held_out, train, held_out;
  mora::JsonLinesSettings keys;
};

/// Where trained bases are kept, and where progress goes.
struct Workplace {
  std::filesystem::path cache;
  std::ostream* log;
};

/// \name What is learnt. Throws mora::FileError and the like for files that cannot be used,
/// mora::ArgumentError for a text too short.
/// @{

/// Text, by a decoder of random weights.
[[nodiscard]] Task pretraining(const TaskSettings& settings, const Files& files);
/// Another text, by a decoder trained on general text: both are held out.
[[nodiscard]] Task continual_pretraining(const TaskSettings& settings, const Files& files,
                                         const Workplace& place);
/// Responses to prompts (JSON lines), by a decoder trained on general text: GSM8K's form, or
/// instructions.
[[nodiscard]] Task mathematics(const TaskSettings& settings, const Files& files,
                               const Workplace& place);
[[nodiscard]] Task instructions(const TaskSettings& settings, const Files& files,
                                const Workplace& place);
/// Chains with multiplications, by a decoder that knows sums and differences; it takes no files.
[[nodiscard]] Task arithmetic(const TaskSettings& settings, const Workplace& place);

/// @}

}  // namespace study
