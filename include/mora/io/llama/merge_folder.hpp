// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "mora/adapters/full.hpp"
#include "mora/adapters/named_adapter.hpp"
#include "mora/io/atomic_file.hpp"
#include "mora/io/atomic_folder.hpp"
#include "mora/io/llama/side_files.hpp"
#include "mora/io/llama/tensor_merge.hpp"
#include "mora/io/llama/tied_head.hpp"
#include "mora/io/peft/module_update.hpp"
#include "mora/io/sharded_tensors.hpp"
#include "mora/io/sharded_writer.hpp"

/// \file
/// Adapters merged into a checkpoint that may be larger than memory: tensor by tensor, rows at a
/// time, every dtype kept.

namespace mora::inline MORA_ABI {

/// How merge_folder reads, and what it refuses.
struct MergeFolderSettings {
  /// Symbolic links out of the folder and hard ones, as in Hugging Face's cache, are followed: of
  /// shards, and of files that are copied.
  bool links = false;
  /// The largest MergedModule::rounding_error that is not refused; by default there is none.
  double most_rounding_error = std::numeric_limits<double>::infinity();
  /// Called now and then with bytes written so far and in all.
  std::function<void(Index, Index)> progress = {};
  /// Called before anything is written with what is odd and does no harm: what of the base is not
  /// copied (but names that begin with a dot), and folders that killed processes left beside the
  /// target.
  std::function<void(const std::string&)> warning = {};
};

namespace detail {

inline void require_rounding_error(const MergedModule& merged, double most) {
  if (merged.rounding_error <= most) return;
  throw NumericError(concat(merged.module, ": rounding to ", name_of(merged.dtype),
                            " changes the update: expected a relative error of at most ", most,
                            ", found ", merged.rounding_error));
}

}  // namespace detail

/// Writes the checkpoint in `base` (a folder with model.safetensors or shards) with adapters merged
/// into it as the new folder `target`, in shards no larger than the base's, with its metadata;
/// other files of the base (config, tokenizer) are copied, but no folders in it, and no .bin or
/// .safetensors that are not the model's. The merge is in T: with double it is rounded once to each
/// tensor's dtype; float is faster, and differs for F16 and BF16 only where its own rounding leads
/// half-way between two of the dtype's numbers. The folder appears whole or not at all; `target`
/// must not be there, or be empty. A head that config.json ties to the embedding, and that is
/// stored all the same, gets the embedding's adapter too.
///
/// Memory: pieces of 1 MiB and one module's adapter, whatever the size of the checkpoint; none for
/// a weight that is stored whole. Time: see docs/results/merge_folder.md.
///
/// Throws ArgumentError for a module that the checkpoint does not have, that is named twice, is a
/// tied head, or whose adapter has trained a bias; FormatError for one of another shape or a dtype
/// that is not converted, for a tied head of other numbers than the embedding's, and for a file
/// that is a link out of the base or a hard one, unless the settings say so; NumericError
/// naming the module for a merged number that is not finite or that the dtype cannot hold, and for
/// a rounding error beyond the setting;
/// FileError where the system refuses.
template <Real T>
[[nodiscard]] std::vector<MergedModule> merge_folder(const std::filesystem::path& base,
                                                     const std::vector<ModuleUpdate<T>>& updates,
                                                     const std::filesystem::path& target,
                                                     const MergeFolderSettings& settings = {}) {
  const auto warn = [&](const std::string& text) {
    if (settings.warning) settings.warning(text);
  };
  const ShardedTensors tensors(base, {.access = FileAccess::mapped, .links = settings.links});
  std::map<std::string, const ModuleUpdate<T>*> merges;
  for (const ModuleUpdate<T>& update : updates) {
    const std::string name = update.module + ".weight";
    const auto tensor = tensors.find(name);
    if (!tensor) {
      throw ArgumentError(detail::concat(base.string(), ": there is no tensor ",
                                         detail::in_quotes(name), " for the adapter of ",
                                         update.module));
    }
    detail::require_merges(*tensor, update);
    if (!merges.emplace(name, &update).second) {
      throw ArgumentError(detail::concat(update.module, ": has two adapters"));
    }
  }
  if (merges.contains(detail::head_weight) || merges.contains(detail::embedding_weight)) {
    if (detail::has_stored_tied_head(base, tensors)) {
      if (merges.contains(detail::head_weight)) {
        throw ArgumentError(
            "lm_head: is tied to model.embed_tokens in this checkpoint, and has no adapter of its "
            "own");
      }
      // Both stay equal, whichever of them a reader takes.
      merges.emplace(detail::head_weight, merges.at(detail::embedding_weight));
    }
  }

  // In the files' order, so that they are read from front to back.
  std::vector<TensorInfo> infos;
  Index bytes = 0;
  Index largest_file = 1;
  for (const SafetensorsFile& file : tensors.files()) {
    Index here = 0;
    for (const StoredTensor& tensor : file.tensors()) {
      infos.push_back(tensor.info());
      here += std::ssize(tensor.bytes());
    }
    bytes += here;
    largest_file = std::max(largest_file, here);
  }

  const auto files = detail::side_files(base, tensors, settings.links, warn);
  detail::take_place(target);
  for (const FolderLeft& left : folders_left_beside(target)) warn(left.text());
  AtomicFolder folder(target);
  for (const auto& [name, from] : files) {
    std::error_code error;
    const detail::HoldSizeSignal hold;
    std::filesystem::copy_file(from, folder.path() / name, error);
    if (error) throw FileError(base / name, "cannot copy", error.value());
  }

  ShardedWriter writer(
      folder.path(), std::move(infos),
      {.max_shard_bytes = largest_file, .metadata = detail::common_metadata(tensors)});
  std::vector<MergedModule> report;
  Index done = 0;
  const auto progress = [&](Index more) {
    done += more;
    if (settings.progress) settings.progress(done, bytes);
  };
  for (const TensorInfo& info : writer.tensors()) {
    const StoredTensor tensor = tensors.tensor(info.name);
    if (const auto merge = merges.find(info.name); merge != merges.end()) {
      const ModuleUpdate<T>& update = *merge->second;
      MergedModule merged = detail::TensorMerge<T>(tensor, update).write(writer, progress);
      detail::require_rounding_error(merged, settings.most_rounding_error);
      if (info.name == update.module + ".weight") report.push_back(std::move(merged));
      continue;
    }
    const std::span<const std::byte> all = tensor.bytes();
    detail::write_pieces(writer, info.name, std::ssize(all), 1, 1, progress,
                         [&](const auto& write, Index first, Index count) {
                           const auto part = all.subspan(static_cast<std::size_t>(first),
                                                         static_cast<std::size_t>(count));
                           write(part);
                           tensor.release_pages(first, count);
                         });
    tensor.release_pages();
  }
  writer.commit();
  folder.commit();
  return report;
}

/// The same with adapters that are in memory already.
template <Real T>
[[nodiscard]] std::vector<MergedModule> merge_folder(const std::filesystem::path& base,
                                                     const std::vector<NamedAdapter<T>>& adapters,
                                                     const std::filesystem::path& target,
                                                     const MergeFolderSettings& settings = {}) {
  std::vector<ModuleUpdate<T>> updates;
  for (const NamedAdapter<T>& each : adapters) {
    // The caller's, for as long as this takes.
    const auto* const full = each.adapter.template get_if<FullAdapter<T>>();
    updates.push_back({.module = each.module,
                       .out_features = each.adapter.out_features(),
                       .in_features = each.adapter.in_features(),
                       .bias = full && full->bias().value.size() != 0,
                       .adapter = [&each] {
                         return std::shared_ptr<const AnyAdapter<T>>(std::shared_ptr<void>(),
                                                                     &each.adapter);
                       }});
  }
  return merge_folder(base, updates, target, settings);
}

}  // namespace mora::inline MORA_ABI
