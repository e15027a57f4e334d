// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "mora/core/buffer.hpp"
#include "mora/core/elementwise.hpp"
#include "mora/core/lines.hpp"
#include "mora/core/product.hpp"
#include "mora/core/register_block.hpp"
#include "mora/core/scratch.hpp"
#include "mora/models/layers/causal_tile.hpp"
#include "mora/models/layers/swiglu.hpp"

/// \file
/// Causal attention block by block, with memory that grows linearly with length (Dao et al. 2022,
/// arXiv 2205.14135): a tile of scores at a time, a running maximum and sum for the softmax, and
/// one number a row (the logarithm of its sum) from which the backward pass gets the scores again.
/// Functions treat one head of one sequence; the callers share those out among threads.

namespace mora::inline MORA_ABI::detail {

struct ScoreTile;
struct ScoreGradientTile;
struct RunningSoftmax;
struct OutputDotGradient;
struct PackedKeys;
struct PackedValues;

/// Sides of the tiles that cut `length` evenly, none above `most`.
[[nodiscard]] inline Index attention_tile(Index length, Index most) {
  const Index tiles = (length + most - 1) / most;
  return (length + tiles - 1) / tiles;
}

inline constexpr Index most_queries = 48;
inline constexpr Index most_keys = 128;

/// A tile whose rows are whole vectors, of which exponentials are taken too: what lies behind the
/// last key is never read as a number.
template <class T, class Purpose>
[[nodiscard]] MutableMap<T> score_tile(const CausalTile& tile) {
  return scratch<T, Purpose>(tile.queries, whole_vectors(tile.keys));
}

/// Rows of x packed as columns for the kernel, and those from `first` on, a whole number of panels.
template <class Purpose, class T>
[[nodiscard]] Panels<T> rows_as_columns(const ConstMap<T>& x) {
  T* const to = scratch<T, Purpose>(packed_size<T>(x.rows(), x.cols()));
  return pack_panels_of_transposed(to, x);
}
template <class T>
[[nodiscard]] Panels<T> columns_from(const Panels<T>& x, Index first) {
  return {x.data + first / panel_cols<T> * x.panel_stride, x.panel_stride, x.depth_stride};
}

/// row[j] = exp(row[j] - shift) for the first `visible` numbers of a row, zero for others up to
/// `size`, which is a number of whole vectors.
template <class T>
void exponentials(T* row, Index visible, Index size, T shift) {
  RowArray<T> whole(row, whole_vectors(visible));
  whole = (whole - shift).exp();
  std::fill(row + visible, row + size, T(0));
}

/// out [queries, d] = softmax(scale q k^T, causal) v for q [queries, d] at positions past,
/// past + 1, ..., and k, v [past + queries, d]. `log_sum`, unless null, keeps log sum exp of every
/// row, at a distance of log_sum_stride.
template <class T>
void attention_forward(const ConstMap<T>& q, const ConstMap<T>& k, const ConstMap<T>& v, T scale,
                       MutableMap<T> out, T* log_sum, Index log_sum_stride) {
  const Index past = k.rows() - q.rows();
  const Index query_tile = attention_tile(q.rows(), most_queries);
  const Index key_tile = whole_panels<T>(attention_tile(k.rows(), most_keys));
  const bool single = q.rows() == 1 && past > 0;  // packing keys would be most of the work
  const Panels<T> key_columns = single ? Panels<T>{} : rows_as_columns<PackedKeys>(k);
  if (single) out.setZero();
  for (Index q0 = 0; q0 < q.rows(); q0 += query_tile) {
    const Index queries = std::min(query_tile, q.rows() - q0);
    const ConstMap<T> q_tile = rows_of(q, q0, queries);
    MutableMap<T> out_tile = rows_of(out, q0, queries);
    T* const largest = scratch<T, RunningSoftmax>(2 * queries);
    T* const sum = largest + queries;
    std::fill_n(largest, queries, -std::numeric_limits<T>::infinity());
    std::fill_n(sum, queries, T(0));
    const Index seen = past + q0 + queries;  // by the last query
    for (Index k0 = 0; k0 < seen; k0 += key_tile) {
      const CausalTile tile{past + q0, queries, k0, std::min(key_tile, seen - k0)};
      MutableMap<T> scores = score_tile<T, ScoreTile>(tile);
      if (single) {
        scores.setZero();
        add_product<Operand::plain, Operand::transposed, T>(columns_of(scores, 0, tile.keys), scale,
                                                            q, rows_of(k, k0, tile.keys));
      } else {
        tile.scores(scores, scale, q_tile, columns_from(key_columns, k0));
      }
      for (Index i = 0; i < queries; ++i) {
        const Index visible = tile.visible(i);
        T* const row = scores.data() + i * scores.outerStride();
        if (visible == 0) {
          std::fill_n(row, scores.cols(), T(0));
          continue;
        }
        const T top = std::max(largest[i], RowArray<T>(row, visible).maxCoeff());
        exponentials(row, visible, scores.cols(), top);
        const Index whole = whole_vectors(visible);
        const T added = sum_of<T>(whole, [=](Index j) { return row[j]; });
        if (k0 > 0) {
          const T keep = std::exp(largest[i] - top);
          sum[i] *= keep;
          out_tile.row(i) *= keep;
        }
        sum[i] += added;
        largest[i] = top;
      }
      const ConstMap<T> v_tile = rows_of(v, k0, tile.keys);
      if (single) {
        add_product<Operand::plain, Operand::plain, T>(
            out, T(1), as_const(columns_of(scores, 0, tile.keys)), v_tile);
      } else if (k0 > 0) {
        tile.weighted<true>(out_tile, T(1), as_const(scores), v_tile);
      } else {
        tile.weighted<false>(out_tile, T(1), as_const(scores), v_tile);
      }
    }
    for (Index i = 0; i < queries; ++i) {
      out_tile.row(i) *= T(1) / sum[i];
      if (log_sum) log_sum[(q0 + i) * log_sum_stride] = largest[i] + std::log(sum[i]);
    }
  }
}

/// Adds to dq, dk and dv, for a forward pass without past: with P = exp(scale q k^T - log_sum),
/// dv += P^T dout, dS = P (dout v^T - rowsum(dout out)), dq += scale dS k, dk += scale dS^T q.
template <class T>
void attention_add_backward(const ConstMap<T>& q, const ConstMap<T>& k, const ConstMap<T>& v,
                            T scale, const ConstMap<T>& out, const T* log_sum, Index log_sum_stride,
                            const ConstMap<T>& dout, MutableMap<T> dq, MutableMap<T> dk,
                            MutableMap<T> dv) {
  const Index length = q.rows();
  const Index query_tile = attention_tile(length, most_queries);
  const Index key_tile = whole_panels<T>(attention_tile(length, most_keys));
  const Panels<T> key_columns = rows_as_columns<PackedKeys>(k);
  const Panels<T> value_columns = rows_as_columns<PackedValues>(v);
  T* const along = scratch<T, OutputDotGradient>(length);
  for (Index i = 0; i < length; ++i) {
    along[i] =
        dot(out.data() + i * out.outerStride(), dout.data() + i * dout.outerStride(), out.cols());
  }
  for (Index q0 = 0; q0 < length; q0 += query_tile) {
    const Index queries = std::min(query_tile, length - q0);
    const ConstMap<T> q_tile = rows_of(q, q0, queries);
    const ConstMap<T> dout_tile = rows_of(dout, q0, queries);
    const Index end = q0 + queries;  // of the keys that the last query sees
    for (Index k0 = 0; k0 < end; k0 += key_tile) {
      const CausalTile tile{q0, queries, k0, std::min(key_tile, end - k0)};
      MutableMap<T> p = score_tile<T, ScoreTile>(tile);
      MutableMap<T> ds = score_tile<T, ScoreGradientTile>(tile);
      tile.scores(p, scale, q_tile, columns_from(key_columns, k0));
      tile.scores(ds, T(1), dout_tile, columns_from(value_columns, k0));
      for (Index i = 0; i < queries; ++i) {
        const Index visible = tile.visible(i);
        T* const p_row = p.data() + i * p.outerStride();
        T* const ds_row = ds.data() + i * ds.outerStride();
        exponentials(p_row, visible, p.cols(), log_sum[(q0 + i) * log_sum_stride]);
        for (Index j = 0; j < visible; ++j) ds_row[j] = p_row[j] * (ds_row[j] - along[q0 + i]);
        std::fill(ds_row + visible, ds_row + ds.cols(), T(0));
      }
      tile.add_by_keys(rows_of(dv, k0, tile.keys), T(1), as_const(p), dout_tile);
      tile.weighted<true>(rows_of(dq, q0, queries), scale, as_const(ds), rows_of(k, k0, tile.keys));
      tile.add_by_keys(rows_of(dk, k0, tile.keys), scale, as_const(ds), q_tile);
    }
  }
}

}  // namespace mora::inline MORA_ABI::detail
