// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "mora/io/safetensors.hpp"
#include "mora/io/shard_index.hpp"

namespace mora::inline MORA_ABI {

/// How the files of a model are found and opened.
struct ShardedTensorsSettings {
  FileAccess access = FileAccess::mapped;  ///< Of every file.
  /// Whether the files of an index may be links: symbolic ones that lead out of the folder, as in
  /// Hugging Face's cache, and hard ones. A single file and the index itself always may, as do
  /// config.json and the files of adapters: who opens a folder chose it, and these names are this
  /// library's, while an index comes from strangers and could name any file beside it.
  bool links = false;
  std::string name = "model";  ///< In a folder: of `<name>.safetensors` or its index.
};

namespace detail {

/// Shards with the names that the index has for them.
using Shards = std::map<std::string, SafetensorsFile, std::less<>>;

/// All tensors of all shards, by name: those that the index says, each in the file that it says.
[[nodiscard]] inline std::vector<StoredTensor> join_shards(const ShardIndex& index,
                                                           const std::filesystem::path& path,
                                                           const Shards& shards) {
  const auto fail = [&](std::string_view tensor, const auto&... parts) {
    throw FormatError(path, concat("tensor ", in_quotes(tensor)), concat(parts...));
  };
  std::vector<StoredTensor> all;
  all.reserve(index.weight_map.size());
  for (const auto& [name, file] : index.weight_map) {
    const auto tensor = shards.at(file).find(name);
    if (!tensor) fail(name, "expected in ", in_quotes(file), ", which does not have it");
    all.push_back(*tensor);
  }
  for (const auto& [file, shard] : shards) {
    for (const StoredTensor& tensor : shard.tensors()) {
      const auto at = index.weight_map.find(tensor.name());
      if (at == index.weight_map.end()) {
        fail(tensor.name(), "is in ", in_quotes(file), ", and not in the index");
      }
      if (at->second != file) {
        fail(tensor.name(), "expected in ", in_quotes(at->second), " alone, found in ",
             in_quotes(file), " too");
      }
    }
  }
  return all;
}

/// Where a file of a folder is, which must not be outside it unless told. `doing` is for the
/// message where the file cannot be found.
[[nodiscard]] inline std::filesystem::path path_in_folder(const std::filesystem::path& folder,
                                                          const std::filesystem::path& name,
                                                          bool links, std::string_view doing) {
  constexpr const char* follow =
      " (to be followed: links = true in the library, --links of the programs)";
  const std::filesystem::path file = folder / name;
  std::error_code error;
  std::filesystem::path real = std::filesystem::canonical(file, error);
  if (error) throw FileError(file, doing, error.value());
  if (links) return real;
  if (real.parent_path() != std::filesystem::canonical(folder, error) || error) {
    throw FormatError(
        file, concat("expected a file in its folder, found a link to ", real.string(), follow));
  }
  if (std::filesystem::is_regular_file(real, error)) {
    const auto names = std::filesystem::hard_link_count(real, error);
    if (names > 1 && !error) {
      throw FormatError(
          file, concat("expected a file with 1 name, found ", names, " hard links", follow));
    }
  }
  return real;
}

/// The same of a shard that an index names.
[[nodiscard]] inline std::filesystem::path shard_path(const std::filesystem::path& index,
                                                      const std::string& name, bool links) {
  return path_in_folder(index.has_parent_path() ? index.parent_path() : ".", name, links,
                        concat("cannot open this shard of ", index.string()));
}

}  // namespace detail

/// The tensors of a model in one file or in several with an index.
///
///     const mora::ShardedTensors model("llama");  // a folder, an index, or a single file
///     const auto w = model.tensor("model.norm.weight").numbers<float>();
///
/// Opening it reads and checks all headers; the index and the files must agree on every tensor.
/// With FileAccess::copied all files are read into memory at once.
class ShardedTensors {
 public:
  using Settings = ShardedTensorsSettings;

  /// In a folder, `<name>.safetensors` or `<name>.safetensors.index.json`; a file that ends in
  /// .json is an index, and any other is safetensors. Throws as SafetensorsFile and
  /// parse_shard_index do; FileError for a file that is not there, FormatError for a folder with
  /// both, for a tensor that is missing, not in the index, or in two files, and for links out of
  /// the folder.
  explicit ShardedTensors(const std::filesystem::path& where, const Settings& settings = {}) {
    path_ = choose(where, settings);
    if (path_.extension() == ".json") {
      open_index(settings);
    } else {
      files_.emplace_back(path_, settings.access);
      tensors_ = files_.front().tensors();
      std::sort(tensors_.begin(), tensors_.end(), by_name);
    }
  }

  /// How many tensors there are.
  [[nodiscard]] Index size() const { return std::ssize(tensors_); }
  /// All, by name.
  [[nodiscard]] const std::vector<StoredTensor>& tensors() const& { return tensors_; }
  /// The same of what is about to end: a loop over ShardedTensors(path).tensors() is fine.
  [[nodiscard]] std::vector<StoredTensor> tensors() && { return std::move(tensors_); }
  /// In the order of their names.
  [[nodiscard]] const std::vector<SafetensorsFile>& files() const { return files_; }
  /// What is odd and does no harm: a total_size that is wrong.
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }

  /// The one of this name, if there is one.
  [[nodiscard]] std::optional<StoredTensor> find(std::string_view name) const {
    const auto at = std::lower_bound(
        tensors_.begin(), tensors_.end(), name,
        [](const StoredTensor& tensor, std::string_view wanted) { return tensor.name() < wanted; });
    if (at == tensors_.end() || at->name() != name) return {};
    return *at;
  }

  /// Throws FormatError, naming file and tensor, where there is none.
  [[nodiscard]] StoredTensor tensor(std::string_view name) const {
    if (auto found = find(name)) return *std::move(found);
    throw FormatError(path_, detail::concat("tensor ", detail::in_quotes(name)),
                      detail::concat("expected, but is none of the ", size(), " there"));
  }

 private:
  [[nodiscard]] static bool by_name(const StoredTensor& a, const StoredTensor& b) {
    return a.name() < b.name();
  }

  [[nodiscard]] static std::filesystem::path choose(const std::filesystem::path& where,
                                                    const Settings& settings) {
    std::error_code error;
    if (!std::filesystem::is_directory(where, error)) return where;
    const std::filesystem::path one = where / (settings.name + ".safetensors");
    const std::filesystem::path index = where / (settings.name + ".safetensors.index.json");
    const bool has_one = std::filesystem::exists(std::filesystem::symlink_status(one, error));
    const bool has_index = std::filesystem::exists(std::filesystem::symlink_status(index, error));
    if (has_one && has_index) {
      throw FormatError(where, detail::concat("expected one of ", one.filename().string(), " and ",
                                              index.filename().string(),
                                              ", found both: open the one that is meant"));
    }
    if (!has_one && !has_index) {
      throw FileError(where, detail::concat("expected ", one.filename().string(), " or ",
                                            index.filename().string(), ", found neither"));
    }
    return has_one ? one : index;
  }

  void open_index(const Settings& settings) {
    constexpr auto most = static_cast<Index>(detail::most_header_bytes);
    ShardIndex index = parse_shard_index(MappedFile(path_, settings.access, most).text(), path_);
    detail::Shards shards;
    for (const auto& [tensor, file] : index.weight_map) {
      if (shards.contains(file)) continue;
      shards.emplace(
          file, SafetensorsFile(detail::shard_path(path_, file, settings.links), settings.access));
    }
    tensors_ = detail::join_shards(index, path_, shards);
    for (const auto& [name, shard] : shards) files_.push_back(shard);
    warnings_ = std::move(index.warnings);
    Index bytes = 0;
    for (const StoredTensor& tensor : tensors_) bytes += std::ssize(tensor.bytes());
    if (index.total_size.value_or(bytes) != bytes) {
      warnings_.push_back(
          detail::concat("total_size: expected ", bytes, " bytes, found ", *index.total_size));
    }
    for (std::string& warning : warnings_) warning.insert(0, path_.string() + ": ");
  }

  std::filesystem::path path_;
  std::vector<SafetensorsFile> files_;
  std::vector<StoredTensor> tensors_;
  std::vector<std::string> warnings_;
};

}  // namespace mora::inline MORA_ABI
