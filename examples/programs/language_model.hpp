// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <iostream>
#include <mora/io/llama/llama_folder.hpp>
#include <vector>

#include "programs/program.hpp"

namespace programs {

struct LanguageModel {
  mora::Llama<float> model;
  std::vector<mora::Index> end;  ///< eos_token_id
};

/// No model says a token that it does not have.
inline void warn_of_ends(const mora::LlamaConfigFile& file) {
  for (const mora::Index token : file.eos_token_id) {
    if (token < file.config.vocab_size) continue;
    std::cerr << "warning: eos_token_id: expected less than vocab_size = " << file.config.vocab_size
              << ", found " << token << ", which never comes\n";
  }
}

/// A Hugging Face folder, or a config.json alone: random weights from the seed then.
[[nodiscard]] inline LanguageModel language_model(const std::filesystem::path& path,
                                                  std::uint64_t seed, bool keep_small) {
  if (std::filesystem::is_regular_file(path)) {
    if (keep_small) {
      throw mora::ArgumentError("--keep-small is for a folder: a config.json alone has no weights");
    }
    const mora::LlamaConfigFile file = mora::read_llama_config(path);
    if (!file.missing.empty()) {
      throw mora::FormatError(path, "expected " + file.missing.front() + ", found none");
    }
    print_warnings(file.warnings);
    warn_of_ends(file);
    mora::SplitMix64 generator(seed);
    return {mora::Llama<float>(file.config, generator), file.eos_token_id};
  }
  const mora::LlamaFolder folder(path);
  print_warnings(folder.warnings());
  warn_of_ends(folder.config_file());
  const auto small = keep_small ? mora::SmallWeights::keep : mora::SmallWeights::widen;
  return {folder.model<float>(small), folder.config_file().eos_token_id};
}

inline void add_keep_small(CLI::App& app, bool& keep_small) {
  app.add_flag("--keep-small", keep_small,
               "Leave F16 and BF16 weights as they are in the file: half the memory");
}

}  // namespace programs
