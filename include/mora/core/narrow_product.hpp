// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "mora/core/matrix.hpp"
#include "mora/core/operand.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/product.hpp"
#include "mora/core/scratch.hpp"
#include "mora/core/vectors.hpp"

/// \file
/// Products of many tokens with a factor of about as many columns as a vector has numbers.
/// Packing a large factor takes as long as multiplying it with so few columns, and a general block
/// would be half empty (docs/results/train_step.md). All other sizes are add_product's.

namespace mora::inline MORA_ABI::detail {

struct NarrowFactor;

/// The vectors of these products, whatever the processor has, and their numbers.
inline constexpr int narrow_bytes = 32;
template <class T>
inline constexpr Index narrow_lanes = narrow_bytes / Index{sizeof(T)};

/// With fewer tokens the narrow factor would take longer to prepare.
inline constexpr Index narrow_tokens = 32;
/// Whether a factor of so many columns is multiplied here: with fewer most of a vector would be
/// zeros, and with more add_product is as fast.
template <class T>
[[nodiscard]] bool is_narrow(Index tokens, Index columns) {
  return tokens >= narrow_tokens && columns <= narrow_lanes<T> && 2 * columns >= narrow_lanes<T>;
}

/// How much of a depth is summed in one go, of which equal parts are: rows of a large factor, or
/// parts of them, that stay in L1, and few enough for a float's digits.
[[nodiscard]] inline Index narrow_depth(Index depth) {
  constexpr Index most = 192;
  const Index parts = std::max<Index>(1, (depth + most - 1) / most);
  return (depth + parts - 1) / parts;
}

/// How many rows or columns of a narrow product are worth a thread, in whole blocks.
[[nodiscard]] inline Index narrow_piece(Index depth, Index block) {
  return std::max<Index>(1, (Index{1} << 14) / (block * depth)) * block;
}

/// op(v) [depth, r] in rows of a vector each, filled up with zeros: v itself where it is that.
template <Operand OpV, class T>
[[nodiscard]] const T* narrow_factor(const ConstMap<T>& v) {
  constexpr bool plain = OpV == Operand::plain;
  constexpr Index lanes = narrow_lanes<T>;
  const Index depth = plain ? v.rows() : v.cols();
  const Index r = plain ? v.cols() : v.rows();
  if (plain && r == lanes && v.outerStride() == lanes) return v.data();
  T* const factor = scratch<T, NarrowFactor>(lanes * depth);
  for (Index k = 0; k < depth; ++k) {
    T* const to = factor + k * lanes;
    for (Index j = 0; j < r; ++j) {
      to[j] = v.data()[plain ? k * v.outerStride() + j : j * v.outerStride() + k];
    }
    std::fill(to + r, to + lanes, T(0));
  }
  return factor;
}

/// c[i][j] = alpha sum over k of a[i][k] v[k][j] for `rows` rows of c and `cols` columns. The same
/// bits of a row whatever `rows`: products and additions that compilers may contract are those of
/// the sums alone.
template <int rows, class T>
void narrow_rows(T* c, Index stride, Index cols, T alpha, const T* a, Index a_stride, const T* v,
                 Index depth) {
  using Vector = typename VectorOf<T, narrow_bytes>::type;
  constexpr Index lanes = narrow_lanes<T>;
  const Index part = narrow_depth(depth);
  Vector totals[rows] = {};
  for (Index first = 0; first < depth; first += part) {
    const Index end = std::min(first + part, depth);
    Vector sums[rows] = {};
    for (Index k = first; k < end; ++k) {
      add_outer_product<rows, 1>(sums, a + k, a_stride, v + k * lanes);
    }
    repeat<rows>([&](auto i) { totals[i] += sums[i]; });
  }
  repeat<rows>([&](auto i) {
    T result[lanes];
    const Vector scaled = alpha * totals[i];
    store(result, scaled);
    std::copy_n(result, cols, c + i * stride);
  });
}

/// c [tokens, r] = alpha a op(v), on all threads; numbers of c are summed in the same order
/// whatever the number of threads.
template <Operand OpV, class T>
void narrow_product(MutableMap<T> c, T alpha, const ConstMap<T>& a, const ConstMap<T>& v) {
  if (!is_narrow<T>(c.rows(), c.cols())) {
    c.setZero();
    return add_product<Operand::plain, OpV, T>(c, alpha, a, v);
  }
  const Index depth = a.cols();
  constexpr int block = 8;  // rows that lie a power of two apart share so many places of L1
  const T* const factor = narrow_factor<OpV>(v);
  parallel_pieces(c.rows(), narrow_piece(std::max<Index>(depth, 1), block),
                  [&](Index first, Index count) {
                    const auto compute = [&]<int rows>(Index i, bool twice = false) {
                      narrow_rows<rows>(c.data() + i * c.outerStride(), twice ? 0 : c.outerStride(),
                                        c.cols(), alpha, a.data() + i * a.outerStride(),
                                        twice ? 0 : a.outerStride(), factor, depth);
                    };
                    const Index end = first + count;
                    Index i = first;
                    for (; i + block <= end; i += block) compute.template operator()<block>(i);
                    for (; i + 4 <= end; i += 4) compute.template operator()<4>(i);
                    // Twice, as compilers form no fused operations in a single chain of sums.
                    for (; i < end; ++i) compute.template operator()<2>(i, true);
                  });
}

/// tile[i][j] = sum over k of g[k][i] x[k][j] for four columns of g and `vectors` vectors of x, of
/// which what lies `ahead` is asked for.
template <int vectors, class T>
void narrow_tile(T* tile, const T* g, const T* x, Index x_stride, Index depth,
                 const Index (&ahead)[2]) {
  using Vector = typename VectorOf<T, narrow_bytes>::type;
  constexpr Index lanes = narrow_lanes<T>;
  Vector sums[4 * vectors] = {};
  for (Index k = 0; k < depth; ++k) {
    const T* const row = x + k * x_stride;
    __builtin_prefetch(row + ahead[0]);
    __builtin_prefetch(row + ahead[1]);
    add_outer_product<4, vectors>(sums, g + k * lanes, 1, row);
  }
  repeat<4 * vectors>([&](auto i) { store(tile + i * lanes, sums[i]); });
}

/// c += alpha g^T x for g [tokens, r] and x [tokens, n], in the same way: c is [r, n], or its
/// transpose [n, r].
template <Operand OpC, class T>
void add_narrow_outer_product(MutableMap<T> c, T alpha, const ConstMap<T>& g,
                              const ConstMap<T>& x) {
  constexpr bool plain = OpC == Operand::plain;
  const Index rank = g.cols();
  const Index depth = g.rows();
  if (!is_narrow<T>(depth, rank)) {
    return plain ? add_product<Operand::transposed, Operand::plain, T>(c, alpha, g, x)
                 : add_product<Operand::transposed, Operand::plain, T>(c, alpha, x, g);
  }
  constexpr Index lanes = narrow_lanes<T>;
  const Index part = narrow_depth(depth);
  const T* const factor = narrow_factor<Operand::plain>(g);
  const auto number = [&](Index row, Index col) -> T& {
    return c.data()[plain ? row * c.outerStride() + col : col * c.outerStride() + row];
  };
  parallel_pieces(x.cols(), narrow_piece(depth, 6 * lanes), [&](Index first, Index count) {
    const Index end = first + count;
    for (Index k = 0; k < depth; k += part) {
      const Index length = std::min(part, depth - k);
      const T* const from = x.data() + k * x.outerStride();
      const T* const own = factor + k * lanes;
      const auto add = [&]<int vectors>(Index col) {
        constexpr Index cols = vectors * lanes;
        const Index last = x.cols() - 1 - col;
        const Index ahead[] = {std::min(cols, last), std::min(cols + 2 * lanes, last)};
        for (Index row = 0; row < rank; row += 4) {
          T tile[4 * cols];
          narrow_tile<vectors>(tile, own + row, from + col, x.outerStride(), length, ahead);
          for (Index i = 0; i < std::min<Index>(4, rank - row); ++i) {
            for (Index j = 0; j < cols; ++j) number(row + i, col + j) += alpha * tile[i * cols + j];
          }
        }
      };
      Index col = first;
      for (; col + 3 * lanes <= end; col += 3 * lanes) add.template operator()<3>(col);
      for (; col + lanes <= end; col += lanes) add.template operator()<1>(col);
      for (; col < end; ++col) {
        for (Index row = 0; row < rank; ++row) {
          T sum = 0;
          for (Index l = 0; l < length; ++l) {
            sum += own[l * lanes + row] * from[l * x.outerStride() + col];
          }
          number(row, col) += alpha * sum;
        }
      }
    }
  });
}

/// Takes the memory that this thread's narrow_product of `tokens` rows over `depth` will need:
/// after it it does not throw.
template <class T>
void reserve_narrow_product(Index tokens, Index rank, Index depth) {
  if (is_narrow<T>(tokens, rank)) {
    (void)scratch<T, NarrowFactor>(narrow_lanes<T> * depth);
  } else {
    reserve_product<T>(tokens, rank, depth);
  }
}
/// The same for add_narrow_outer_product over so many tokens, of n columns.
template <class T>
void reserve_narrow_outer_product(Index tokens, Index rank, Index n) {
  if (is_narrow<T>(tokens, rank)) {
    if (rank != narrow_lanes<T>) (void)scratch<T, NarrowFactor>(narrow_lanes<T> * tokens);
  } else {
    reserve_product<T>(rank, n, tokens);
    reserve_product<T>(n, rank, tokens);
  }
}

}  // namespace mora::inline MORA_ABI::detail
