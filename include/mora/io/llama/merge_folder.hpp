// SPDX-License-Identifier: MIT
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstdint>
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
#include "mora/io/sharded_tensors.hpp"
#include "mora/io/sharded_writer.hpp"

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

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
  /// Symbolic links out of the folder and hard ones, as in Hugging Face's cache, are followed.
  bool links = false;
  /// The largest MergedModule::rounding_error that is not refused; by default there is none.
  double most_rounding_error = std::numeric_limits<double>::infinity();
  /// Called now and then with bytes written so far and in all.
  std::function<void(Index, Index)> progress = {};
};

namespace detail {

/// Gives the memory of pages of a mapped file back; they are read again when they are used. Only
/// for bytes of a mapping: other memory would lose its contents.
inline void release_mapped(std::span<const std::byte> bytes) {
#if __has_include(<sys/mman.h>)
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<std::uintptr_t>(bytes.data());
  const std::uintptr_t first = (address + page - 1) / page * page;
  const std::uintptr_t last = (address + bytes.size()) / page * page;
  // Advice: where it is refused, more memory stays in use.
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
#else
  (void)bytes;
#endif
}

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

/// One module's weight, merged and written by rows.
template <Real T>
class TensorMerge {
 public:
  TensorMerge(const StoredTensor& tensor, const NamedAdapter<T>& adapter)
      : tensor_(tensor), adapter_(adapter), merge_(adapter.adapter.row_merge()) {
    const Index rows = adapter.adapter.out_features();
    const Index cols = adapter.adapter.in_features();
    if (tensor.shape().size() == 1 && rows == 1) {
      tensor.require_shape({cols});
    } else {
      tensor.require_shape({rows, cols});
    }
    tensor.require_float();
    const auto* const full = adapter.adapter.template get_if<FullAdapter<T>>();
    if (full && full->bias().value.size() != 0) {
      throw ArgumentError(
          concat(adapter.module, ": merging into a folder is for weights, and it has a bias"));
    }
  }

  /// The tensor's, which may be a tied one's.
  [[nodiscard]] bool own() const { return tensor_.name() == adapter_.module + ".weight"; }

  template <class Progress>
  [[nodiscard]] MergedModule write(ShardedWriter& writer, const Progress& progress) {
    MergedModule result{.module = adapter_.module, .dtype = tensor_.dtype()};
    (void)with_type_of(tensor_.dtype(), [&]<class Stored>(Stored) {
      result = write_as<Stored>(writer, progress, std::move(result));
    });
    return result;
  }

 private:
  /// Every number is converted once, merged, and rounded once.
  template <class Stored, class Progress>
  [[nodiscard]] MergedModule write_as(ShardedWriter& writer, const Progress& progress,
                                      MergedModule result) {
    const Index rows = adapter_.adapter.out_features();
    const Index cols = adapter_.adapter.in_features();
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
      const auto row_bytes = static_cast<std::size_t>(cols) * sizeof(Stored);
      release_mapped(tensor_.bytes().subspan(static_cast<std::size_t>(first) * row_bytes,
                                             static_cast<std::size_t>(count) * row_bytes));
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
    const Index cols = adapter_.adapter.in_features();
    const Index count = number * cols;
    const bool additive = adapter_.adapter.additive();
    MutableMap<T> before_rows = scratch<T, RowsBefore>(number, cols);
    MutableMap<T> change_rows = scratch<T, RowsChange>(number, cols);
    MutableMap<T> after_rows = scratch<T, RowsAfter>(number, cols);
    T* const before = before_rows.data();
    T* const change = change_rows.data();
    T* const after = after_rows.data();
    tensor_.copy_to(first * cols, std::span<T>(before, static_cast<std::size_t>(count)));
    if (additive) {
      change_rows.setZero();
      merge_->merge_rows(first, change_rows);
      // x + -0 is x, also where that is -0.
      for (Index i = 0; i < count; ++i) change[i] = change[i] == T(0) ? T(-0.0) : change[i];
      after_rows = before_rows + change_rows;
    } else {
      after_rows = before_rows;
      merge_->merge_rows(first, after_rows);
      change_rows = after_rows;  // what it is to become
    }
    const std::span<Stored> rounded = stored.first(static_cast<std::size_t>(count));
    convert(std::span<const T>(after, rounded.size()), rounded);
    convert(std::span<const Stored>(rounded), std::span<T>(after, rounded.size()));
    if (!all_finite(after_rows)) {
      throw NumericError(concat(adapter_.module,
                                ": the merged weight has numbers that are not finite, ",
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
  const NamedAdapter<T>& adapter_;
  std::unique_ptr<const typename AnyAdapter<T>::RowMerge> merge_;
};

}  // namespace detail

/// Writes the checkpoint in `base` (a folder with model.safetensors or shards) with adapters merged
/// into it as the new folder `target`, in shards no larger than the base's; other files of the base
/// (config, tokenizer) are copied. The merge is in T: with double it is rounded once to each
/// tensor's dtype; float is faster, and differs for F16 and BF16 only where its own rounding leads
/// half-way between two of the dtype's numbers. The folder appears whole or not at all; `target`
/// must not be there, or be empty. A head that config.json ties to the embedding, and that is
/// stored all the same, gets the embedding's adapter too.
///
/// Memory: pieces of 1 MiB and the adapters, whatever the size of the checkpoint. Time: see
/// docs/results/merge_folder.md.
///
/// Throws ArgumentError for a module that the checkpoint does not have, that is named twice, is a
/// tied head, or whose adapter has trained a bias; FormatError for one of another shape or a dtype
/// that is not converted, and for a tied head of other numbers than the embedding's; NumericError
/// naming the module for a merged number that is not finite or that the dtype cannot hold, and for
/// a rounding error beyond the setting;
/// FileError where the system refuses.
template <Real T>
[[nodiscard]] std::vector<MergedModule> merge_folder(const std::filesystem::path& base,
                                                     const std::vector<NamedAdapter<T>>& adapters,
                                                     const std::filesystem::path& target,
                                                     const MergeFolderSettings& settings = {}) {
  const ShardedTensors tensors(base, {.access = FileAccess::mapped, .links = settings.links});
  std::map<std::string, detail::TensorMerge<T>> merges;
  for (const NamedAdapter<T>& adapter : adapters) {
    const std::string name = adapter.module + ".weight";
    const auto tensor = tensors.find(name);
    if (!tensor) {
      throw ArgumentError(detail::concat(base.string(), ": there is no tensor ",
                                         detail::in_quotes(name), " for the adapter of ",
                                         adapter.module));
    }
    if (!merges.emplace(name, detail::TensorMerge<T>(*tensor, adapter)).second) {
      throw ArgumentError(detail::concat(adapter.module, ": has two adapters"));
    }
  }
  if (merges.contains(detail::head_weight) || merges.contains(detail::embedding_weight)) {
    if (const auto head = detail::stored_tied_head(base, tensors)) {
      if (merges.contains(detail::head_weight)) {
        throw ArgumentError(
            "lm_head: is tied to model.embed_tokens in this checkpoint, and has no adapter of its "
            "own");
      }
      // Both stay equal, whichever of them a reader takes.
      const NamedAdapter<T>& adapter =
          *std::ranges::find(adapters, "model.embed_tokens", &NamedAdapter<T>::module);
      merges.emplace(detail::head_weight, detail::TensorMerge<T>(*head, adapter));
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

  detail::require_free_place(target);
  AtomicFolder folder(target);
  std::set<std::filesystem::path> weights = {base / "model.safetensors.index.json"};
  for (const SafetensorsFile& file : tensors.files()) weights.insert(base / file.path().filename());
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(base, error)) {
    if (weights.contains(entry.path()) || !entry.is_regular_file()) continue;
    if (entry.path().extension() == ".safetensors" || entry.path().extension() == ".bin") continue;
    std::filesystem::copy_file(entry.path(), folder.path() / entry.path().filename(), error);
    if (error) throw FileError(entry.path(), "cannot copy", error.value());
  }
  if (error) throw FileError(base, "cannot read this folder", error.value());

  ShardedWriter writer(folder.path(), std::move(infos), {.max_shard_bytes = largest_file});
  std::vector<MergedModule> report;
  Index done = 0;
  const auto progress = [&](Index more) {
    done += more;
    if (settings.progress) settings.progress(done, bytes);
  };
  for (const TensorInfo& info : writer.tensors()) {
    const StoredTensor tensor = tensors.tensor(info.name);
    if (const auto merge = merges.find(info.name); merge != merges.end()) {
      MergedModule merged = merge->second.write(writer, progress);
      detail::require_rounding_error(merged, settings.most_rounding_error);
      if (merge->second.own()) report.push_back(std::move(merged));
      detail::release_mapped(tensor.bytes());  // with the pages that two pieces share
      continue;
    }
    const std::span<const std::byte> all = tensor.bytes();
    detail::write_pieces(writer, info.name, std::ssize(all), 1, 1, progress,
                         [&](const auto& write, Index first, Index count) {
                           const auto part = all.subspan(static_cast<std::size_t>(first),
                                                         static_cast<std::size_t>(count));
                           write(part);
                           detail::release_mapped(part);
                         });
    detail::release_mapped(all);
  }
  writer.commit();
  folder.commit();
  return report;
}

}  // namespace mora::inline MORA_ABI
