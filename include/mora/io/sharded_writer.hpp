// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "mora/io/safetensors_writer.hpp"
#include "mora/io/shard_index.hpp"

namespace mora::inline MORA_ABI {

/// How a model is cut into files, and what these are called.
struct ShardedWriterSettings {
  std::string name = "model";             ///< What the files' names begin with.
  Index max_shard_bytes = 5'000'000'000;  ///< Of tensors in a file; one larger has its own.
  TextMap metadata = {{"format", "pt"}};  ///< Of each file; Hugging Face's loaders ask for this.

  /// Throws ArgumentError for a name that is no plain one, and less than one byte a shard.
  void validate() const {
    const std::string fault = detail::shard_name_fault(name);
    if (!fault.empty()) {
      throw ArgumentError("name: expected what a file in a folder can be called, " + fault);
    }
    detail::require_at_least<Index>("max_shard_bytes", 1, max_shard_bytes);
  }
};

/// Deals tensors out to files as huggingface_hub does: one after another into a file, until it
/// would be too large; a tensor that is too large by itself gets its own. Throws as byte_count
/// does.
[[nodiscard]] inline std::vector<std::vector<TensorInfo>> plan_shards(
    std::vector<TensorInfo> tensors, Index max_shard_bytes) {
  std::vector<std::vector<TensorInfo>> shards;
  std::vector<TensorInfo> current;
  Index bytes = 0;
  for (TensorInfo& tensor : tensors) {
    const Index more = byte_count(tensor);
    if (more > max_shard_bytes) {
      shards.emplace_back().push_back(std::move(tensor));
      continue;
    }
    if (more > max_shard_bytes - bytes) {
      shards.push_back(std::move(current));
      current.clear();
      bytes = 0;
    }
    bytes += more;
    current.push_back(std::move(tensor));
  }
  if (!current.empty() || shards.empty()) shards.push_back(std::move(current));
  return shards;
}

/// Writes a model into a folder, as one file or, if it is too large, as several with an index;
/// tensor by tensor, so that no more than the piece at hand has to be in memory. The names are
/// those of Hugging Face: model.safetensors, or model-00001-of-00002.safetensors and
/// model.safetensors.index.json.
///
/// The files are written beside their places, and commit() puts them there. One file appears whole
/// or not at all. Of several the index comes last, and one from before goes first if it names any
/// of their places: what is left by a process that dies in between is a folder without an index,
/// which no reader takes for a model. Of an earlier model in the folder, the index or the single
/// file goes at the end, as it would speak of another; other files of a larger one stay.
class ShardedWriter {
 public:
  using Settings = ShardedWriterSettings;

  /// Throws ArgumentError as lay_out_safetensors does, for settings, and for a tensor that is there
  /// twice; FileError where nothing can be written. Until commit() nothing in the folder changes.
  ShardedWriter(const std::filesystem::path& folder, std::vector<TensorInfo> tensors,
                const Settings& settings = {})
      : folder_(folder), settings_(settings) {
    settings_.validate();
    detail::require_unique_names(tensors);
    index_.total_size = 0;
    for (auto& shard : plan_shards(std::move(tensors), settings_.max_shard_bytes)) {
      layouts_.push_back(lay_out_safetensors(std::move(shard), settings_.metadata));
    }
    for (std::size_t i = 0; i < layouts_.size(); ++i) {
      for (const TensorInfo& tensor : layouts_[i].tensors) {
        tensors_.push_back(tensor);
        index_.weight_map[tensor.name] = file_name(i);
        *index_.total_size += byte_count(tensor);
      }
    }
    open_next();
  }

  /// In the order in which they are to be written.
  [[nodiscard]] const std::vector<TensorInfo>& tensors() const { return tensors_; }
  /// What is, or would be, the index.
  [[nodiscard]] const ShardIndex& index() const { return index_; }

  /// The next bytes or numbers of a tensor. Throws as SafetensorsWriter::write does.
  void write(std::string_view name, std::span<const std::byte> bytes) {
    writer_of(name).write(name, bytes);
  }
  template <detail::WideFloat T>
  void write(std::string_view name, std::span<const T> numbers) {
    writer_of(name).write(name, numbers);
  }
  /// Room for the next bytes of a tensor, to be filled before the next but one file begins. Throws
  /// as SafetensorsWriter::leave does.
  [[nodiscard]] AtomicFile::Room leave(std::string_view name, Index bytes) {
    return writer_of(name).leave(name, bytes);
  }

  /// Puts the files in their places. Throws StateError, with nothing changed, unless all bytes have
  /// been written; FileError where the system refuses, after which there is the old model, the new
  /// one, or none.
  void commit() {
    if (committing_) {
      throw StateError(detail::concat(folder_.string(), ": committed or given up before"));
    }
    while (writers_.size() < layouts_.size()) {
      writers_.back().finish();
      open_next();
    }
    for (SafetensorsWriter& writer : writers_) writer.finish();
    if (writers_.size() == 1) {
      committing_ = true;
      writers_.front().commit();
      remove_file(index_path());
      return;
    }
    AtomicFile index(index_path());
    const std::string json = shard_index_json(index_);
    index.write(std::as_bytes(std::span(json)));
    index.finish();
    committing_ = true;
    const auto taken = [](const SafetensorsWriter& writer) {
      std::error_code error;
      return std::filesystem::exists(std::filesystem::symlink_status(writer.path(), error));
    };
    if (std::any_of(writers_.begin(), writers_.end(), taken)) remove_file(index_path());
    for (SafetensorsWriter& writer : writers_) writer.commit();
    index.commit();
    remove_file(folder_ / (settings_.name + ".safetensors"));
  }

 private:
  [[nodiscard]] std::string file_name(std::size_t shard) const {
    if (layouts_.size() == 1) return settings_.name + ".safetensors";
    const auto digits = [](std::size_t number) {
      const std::string text = std::to_string(number);
      return std::string(5 - std::min<std::size_t>(5, text.size()), '0') + text;
    };
    return settings_.name + "-" + digits(shard + 1) + "-of-" + digits(layouts_.size()) +
           ".safetensors";
  }
  [[nodiscard]] std::filesystem::path index_path() const {
    return folder_ / (settings_.name + ".safetensors.index.json");
  }

  void open_next() {
    const std::size_t shard = writers_.size();
    // A copy, for another attempt where this one fails.
    writers_.emplace_back(folder_ / file_name(shard), layouts_[shard]);
  }

  /// The file of this tensor, which is the one at hand or, when that is complete, the next.
  [[nodiscard]] SafetensorsWriter& writer_of(std::string_view name) {
    const auto at = index_.weight_map.find(name);
    const bool is_next = at != index_.weight_map.end() && writers_.size() < layouts_.size() &&
                         at->second == file_name(writers_.size());
    if (is_next && writers_.back().complete()) {
      // Not the one at hand, for whose last bytes one would wait.
      if (writers_.size() > 1) writers_[writers_.size() - 2].finish();
      open_next();
    }
    return writers_.back();
  }

  std::filesystem::path folder_;
  Settings settings_;
  ShardIndex index_;
  std::vector<SafetensorsLayout> layouts_;
  std::vector<TensorInfo> tensors_;
  std::deque<SafetensorsWriter> writers_;  // of all files so far; the last is at hand
  bool committing_ = false;  // since the first change in the folder, which is not tried again
};

}  // namespace mora::inline MORA_ABI
