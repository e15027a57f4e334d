// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "mora/adapters/full.hpp"
#include "mora/adapters/named_adapter.hpp"
#include "mora/core/elementwise.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/scratch.hpp"
#include "mora/io/atomic_folder.hpp"
#include "mora/io/json_object.hpp"
#include "mora/io/llama/tied_head.hpp"
#include "mora/io/peft/module_update.hpp"
#include "mora/io/sharded_tensors.hpp"
#include "mora/io/sharded_writer.hpp"

/// \file
/// Adapters merged into a checkpoint that may be larger than memory: tensor by tensor, rows at a
/// time, every dtype kept.

namespace mora::inline MORA_ABI {

/// What became of one module's update.
struct MergedModule {
  std::string module;
  Dtype dtype = Dtype::f32;
  double update_norm = 0.0;  ///< ||Delta W||_F.
  /// ||(W' - W) - Delta W||_F / ||Delta W||_F with W' as it is stored: what rounding to the dtype
  /// took from the update. 0 for a zero update.
  double rounding_error = 0.0;
};

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

/// Throws FileError where anything but an empty folder is.
inline void require_free_place(const std::filesystem::path& target) {
  std::error_code error;
  const auto status = std::filesystem::symlink_status(target, error);
  if (!std::filesystem::exists(status)) return;
  if (std::filesystem::is_directory(status) && std::filesystem::is_empty(target, error)) return;
  throw FileError(target, "is there already", EEXIST);
}

// What scratch memory is for.
struct RowsBefore;
struct RowsChange;
struct RowsAfter;
struct RowsStored;

[[nodiscard]] inline double square(double x) { return x * x; }

/// Bytes of a tensor that a thread computes, or copies, and writes at a time.
inline constexpr Index merge_piece_bytes = Index{1} << 20;

/// Calls `write_piece(write, first, count)` for pieces of `rows` rows of so many bytes, whole
/// blocks of `block` rows but for the last, on all threads; each calls `write(bytes)` with its own:
/// the system copies bytes on one thread while others compute.
template <class Progress, class WritePiece>
void write_pieces(ShardedWriter& writer, const std::string& tensor, Index rows, Index row_bytes,
                  Index block, const Progress& progress, const WritePiece& write_piece) {
  const Index piece = std::max<Index>(1, merge_piece_bytes / (row_bytes * block)) * block;
  const Index stretch = 8 * thread_count() * piece;  // progress is told in between
  for (Index first = 0; first < rows; first += stretch) {
    const Index here = std::min(stretch, rows - first);
    const AtomicFile::Room room = writer.leave(tensor, here * row_bytes);
    parallel_pieces(here, piece, [&](Index row, Index count) {
      const auto write = [&](std::span<const std::byte> bytes) {
        room.write(static_cast<std::size_t>(row * row_bytes), bytes);
      };
      write_piece(write, first + row, count);
    });
    progress(here * row_bytes);
  }
}

inline void require_rounding_error(const MergedModule& merged, double most) {
  if (merged.rounding_error <= most) return;
  throw NumericError(concat(merged.module, ": rounding to ", name_of(merged.dtype),
                            " changes the update: expected a relative error of at most ", most,
                            ", found ", merged.rounding_error));
}

/// The names under which a tied embedding may be stored twice.
inline constexpr const char* embedding_weight = "model.embed_tokens.weight";
inline constexpr const char* head_weight = "lm_head.weight";

/// The stored head of a checkpoint whose config says that it is the embedding; none where there is
/// no such config or tensor. Throws FormatError where the two have other numbers.
[[nodiscard]] inline std::optional<StoredTensor> stored_tied_head(const std::filesystem::path& base,
                                                                  const ShardedTensors& tensors) {
  const auto head = tensors.find(head_weight);
  const std::filesystem::path config = base / "config.json";
  std::error_code error;
  if (!head || !std::filesystem::exists(config, error)) return {};
  if (!JsonObject::read(config).boolean("tie_word_embeddings").value_or(false)) return {};
  require_tied_numbers(tensors.tensor(embedding_weight), *head);
  return head;
}

/// One module's new rows: made by its adapter, or as they are stored.
template <Real T>
class UpdateRows {
 public:
  explicit UpdateRows(const ModuleUpdate<T>& update) : weight_(update.weight) {
    if (!weight_) {
      adapter_ = update.adapter();
      rows_ = adapter_->out_features();
      cols_ = adapter_->in_features();
      return;
    }
    const auto& shape = weight_->shape();
    if (shape.empty() || shape.size() > 2 || weight_->size() == 0) {
      throw FormatError(weight_->file(), concat("tensor ", in_quotes(weight_->name())),
                        concat("expected a matrix or a vector, found shape ", shape_text(shape)));
    }
    weight_->require_float();
    rows_ = shape.size() == 2 ? shape[0] : 1;
    cols_ = shape.back();
  }

  [[nodiscard]] Index rows() const { return rows_; }
  [[nodiscard]] Index cols() const { return cols_; }
  [[nodiscard]] bool additive() const { return adapter_ && adapter_->additive(); }
  [[nodiscard]] bool has_bias() const {
    const auto* const full = adapter_ ? adapter_->template get_if<FullAdapter<T>>() : nullptr;
    return full && full->bias().value.size() != 0;
  }

  /// Before the first merge().
  void plan() {
    if (adapter_) merge_ = adapter_->row_merge();
  }
  /// `rows` hold the weight's from `first` on, and get the new ones.
  void merge(Index first, MutableMap<T> rows) const {
    if (merge_) return merge_->merge_rows(first, rows);
    weight_->copy_to(first * cols_,
                     std::span<T>(rows.data(), static_cast<std::size_t>(rows.size())));
  }
  /// Memory of rows that were merged.
  void release(Index first, Index count) const {
    if (!weight_) return;
    const Index row_bytes = cols_ * (bits_of(weight_->dtype()) / 8);
    weight_->release_pages(first * row_bytes, count * row_bytes);
  }

 private:
  std::shared_ptr<const AnyAdapter<T>> adapter_;
  std::unique_ptr<const typename AnyAdapter<T>::RowMerge> merge_;
  std::optional<StoredTensor> weight_;
  Index rows_ = 0;
  Index cols_ = 0;
};

/// Throws unless the update can be merged into this tensor.
template <Real T>
void require_merges(const StoredTensor& tensor, const ModuleUpdate<T>& update) {
  const UpdateRows<T> rows(update);
  if (tensor.shape().size() == 1 && rows.rows() == 1) {
    tensor.require_shape({rows.cols()});
  } else {
    tensor.require_shape({rows.rows(), rows.cols()});
  }
  tensor.require_float();
  if (rows.has_bias()) {
    throw ArgumentError(
        concat(update.module, ": merging into a folder is for weights, and it has a bias"));
  }
}

/// One module's weight, merged and written by rows.
template <Real T>
class TensorMerge {
 public:
  /// Of what require_merges has passed.
  TensorMerge(const StoredTensor& tensor, const ModuleUpdate<T>& update)
      : tensor_(tensor), module_(update.module), rows_(update) {
    rows_.plan();
  }

  template <class Progress>
  [[nodiscard]] MergedModule write(ShardedWriter& writer, const Progress& progress) {
    MergedModule result{.module = module_, .dtype = tensor_.dtype()};
    (void)with_type_of(tensor_.dtype(), [&]<class Stored>(Stored) {
      result = write_as<Stored>(writer, progress, std::move(result));
    });
    // With the pages that two pieces share.
    tensor_.release_pages();
    rows_.release(0, rows_.rows());
    return result;
  }

 private:
  /// Every number is converted once, merged, and rounded once.
  template <class Stored, class Progress>
  [[nodiscard]] MergedModule write_as(ShardedWriter& writer, const Progress& progress,
                                      MergedModule result) {
    const Index rows = rows_.rows();
    const Index cols = rows_.cols();
    const Index block = std::max<Index>(1, (Index{1} << 14) / cols);
    // Of each block, so that threads do not matter.
    std::vector<std::pair<double, double>> sums(
        static_cast<std::size_t>((rows + block - 1) / block));
    const auto merge_piece = [&](const auto& write, Index first, Index count) {
      auto& stored = kept<std::vector<Stored>, RowsStored>();
      stored.resize(static_cast<std::size_t>(count * cols));
      for (Index row = 0; row < count; row += block) {
        sums[static_cast<std::size_t>((first + row) / block)] =
            merge_rows(first + row, std::min(block, count - row),
                       std::span(stored).subspan(static_cast<std::size_t>(row * cols)));
      }
      write(std::as_bytes(std::span(stored)));
      const Index row_bytes = cols * Index{sizeof(Stored)};
      tensor_.release_pages(first * row_bytes, count * row_bytes);
      rows_.release(first, count);
    };
    write_pieces(writer, tensor_.name(), rows, cols * Index{sizeof(Stored)}, block, progress,
                 merge_piece);
    std::pair<double, double> sum;
    for (const auto& [update, lost] : sums) {
      sum.first += update;
      sum.second += lost;
    }
    result.update_norm = std::sqrt(sum.first);
    result.rounding_error = sum.first > 0.0 ? std::sqrt(sum.second / sum.first) : 0.0;
    return result;
  }

  /// Sums of squares, in double: of the update and of what rounding takes from it. An additive
  /// adapter makes its update apart from the weight, in which T might lose all of it.
  template <class Stored>
  [[nodiscard]] std::pair<double, double> merge_rows(Index first, Index number,
                                                     std::span<Stored> stored) const {
    const Index cols = rows_.cols();
    const Index count = number * cols;
    const bool additive = rows_.additive();
    MutableMap<T> before_rows = scratch<T, RowsBefore>(number, cols);
    MutableMap<T> change_rows = scratch<T, RowsChange>(number, cols);
    MutableMap<T> after_rows = scratch<T, RowsAfter>(number, cols);
    T* const before = before_rows.data();
    T* const change = change_rows.data();
    T* const after = after_rows.data();
    tensor_.copy_to(first * cols, std::span<T>(before, static_cast<std::size_t>(count)));
    if (additive) {
      change_rows.setZero();
      rows_.merge(first, change_rows);
      // x + -0 is x, also where that is -0.
      for (Index i = 0; i < count; ++i) change[i] = change[i] == T(0) ? T(-0.0) : change[i];
      after_rows = before_rows + change_rows;
    } else {
      after_rows = before_rows;
      rows_.merge(first, after_rows);
      change_rows = after_rows;  // what it is to become
    }
    const std::span<Stored> rounded = stored.first(static_cast<std::size_t>(count));
    convert(std::span<const T>(after, rounded.size()), rounded);
    convert(std::span<const Stored>(rounded), std::span<T>(after, rounded.size()));
    if (!all_finite(after_rows)) {
      throw NumericError(concat(module_, ": the merged weight has numbers that are not finite, ",
                                "or beyond ", name_of(tensor_.dtype())));
    }
    const auto sum = [count](const auto& term) { return sum_of<double>(count, term); };
    const auto number_of = [](const T* numbers, Index i) { return double{numbers[i]}; };
    if (additive) {
      return {sum([=](Index i) { return square(number_of(change, i)); }), sum([=](Index i) {
                return square(number_of(after, i) - number_of(before, i) - number_of(change, i));
              })};
    }
    return {sum([=](Index i) { return square(number_of(change, i) - number_of(before, i)); }),
            sum([=](Index i) { return square(number_of(after, i) - number_of(change, i)); })};
  }

  StoredTensor tensor_;
  std::string module_;
  UpdateRows<T> rows_;
};

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
    } else if (file.extension() == ".safetensors" || file.extension() == ".bin") {
      stays("as it may have weights that are not merged");
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
    if (detail::stored_tied_head(base, tensors)) {
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
  detail::require_free_place(target);
  for (const FolderLeft& left : folders_left_beside(target)) warn(left.text());
  AtomicFolder folder(target);
  for (const auto& [name, from] : files) {
    std::error_code error;
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
    updates.push_back({.module = each.module, .adapter = [&each] {
                         return std::shared_ptr<const AnyAdapter<T>>(std::shared_ptr<void>(),
                                                                     &each.adapter);
                       }});
  }
  return merge_folder(base, updates, target, settings);
}

}  // namespace mora::inline MORA_ABI
