// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include "mora/core/matrix.hpp"
#include "mora/core/vectors.hpp"

/// \file
/// The kernel under all matrix products: a block of a few rows by two vectors of columns, whose
/// sums are in registers. The left factor is read as it lies, so that only the right one, which
/// all rows of a product share, need be packed. A number is one sum over the depth whatever block
/// it is in: the same bits wherever a product is cut by rows, or by columns between panels.

namespace mora::inline MORA_ABI::detail {

/// Rows of a block: with two vectors of sums each, two of factors and a number to multiply with
/// they fit 16 registers, and hide how long an addition takes.
inline constexpr int block_rows = 6;

/// Columns of a block. Panels of so many are what a right factor is cut into.
template <class T>
inline constexpr Index panel_cols = 2 * vector_lanes<T>;
template <class T>
[[nodiscard]] Index whole_panels(Index cols) {
  return (cols + panel_cols<T> - 1) / panel_cols<T> * panel_cols<T>;
}

/// Rows of a left factor: row i has its k-th number at data[i row_stride + k depth_stride].
template <class T>
struct LeftRows {
  const T* data;
  Index row_stride;
  Index depth_stride;
};

/// A right factor [depth, cols] in panels of panel_cols<T> columns, of which the last may be
/// narrower, but has whole vectors.
template <class T>
struct Panels {
  const T* data;
  Index panel_stride;
  Index depth_stride;
};

/// c [rows, cols] = alpha a b, or c += that where `adds`, over a panel of at most `vectors`
/// vectors.
template <int rows, int vectors, bool adds, class T>
[[gnu::noinline]] void register_block(T* c, Index stride, Index cols, T alpha,
                                      const LeftRows<T>& left, const T* b, Index b_stride,
                                      Index depth) {
  using Vector = typename VectorOf<T>::type;
  constexpr Index lanes = vector_lanes<T>;
  Vector sums[rows * vectors] = {};
  const T* a = left.data;
  for (Index k = 0; k < depth; ++k) {
    add_outer_product<rows, vectors>(sums, a, left.row_stride, b);
    a += left.depth_stride;
    b += b_stride;
  }
  constexpr Index width = vectors * lanes;
  if (cols == width) {
    repeat<rows * vectors>([&](auto i) {
      T* const to = c + i / vectors * stride + i % vectors * lanes;
      Vector result = alpha * sums[i];
      if constexpr (adds) {
        Vector there;
        load(there, to);
        result += there;
      }
      store(to, result);
    });
    return;
  }
  // What lies behind the last column is not c's.
  T results[rows * width];
  repeat<rows * vectors>([&](auto i) { store(results + i * lanes, Vector(alpha * sums[i])); });
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < cols; ++j) {
      T& to = c[i * stride + j];
      to = (adds ? to : T(0)) + results[i * width + j];
    }
  }
}

/// Rows of the next block where so many are left: no block at the end is so low that it waits for
/// its own additions.
[[nodiscard]] constexpr Index next_block_rows(Index left) {
  if (left >= block_rows + 4) return block_rows;
  return left > block_rows ? (left + 1) / 2 : left;
}

/// Calls f(first, rows) for blocks of rows.
template <class F>
void for_each_row_block(Index rows, const F& f) {
  for (Index i = 0; i < rows;) {
    const Index count = next_block_rows(rows - i);
    f(i, count);
    i += count;
  }
}

/// A block of at most block_rows rows by all columns of a right factor.
template <bool adds, class T>
void multiply_rows(T* c, Index stride, Index rows, Index cols, T alpha, const LeftRows<T>& a,
                   const Panels<T>& b, Index depth) {
  const auto multiply = [&]<int count>(std::integral_constant<int, count>) {
    constexpr Index panel = panel_cols<T>;
    const T* right = b.data;
    for (Index j = 0; j < cols; j += panel, right += b.panel_stride) {
      const Index width = std::min(panel, cols - j);
      const auto block = width > vector_lanes<T> ? &register_block<count, 2, adds, T>
                                                 : &register_block<count, 1, adds, T>;
      block(c + j, stride, width, alpha, a, right, b.depth_stride, depth);
    }
  };
  static_assert(block_rows == 6);
  switch (rows) {
    case 1: return multiply(std::integral_constant<int, 1>());
    case 2: return multiply(std::integral_constant<int, 2>());
    case 3: return multiply(std::integral_constant<int, 3>());
    case 4: return multiply(std::integral_constant<int, 4>());
    case 5: return multiply(std::integral_constant<int, 5>());
    default: return multiply(std::integral_constant<int, 6>());
  }
}

/// v[i][j] and v[j][i] change places, for as many vectors as one has numbers.
template <class T>
[[gnu::always_inline]] inline void transpose(typename VectorOf<T>::type (&v)[vector_lanes<T>]) {
  using Vector = typename VectorOf<T>::type;
  constexpr int lanes = vector_lanes<T>;
  // Halves of the pairs of blocks of 1, 2, 4, ... numbers change places.
  const auto exchange = [&]<int step, int... l>(std::integral_constant<int, step>,
                                                std::integer_sequence<int, l...>) {
    repeat<lanes>([&](auto i) {
      if constexpr ((i & step) == 0) {
        const Vector a = v[i];
        const Vector b = v[i + step];
        v[i] = __builtin_shufflevector(a, b, ((l & step) ? lanes + l - step : l)...);
        v[i + step] = __builtin_shufflevector(a, b, ((l & step) ? lanes + l : l + step)...);
      }
    });
  };
  repeat<4>([&](auto power) {
    if constexpr ((1 << power) < lanes) {
      exchange(std::integral_constant<int, 1 << power>(), std::make_integer_sequence<int, lanes>());
    }
  });
}

/// Numbers that a packed factor takes.
template <class T>
[[nodiscard]] Index packed_size(Index cols, Index depth) {
  return whole_panels<T>(cols) * depth;
}

/// b [depth, cols] in panels that follow one another, whose last columns are zeros where b has no
/// more.
template <class T>
Panels<T> pack_panels(T* to, const ConstMap<T>& b) {
  using Vector = typename VectorOf<T>::type;
  constexpr Index panel = panel_cols<T>;
  const Panels<T> panels{to, panel * b.rows(), panel};
  for (Index first = 0; first < b.cols(); first += panel) {
    const Index cols = std::min(panel, b.cols() - first);
    const T* from = b.data() + first;
    for (Index k = 0; k < b.rows(); ++k, from += b.outerStride(), to += panel) {
      if (cols == panel) {
        Vector numbers[2];
        repeat<2>([&](auto j) { load(numbers[j], from + j * vector_lanes<T>); });
        repeat<2>([&](auto j) { store(to + j * vector_lanes<T>, numbers[j]); });
      } else {
        for (Index j = 0; j < panel; ++j) to[j] = j < cols ? from[j] : T(0);
      }
    }
  }
  return panels;
}

/// The same of b^T for b [cols, depth].
template <class T>
Panels<T> pack_panels_of_transposed(T* to, const ConstMap<T>& b) {
  using Vector = typename VectorOf<T>::type;
  constexpr Index panel = panel_cols<T>;
  constexpr Index lanes = vector_lanes<T>;
  const Index depth = b.cols();
  const Panels<T> panels{to, panel * depth, panel};
  for (Index first = 0; first < b.rows(); first += lanes, to += lanes) {
    if (first > 0 && first % panel == 0) to += panel * (depth - 1);
    const Index cols = std::min(lanes, b.rows() - first);
    const T* const from = b.data() + first * b.outerStride();
    Index k = 0;
    for (; k + lanes <= depth; k += lanes) {
      Vector block[lanes];
      repeat<int{lanes}>([&](auto j) {
        block[j] = Vector{};
        if (j < cols) load(block[j], from + j * b.outerStride() + k);
      });
      transpose<T>(block);
      repeat<int{lanes}>([&](auto j) { store(to + (k + j) * panel, block[j]); });
    }
    for (; k < depth; ++k) {
      for (Index j = 0; j < lanes; ++j) {
        to[k * panel + j] = j < cols ? from[j * b.outerStride() + k] : T(0);
      }
    }
  }
  return panels;
}

}  // namespace mora::inline MORA_ABI::detail
