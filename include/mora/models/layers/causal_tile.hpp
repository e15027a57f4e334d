// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "mora/core/lines.hpp"
#include "mora/core/product.hpp"
#include "mora/core/register_block.hpp"
#include "mora/core/scratch.hpp"

namespace mora::inline MORA_ABI::detail {

struct RightFactor;

// Rows of scores are as long as what the kernel writes of them.
static_assert(vector_numbers % vector_lanes<float> == 0);

/// b [depth, cols] for the kernel: in its place where its rows end with a vector, else packed.
template <class T>
[[nodiscard]] Panels<T> panels_of(const ConstMap<T>& b) {
  if (b.cols() % vector_lanes<T> == 0) return {b.data(), panel_cols<T>, b.outerStride()};
  return pack_panels(scratch<T, RightFactor>(packed_size<T>(b.cols(), b.rows())), b);
}

/// A tile of the scores of queries at positions first_query, ... for keys at first_key, ...: of
/// every six rows, products leave out the columns that none of them sees.
struct CausalTile {
  Index first_query;
  Index queries;
  Index first_key;
  Index keys;

  /// How many of the keys query i may see.
  [[nodiscard]] Index visible(Index i) const {
    return std::clamp<Index>(first_query + i + 1 - first_key, 0, keys);
  }
  /// The first query that may see key j.
  [[nodiscard]] Index first_seeing(Index j) const {
    return std::clamp<Index>(first_key + j - first_query, 0, queries);
  }

  /// scores [queries, keys] = scale q k^T, as far as queries see, in whole vectors: rows of scores
  /// are no shorter. k is packed as columns, from the tile's first key on.
  template <class T>
  void scores(MutableMap<T> scores, T scale, const ConstMap<T>& q, const Panels<T>& k) const {
    for_each_row_block(queries, [&](Index i, Index rows) {
      multiply_rows<false>(scores.data() + i * scores.outerStride(), scores.outerStride(), rows,
                           whole_lanes<T>(visible(i + rows - 1)), scale,
                           {q.data() + i * q.outerStride(), q.outerStride(), 1}, k, q.cols());
    });
  }
  /// out [queries, d] = alpha p v, or += that, for p that is zero where queries do not see.
  template <bool adds, class T>
  void weighted(MutableMap<T> out, T alpha, const ConstMap<T>& p, const ConstMap<T>& v) const {
    const Panels<T> panels = panels_of(v);
    for_each_row_block(queries, [&](Index i, Index rows) {
      multiply_rows<adds>(out.data() + i * out.outerStride(), out.outerStride(), rows, v.cols(),
                          alpha, {p.data() + i * p.outerStride(), p.outerStride(), 1}, panels,
                          visible(i + rows - 1));
    });
  }
  /// out [keys, d] += alpha p^T g for g [queries, d].
  template <class T>
  void add_by_keys(MutableMap<T> out, T alpha, const ConstMap<T>& p, const ConstMap<T>& g) const {
    const Panels<T> panels = panels_of(g);
    for_each_row_block(keys, [&](Index j, Index rows) {
      const Index first = first_seeing(j);
      multiply_rows<true>(
          out.data() + j * out.outerStride(), out.outerStride(), rows, g.cols(), alpha,
          {p.data() + first * p.outerStride() + j, 1, p.outerStride()},
          {panels.data + first * panels.depth_stride, panels.panel_stride, panels.depth_stride},
          queries - first);
    });
  }
};

}  // namespace mora::inline MORA_ABI::detail
