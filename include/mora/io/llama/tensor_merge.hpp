// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "mora/core/elementwise.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/scratch.hpp"
#include "mora/io/peft/module_update.hpp"
#include "mora/io/sharded_writer.hpp"

/// \file
/// One tensor of a file merged into another, rows at a time, with the dtype kept.

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

namespace detail {

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

/// One module's new rows: made by its adapter, or as they are stored.
template <Real T>
class UpdateRows {
 public:
  explicit UpdateRows(const ModuleUpdate<T>& update)
      : weight_(update.weight), rows_(update.out_features), cols_(update.in_features) {
    if (weight_) return;
    adapter_ = update.adapter();
    require_size("update, out_features of its adapter", rows_, adapter_->out_features());
    require_size("update, in_features of its adapter", cols_, adapter_->in_features());
    merge_ = adapter_->row_merge();
  }

  [[nodiscard]] Index rows() const { return rows_; }
  [[nodiscard]] Index cols() const { return cols_; }
  [[nodiscard]] bool additive() const { return adapter_ && adapter_->additive(); }

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
  Index rows_;
  Index cols_;
};

/// Throws unless the update can be merged into this tensor.
template <Real T>
void require_merges(const StoredTensor& tensor, const ModuleUpdate<T>& update) {
  for (const StoredTensor* each : {&tensor, update.weight ? &*update.weight : nullptr}) {
    if (!each) continue;
    if (each->shape().size() == 1 && update.out_features == 1) {
      each->require_shape({update.in_features});
    } else {
      each->require_shape({update.out_features, update.in_features});
    }
    each->require_float();
  }
  if (update.bias) {
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
      : tensor_(tensor), module_(update.module), rows_(update) {}

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

}  // namespace detail
}  // namespace mora::inline MORA_ABI
