// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "mora/core/matrix.hpp"
#include "mora/core/operand.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/product.hpp"
#include "mora/core/scratch.hpp"

/// \file
/// Products with a factor of a low rank: [m, k] by [k, r] and [r, k] by [k, n], r <= 16. Eigen's
/// kernel packs the large factor, which costs as much as multiplying it with so few columns; here
/// it is read as it lies (docs/results/train_step.md). Larger ranks are add_product's.

namespace mora::inline MORA_ABI::detail {

struct NarrowFactor;

/// The most columns of a narrow factor.
inline constexpr Index most_narrow = 16;

/// As many columns as are summed at a time: a vector of 32 bytes.
template <class T>
inline constexpr Index narrow_lanes = 32 / Index{sizeof(T)};

template <class T>
struct NarrowVector;
template <>
struct NarrowVector<float> {
  using type [[gnu::vector_size(32)]] = float;
};
template <>
struct NarrowVector<double> {
  using type [[gnu::vector_size(32)]] = double;
};

/// Calls f(i) for i < n, as constants: compilers keep arrays in registers only where they see every
/// index.
template <class F, int... i>
[[gnu::always_inline]] inline void repeat(const F& f, std::integer_sequence<int, i...>) {
  (f(std::integral_constant<int, i>()), ...);
}
template <int n, class F>
[[gnu::always_inline]] inline void repeat(const F& f) {
  repeat(f, std::make_integer_sequence<int, n>());
}

/// op(v) [depth, r] as groups of narrow_lanes columns, [groups][depth][lanes], filled up with
/// zeros: v itself where it is that already.
template <Operand OpV, class T>
[[nodiscard]] const T* narrow_groups(const ConstMap<T>& v) {
  constexpr bool plain = OpV == Operand::plain;
  constexpr Index lanes = narrow_lanes<T>;
  const Index depth = plain ? v.rows() : v.cols();
  const Index r = plain ? v.cols() : v.rows();
  if (plain && r == lanes && v.outerStride() == lanes) return v.data();
  T* const groups = scratch<T, NarrowFactor>(most_narrow * depth);
  for (Index col = 0; col < r; col += lanes) {
    T* to = groups + col * depth;
    const Index count = std::min(lanes, r - col);
    for (Index k = 0; k < depth; ++k, to += lanes) {
      for (Index j = 0; j < count; ++j) {
        to[j] = v.data()[plain ? k * v.outerStride() + col + j : (col + j) * v.outerStride() + k];
      }
      std::fill(to + count, to + lanes, T(0));
    }
  }
  return groups;
}

/// How many rows or columns of a narrow product are worth a thread, in whole blocks.
[[nodiscard]] inline Index narrow_piece(Index depth, Index block) {
  return std::max<Index>(1, (Index{1} << 14) / (block * depth)) * block;
}

/// c[i][j] += alpha sum over k of a[i][k] v[k][j] for `rows` rows of c and `cols` <= narrow_lanes
/// columns, summed in registers.
template <int rows, class T>
void add_narrow_rows(T* c, Index stride, Index cols, T alpha, const T* a, Index a_stride,
                     const T* v, Index depth) {
  using Vector = typename NarrowVector<T>::type;
  constexpr Index lanes = narrow_lanes<T>;
  Vector sums[rows] = {};
  for (Index k = 0; k < depth; ++k) {
    Vector factor;
    std::memcpy(&factor, v + k * lanes, sizeof factor);
    repeat<rows>([&](auto i) { sums[i] += factor * a[i * a_stride + k]; });
  }
  repeat<rows>([&](auto i) {
    T* const to = c + i * stride;
    const Vector sum = alpha * sums[i];
    if (cols == lanes) {
      Vector old;
      std::memcpy(&old, to, sizeof old);
      old += sum;
      std::memcpy(to, &old, sizeof old);
    } else {
      for (Index j = 0; j < cols; ++j) to[j] += sum[j];
    }
  });
}

/// c [m, r] += alpha a op(v), on all threads; numbers of c are summed in the same order whatever
/// the number of threads.
template <Operand OpV, class T>
void add_narrow_product(MutableMap<T> c, T alpha, const ConstMap<T>& a, const ConstMap<T>& v) {
  if (c.cols() > most_narrow) return add_product<Operand::plain, OpV, T>(c, alpha, a, v);
  const Index depth = a.cols();
  if (c.rows() == 0 || c.cols() == 0 || depth == 0) return;
  constexpr int block = 8;  // rows that lie a power of two apart share so many places of L1
  const T* const groups = narrow_groups<OpV>(v);
  parallel_pieces(c.rows(), narrow_piece(depth, block), [&](Index first, Index count) {
    const Index end = first + count;
    for (Index col = 0; col < c.cols(); col += narrow_lanes<T>) {
      const Index cols = std::min(narrow_lanes<T>, c.cols() - col);
      const auto add = [&]<int rows>(Index i) {
        add_narrow_rows<rows>(c.data() + i * c.outerStride() + col, c.outerStride(), cols, alpha,
                              a.data() + i * a.outerStride(), a.outerStride(), groups + col * depth,
                              depth);
      };
      Index i = first;
      for (; i + block <= end; i += block) add.template operator()<block>(i);
      for (; i + 4 <= end; i += 4) add.template operator()<4>(i);
      for (; i < end; ++i) add.template operator()<1>(i);
    }
  });
}

/// tile[i][j] = sum over k of g[k][i] x[k][j] for four columns of g and `vectors` vectors of x.
template <int vectors, class T>
void narrow_tile(T* tile, const T* g, const T* x, Index x_stride, Index depth) {
  using Vector = typename NarrowVector<T>::type;
  constexpr Index lanes = narrow_lanes<T>;
  Vector sums[4 * vectors] = {};
  for (Index k = 0; k < depth; ++k) {
    Vector factors[vectors];
    __builtin_prefetch(x + k * x_stride + vectors * lanes);
    __builtin_prefetch(x + k * x_stride + (vectors + 2) * lanes);
    repeat<vectors>(
        [&](auto j) { std::memcpy(&factors[j], x + k * x_stride + j * lanes, sizeof(Vector)); });
    repeat<4 * vectors>(
        [&](auto i) { sums[i] += factors[i % vectors] * g[k * lanes + i / vectors]; });
  }
  repeat<4 * vectors>([&](auto i) { std::memcpy(tile + i * lanes, &sums[i], sizeof(Vector)); });
}

/// c += alpha g^T x for g [k, r] and x [k, n], in the same way: c is [r, n], or its transpose
/// [n, r].
template <Operand OpC, class T>
void add_narrow_outer_product(MutableMap<T> c, T alpha, const ConstMap<T>& g,
                              const ConstMap<T>& x) {
  constexpr bool plain = OpC == Operand::plain;
  if (g.cols() > most_narrow) {
    return plain ? add_product<Operand::transposed, Operand::plain, T>(c, alpha, g, x)
                 : add_product<Operand::transposed, Operand::plain, T>(c, alpha, x, g);
  }
  const Index rank = g.cols();
  const Index depth = g.rows();
  if (rank == 0 || x.cols() == 0 || depth == 0) return;
  constexpr Index lanes = narrow_lanes<T>;
  constexpr Index most_depth = 192;  // rows of x whose parts of a block stay in L1
  const Index parts = (depth + most_depth - 1) / most_depth;
  const Index part = (depth + parts - 1) / parts;
  const T* const groups = narrow_groups<Operand::plain>(g);
  const auto number = [&](Index row, Index col) -> T& {
    return c.data()[plain ? row * c.outerStride() + col : col * c.outerStride() + row];
  };
  parallel_pieces(x.cols(), narrow_piece(depth, 6 * lanes), [&](Index first, Index count) {
    const Index end = first + count;
    for (Index k = 0; k < depth; k += part) {
      const Index length = std::min(part, depth - k);
      const T* const from = x.data() + k * x.outerStride();
      const auto factor = [&](Index row) {
        return groups + row / lanes * lanes * depth + k * lanes + row % lanes;
      };
      const auto add = [&]<int vectors>(Index col) {
        constexpr Index cols = vectors * lanes;
        for (Index row = 0; row < rank; row += 4) {
          T tile[4 * cols];
          narrow_tile<vectors>(tile, factor(row), from + col, x.outerStride(), length);
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
            sum += factor(row)[l * lanes] * from[l * x.outerStride() + col];
          }
          number(row, col) += alpha * sum;
        }
      }
    }
  });
}

/// Takes the memory that this thread's narrow products of this rank over `depth` will need, of
/// results with `size` rows or columns: after it they do not throw.
template <class T>
void reserve_narrow_product(Index rank, Index size, Index depth) {
  if (rank <= most_narrow) {
    (void)scratch<T, NarrowFactor>(most_narrow * depth);
  } else {
    reserve_product<T>(rank, size, depth);
    reserve_product<T>(size, rank, depth);
  }
}

}  // namespace mora::inline MORA_ABI::detail
