// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "mora/core/buffer.hpp"
#include "mora/core/elementwise.hpp"
#include "mora/core/lines.hpp"
#include "mora/core/product.hpp"
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

/// Sides of the tiles that cut `length` evenly, none above `most`.
[[nodiscard]] inline Index attention_tile(Index length, Index most) {
  const Index tiles = (length + most - 1) / most;
  return (length + tiles - 1) / tiles;
}

inline constexpr Index most_queries = 48;
inline constexpr Index most_keys = 128;

/// A tile [queries, keys] whose rows begin on whole vectors: their exponentials are taken of whole
/// vectors too, and what lies behind the last key is never read as a number.
template <class T, class Purpose>
[[nodiscard]] MutableMap<T> zero_tile(Index queries, Index keys) {
  const Index stride = whole_vectors(keys);
  T* const numbers = scratch<T, Purpose>(queries * stride);
  std::fill_n(numbers, queries * stride, T(0));
  return {numbers, queries, keys, Eigen::OuterStride<>(stride)};
}

/// scores = scale q k^T, [queries, keys].
template <class T>
[[nodiscard]] MutableMap<T> scores_of(const ConstMap<T>& q, const ConstMap<T>& k, T scale) {
  MutableMap<T> scores = zero_tile<T, ScoreTile>(q.rows(), k.rows());
  add_product<Operand::plain, Operand::transposed, T>(scores, scale, q, k);
  return scores;
}

/// row[j] = exp(row[j] - shift) for the first `visible` numbers of a row, zero for others up to
/// `size`, which is a number of whole vectors.
template <class T>
void exponentials(T* row, Index visible, Index size, T shift) {
  RowArray<T> whole(row, whole_vectors(visible));
  whole = (whole - shift).exp();
  std::fill(row + visible, row + size, T(0));
}

/// How many of `keys` keys from `first_key` on the query at `position` may see.
[[nodiscard]] inline Index visible_keys(Index position, Index first_key, Index keys) {
  return std::clamp<Index>(position + 1 - first_key, 0, keys);
}

/// out [queries, d] = softmax(scale q k^T, causal) v for q [queries, d] at positions past,
/// past + 1, ..., and k, v [past + queries, d]. `log_sum`, unless null, keeps log sum exp of every
/// row, at a distance of log_sum_stride.
template <class T>
void attention_forward(const ConstMap<T>& q, const ConstMap<T>& k, const ConstMap<T>& v, T scale,
                       MutableMap<T> out, T* log_sum, Index log_sum_stride) {
  const Index past = k.rows() - q.rows();
  const Index query_tile = attention_tile(q.rows(), most_queries);
  const Index key_tile = attention_tile(k.rows(), most_keys);
  out.setZero();
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
      const Index keys = std::min(key_tile, seen - k0);
      MutableMap<T> scores = scores_of<T>(q_tile, rows_of(k, k0, keys), scale);
      for (Index i = 0; i < queries; ++i) {
        const Index visible = visible_keys(past + q0 + i, k0, keys);
        T* const row = scores.data() + i * scores.outerStride();
        if (visible == 0) {
          std::fill_n(row, keys, T(0));
          continue;
        }
        const T top = std::max(largest[i], RowArray<T>(row, visible).maxCoeff());
        exponentials(row, visible, scores.outerStride(), top);
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
      add_product<Operand::plain, Operand::plain, T>(out_tile, T(1), as_const(scores),
                                                     rows_of(v, k0, keys));
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
  const Index key_tile = attention_tile(length, most_keys);
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
      const Index keys = std::min(key_tile, end - k0);
      const ConstMap<T> k_tile = rows_of(k, k0, keys);
      MutableMap<T> p = scores_of<T>(q_tile, k_tile, scale);
      for (Index i = 0; i < queries; ++i) {
        const Index visible = visible_keys(q0 + i, k0, keys);
        exponentials(p.data() + i * p.outerStride(), visible, p.outerStride(),
                     log_sum[(q0 + i) * log_sum_stride]);
      }
      add_product<Operand::transposed, Operand::plain, T>(rows_of(dv, k0, keys), T(1), as_const(p),
                                                          dout_tile);
      MutableMap<T> ds = zero_tile<T, ScoreGradientTile>(queries, keys);
      add_product<Operand::plain, Operand::transposed, T>(ds, T(1), dout_tile,
                                                          rows_of(v, k0, keys));
      for (Index i = 0; i < queries; ++i) {
        T* const d_row = ds.data() + i * ds.outerStride();
        const T* const p_row = p.data() + i * p.outerStride();
        for (Index j = 0; j < p.outerStride(); ++j) {
          d_row[j] = p_row[j] * (d_row[j] - along[q0 + i]);
        }
      }
      add_product<Operand::plain, Operand::plain, T>(rows_of(dq, q0, queries), scale, as_const(ds),
                                                     k_tile);
      add_product<Operand::transposed, Operand::plain, T>(rows_of(dk, k0, keys), scale,
                                                          as_const(ds), q_tile);
    }
  }
}

}  // namespace mora::inline MORA_ABI::detail
