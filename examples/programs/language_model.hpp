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
                                                  std::uint64_t seed) {
  if (std::filesystem::is_regular_file(path)) {
    const mora::LlamaConfigFile file = mora::read_llama_config(path);
    print_warnings(file.warnings);
    mora::SplitMix64 generator(seed);
    return {mora::Llama<float>(file.config, generator), file.eos_token_id};
  }
  const mora::LlamaFolder folder(path);
  print_warnings(folder.warnings());
  return {folder.model<float>(), folder.config_file().eos_token_id};
}

}  // namespace programs
