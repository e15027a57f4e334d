// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <mora/io/llama/llama_folder.hpp>
#include <vector>

#include "programs/program.hpp"

namespace programs {

struct LanguageModel {
  mora::Llama<float> model;
  std::vector<mora::Index> end;  ///< eos_token_id
};

/// A Hugging Face folder, or a config.json alone: random weights from the seed then.
[[nodiscard]] inline LanguageModel language_model(const std::filesystem::path& path,
                                                  std::uint64_t seed, bool keep_small) {
  if (std::filesystem::is_regular_file(path)) {
    if (keep_small) {
      throw mora::ArgumentError("--keep-small is for a folder: a config.json alone has no weights");
    }
    const mora::LlamaConfigFile file = mora::read_llama_config(path);
    print_warnings(file.warnings);
    mora::SplitMix64 generator(seed);
    return {mora::Llama<float>(file.config, generator), file.eos_token_id};
  }
  const mora::LlamaFolder folder(path);
  print_warnings(folder.warnings());
  const auto small = keep_small ? mora::SmallWeights::keep : mora::SmallWeights::widen;
  return {folder.model<float>(small), folder.config_file().eos_token_id};
}

inline void add_keep_small(CLI::App& app, bool& keep_small) {
  app.add_flag("--keep-small", keep_small,
               "Leave F16 and BF16 weights as they are in the file: half the memory");
}

}  // namespace programs
