// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <span>

#include "mora/core/buffer.hpp"
#include "mora/core/matrix.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/product.hpp"
#include "mora/core/scratch.hpp"
#include "mora/operators/concepts.hpp"

namespace mora::inline MORA_ABI::detail {

// What its working memory is for.
struct UpdateSources;
struct BlockGradient;
struct TurnedRow;

/// Whether every block of C is a square matrix times inputs that follow one another.
template <class C, class T>
concept HasWindows = requires(const C& c, std::span<const T> z, std::span<T> to) {
  c.first_input(Index{0});
  c.turn(Index{0}, z, to);
  c.turn_back(Index{0}, z, to);
};

/// Calls f(input, from, count) for the inputs that a block reads: those from `input` on are its own
/// from `from` on.
template <class C, class F>
void for_each_window(const C& compress, Index block, const F& f) {
  Index input = compress.first_input(block);
  for (Index from = 0; from < compress.side(); input = 0) {
    const Index count = std::min(compress.side() - from, compress.in_features() - input);
    f(input, from, count);
    from += count;
  }
}

/// Takes the memory that add_window_gradient will need: after it, it does not throw.
template <class T, HasWindows<T> C>
void reserve_window_gradient(const C& compress, Index tokens) {
  (void)scratch<T, BlockGradient>(compress.side(), compress.side());
  (void)scratch<T, TurnedRow>(1, compress.side());
  for (Index block = 0; block < compress.blocks(); ++block) {
    for_each_window(compress, block, [&](Index, Index, Index count) {
      reserve_product<T>(compress.side(), count, tokens);
    });
  }
}

/// dm += s sum over tokens and blocks of g (C x)^T, for g = D^T dy [tokens, blocks * side]: with C
/// x = R x in a block, the sum is taken of the inputs as they are, and its rows are turned at the
/// end.
template <class T, HasWindows<T> C>
void add_window_gradient(MutableMap<T> dm, T scale, const C& compress, const ConstMap<T>& g,
                         const ConstMap<T>& x) {
  const Index side = compress.side();
  MutableMap<T> sum = scratch<T, BlockGradient>(side, side);
  MutableMap<T> turned = scratch<T, TurnedRow>(1, side);
  for (Index block = 0; block < compress.blocks(); ++block) {
    sum.setZero();
    const ConstMap<T> own = columns_of(g, block * side, side);
    for_each_window(compress, block, [&](Index input, Index from, Index count) {
      add_product<Operand::transposed, Operand::plain, T>(columns_of(sum, from, count), scale, own,
                                                          columns_of(x, input, count));
    });
    for (Index i = 0; i < side; ++i) {
      compress.turn(block, row_span(as_const(sum), i), row_span(turned, 0));
      dm.row(i) += turned.row(0);
    }
  }
}

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
  /// Numbers of working memory.
  [[nodiscard]] static Index size(const C& compress) {
    return compress.blocks() * compress.side() * reach_of(compress);
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
