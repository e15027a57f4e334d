// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <system_error>

#include "mora/io/atomic_folder.hpp"
#include "mora/io/sharded_tensors.hpp"

namespace mora::inline MORA_ABI::detail {

/// Files of weights in other formats, their indices, and the config of an adapter, which would make
/// the folder one.
[[nodiscard]] inline bool has_other_weights(const std::string& name) {
  if (name == "adapter_config.json" || name.ends_with(".bin.index.json")) return true;
  constexpr std::array extensions = {".safetensors", ".bin", ".pth",     ".pt",   ".ckpt", ".gguf",
                                     ".ggml",        ".h5",  ".msgpack", ".onnx", ".ot"};
  const std::string extension = std::filesystem::path(name).extension().string();
  return std::ranges::find(extensions, extension) != extensions.end();
}

/// What a merged folder has of the base's besides the weights: real paths by name. `warn` is told
/// what stays behind. Throws FormatError for links that lead out of the folder and hard ones, as
/// ShardedTensors does, unless they are to be followed.
template <class Warn>
[[nodiscard]] std::map<std::string, std::filesystem::path> side_files(
    const std::filesystem::path& base, const ShardedTensors& tensors, bool links,
    const Warn& warn) {
  std::set<std::filesystem::path> weights;
  std::error_code error;
  for (const SafetensorsFile& file : tensors.files()) {
    weights.insert(std::filesystem::canonical(file.path(), error));
  }
  std::map<std::string, std::filesystem::path> files;
  for (const std::string& name : names_in(base)) {
    const std::filesystem::path file = base / name;
    const auto stays = [&](const char* what) {
      if (!name.starts_with('.')) warn(concat(file.string(), ": is not copied, ", what));
    };
    if (name == "model.safetensors.index.json") continue;
    if (!std::filesystem::is_regular_file(file, error)) {
      stays(std::filesystem::is_directory(file, error) ? "as it is a folder"
                                                       : "as it is no regular file");
    } else if (weights.contains(std::filesystem::canonical(file, error))) {
      continue;
    } else if (has_other_weights(name)) {
      stays("as it may have weights that are not merged");
    } else if (name.starts_with(".mora-")) {
      continue;  // what a process left that was killed while it wrote a file
    } else {
      files.emplace(name, path_in_folder(base, name, links, "cannot copy"));
    }
  }
  return files;
}

/// What the files say of themselves; the first where they differ. Hugging Face's loaders ask for a
/// format.
[[nodiscard]] inline TextMap common_metadata(const ShardedTensors& tensors) {
  TextMap all;
  for (const SafetensorsFile& file : tensors.files()) {
    all.insert(file.metadata().begin(), file.metadata().end());
  }
  all.emplace("format", "pt");
  return all;
}

}  // namespace mora::inline MORA_ABI::detail
