// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <mora/io/crc32.hpp>
#include <mora/io/llama/llama_folder.hpp>
#include <mora/io/mapped_file.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "programs/program.hpp"

namespace programs {

struct LanguageModel {
  mora::Llama<float> model;
  mora::LlamaConfigFile file;
};

/// No model says a token that it does not have.
inline void warn_of_ends(const mora::LlamaConfigFile& file) {
  for (const mora::Index token : file.eos_token_id) {
    if (token < file.config.vocab_size) continue;
    std::cerr << "warning: eos_token_id: expected less than vocab_size = " << file.config.vocab_size
              << ", found " << token << ", which never comes\n";
  }
}

/// How a model's folder is read.
struct ModelSettings {
  bool keep_small = false;
  bool links = false;
};

/// A Hugging Face folder, or a config.json alone: random weights from the seed then.
[[nodiscard]] inline LanguageModel language_model(const std::filesystem::path& path,
                                                  std::uint64_t seed,
                                                  const ModelSettings& settings) {
  if (std::filesystem::is_regular_file(path)) {
    for (const auto& [given, option] :
         {std::pair(settings.keep_small, "--keep-small"), std::pair(settings.links, "--links")}) {
      if (!given) continue;
      throw mora::ArgumentError(std::string(option) +
                                " is for a folder: a config.json alone has no weights");
    }
    const mora::LlamaConfigFile file = mora::read_llama_config(path);
    if (!file.missing.empty()) {
      throw mora::FormatError(path, "expected " + file.missing.front() + ", found none");
    }
    print_warnings(file.warnings);
    warn_of_ends(file);
    mora::SplitMix64 generator(seed);
    return {mora::Llama<float>(file.config, generator), file};
  }
  const mora::LlamaFolder folder(path, {.links = settings.links});
  print_warnings(folder.warnings());
  warn_of_ends(folder.config_file());
  const auto small = settings.keep_small ? mora::SmallWeights::keep : mora::SmallWeights::widen;
  return {folder.model<float>(small), folder.config_file()};
}

inline void add_model_options(CLI::App& app, ModelSettings& settings) {
  app.add_flag("--keep-small", settings.keep_small,
               "Leave F16 and BF16 weights as they are in the file: half the memory");
  app.add_flag("--links", settings.links, "Follow links, as in Hugging Face's cache");
}

/// Tells a file from others of its name, by all of its bytes.
[[nodiscard]] inline std::string fingerprint(const std::filesystem::path& path) {
  const mora::MappedFile file(path);
  return mora::detail::concat(file.size(), ' ', mora::detail::crc32(file.bytes()));
}

/// The same as far as its size and its first and last mebibyte do, for files of gigabytes.
[[nodiscard]] inline std::string short_fingerprint(const std::filesystem::path& path) {
  const mora::MappedFile file(path);
  const auto bytes = file.bytes();
  const std::size_t part = std::min<std::size_t>(bytes.size(), std::size_t{1} << 20);
  return mora::detail::concat(bytes.size(), ' ', mora::detail::crc32(bytes.first(part)), ' ',
                              mora::detail::crc32(bytes.last(part)));
}

/// Of a model's config.json and files of weights.
[[nodiscard]] inline std::string model_fingerprint(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) return fingerprint(path);
  std::vector<std::filesystem::path> files = {path / "config.json"};
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::string all;
  for (const auto& file : files) {
    all += file.filename().string() + ' ' + short_fingerprint(file) + '\n';
  }
  return std::to_string(mora::detail::crc32(std::as_bytes(std::span(all))));
}

}  // namespace programs
