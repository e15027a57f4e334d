// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <span>

#include "mora/core/matrix.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/product.hpp"
#include "mora/core/scratch.hpp"
#include "mora/operators/concepts.hpp"

namespace mora::inline MORA_ABI::detail {

struct UpdateSources;

/// The update s D(M C) of MoRA as something to add to parts of W while a product reads them, so
/// that a pass over many tokens multiplies with W + Delta W: that costs additions for each number
/// of the weight, where M costs multiply-adds for each token.
///
/// Row o of the update is the sum of its sources: entries p of z that D adds to output o, each a
/// row of s M spread over the inputs by C^T of its block. Those rows are computed once, for the
/// inputs alone that their block reads. A view, whose working memory is the calling thread's: one
/// at a time.
template <class T, class C, class D>
class MoraUpdate {
 public:
  /// Whether the operators have the optional members for it.
  [[nodiscard]] static bool possible(const C& compress) {
    return names_sources && (HasWindows<C, T> || compress.blocks() == 1);
  }
  /// M's multiply-adds for so many tokens, to the additions to W in their place, once.
  [[nodiscard]] static double work(const C& compress, const D& decompress, Index tokens) {
    const Index width = compress.blocks() * compress.side();
    const Index rows = std::max(decompress.out_features(), width);
    return double(tokens) * double(width) * double(compress.side()) /
           (double(rows) * double(reach_of(compress)));
  }
  /// Whether it costs less than multiplying tokens with M. An addition costs as much as about 5
  /// multiply-adds, and as 64 where L2 does not hold what is added (docs/results/layer_speed.md);
  /// it serves a tile of a product's rows.
  [[nodiscard]] static bool pays(const C& compress, const D& decompress, Index tokens) {
    constexpr Index in_cache = (Index{1} << 20) / Index{sizeof(T)};
    const Index numbers = compress.blocks() * compress.side() * reach_of(compress);
    if (!possible(compress) || tokens < 32 || numbers > 4 * scratch_tile) return false;
    const Index served = std::min(tokens, ProductSplit<T>::most_tile_rows);
    return work(compress, decompress, served) > (numbers > in_cache ? 64.0 : 5.0);
  }

  MoraUpdate(const C& compress, const D& decompress, const ConstMap<T>& m, T scale)
      : compress_(compress),
        decompress_(decompress),
        reach_(reach_of(compress)),
        sources_(scratch<T, UpdateSources>(compress.blocks() * compress.side(), reach_)) {
    const Index side = compress.side();
    const Index piece = std::max<Index>(1, (Index{1} << 14) / reach_);
    parallel_pieces(sources_.rows(), piece, [&](Index first, Index count) {
      for (Index p = first; p < first + count; ++p) {
        const std::span<const T> row = row_span(m, p % side);
        if constexpr (HasWindows<C, T>) {
          compress_.turn_back(p / side, row, row_span(sources_, p));
        } else {
          sources_.row(p).setZero();
          compress_.add_adjoint(row, row_span(sources_, p));
        }
        if (scale != T(1)) sources_.row(p) *= scale;
      }
    });
  }

  /// Whether W + Delta W differs from W in the part [rows, cols] that begins at (row, col).
  [[nodiscard]] bool reaches(Index row, Index col, Index rows, Index cols) const {
    bool found = false;
    for (Index o = row; o < row + rows && !found; ++o) {
      for_each_run(o, [&](const T*, Index input, Index count) {
        found = found || (input < col + cols && col < input + count);
      });
    }
    return found;
  }
  /// part += that part of Delta W.
  void add(Index row, Index col, MutableMap<T> part) const {
    for (Index i = 0; i < part.rows(); ++i) {
      T* const to = part.data() + i * part.outerStride();
      for_each_run(row + i, [&](const T* from, Index input, Index count) {
        const Index begin = std::max(input, col);
        const Index end = std::min(input + count, col + part.cols());
        for (Index j = begin; j < end; ++j) to[j - col] += from[j - input];
      });
    }
  }

 private:
  static constexpr bool names_sources = requires(const D& d) {
    d.for_each_source(Index{0}, [](Index) {});
  };
  /// How many inputs a block reads.
  [[nodiscard]] static Index reach_of(const C& compress) {
    return HasWindows<C, T> ? compress.side() : compress.in_features();
  }
  /// Calls f(numbers, input, count) for the runs that make up row `output` of the update.
  template <class F>
  void for_each_run(Index output, const F& f) const {
    if constexpr (names_sources) {
      decompress_.for_each_source(output, [&](Index p) {
        const T* const numbers = sources_.data() + p * reach_;
        if constexpr (HasWindows<C, T>) {
          for_each_window(
              compress_, p / compress_.side(),
              [&](Index input, Index from, Index count) { f(numbers + from, input, count); });
        } else {
          f(numbers, Index{0}, reach_);
        }
      });
    }
  }

  const C& compress_;
  const D& decompress_;
  Index reach_;
  MutableMap<T> sources_;  // [blocks * side, reach]
};

}  // namespace mora::inline MORA_ABI::detail
