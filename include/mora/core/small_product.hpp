// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstring>

#include "mora/core/product.hpp"
#include "mora/core/small_matrix.hpp"

/// \file
/// Products with a matrix whose numbers have 16 bits. A part that fits the cache is widened at a
/// time, so that memory is read at 2 bytes a number and nothing of the matrix's size is ever made.
/// The sums are those of add_product over the widened matrix, in the same order, so that results
/// are the same bit for bit; but for a single row, where the order is another.

namespace mora::inline MORA_ABI::detail {

struct WidenedBlocks;

/// y[i] += w[first + i] x for so many rows.
template <int rows, HalfFloat F>
void add_small_dots(float* y, const SmallMatrix<F>& w, Index first, const float* x) {
  Lanes sums[rows] = {};
  Index j = 0;
  for (; j + lane_count <= w.cols; j += lane_count) {
    Lanes factor;
    std::memcpy(&factor, x + j, sizeof factor);
    for (int i = 0; i < rows; ++i) {
      Lanes numbers;
      widen_lanes(w.at(first + i, j), numbers);
      sums[i] += numbers * factor;
    }
  }
  for (int i = 0; i < rows; ++i) {
    float sum = 0;
    for (Index k = 0; k < lane_count; ++k) sum += sums[i][k];
    for (Index k = j; k < w.cols; ++k) sum += widen<float>(*w.at(first + i, k)) * x[k];
    y[i] += sum;
  }
}

/// y[i] += w[first + i] x for `count` rows: eight at a time, whose sums in flight hide their
/// latency and whose streams keep memory busy.
template <HalfFloat F>
void add_small_rows(float* y, const SmallMatrix<F>& w, Index first, Index count, const float* x) {
  constexpr int together = 8;
  Index i = 0;
  for (; i + together <= count; i += together) add_small_dots<together>(y + i, w, first + i, x);
  for (; i < count; ++i) add_small_dots<1>(y + i, w, first + i, x);
}

/// y += op(w) x for contiguous vectors, on pieces of y. Memory is the limit: w is read once.
template <Operand OpW, HalfFloat F, class T>
void add_small_matrix_vector(T* y, const SmallMatrix<F>& w, const T* x) {
  constexpr bool plain = OpW == Operand::plain;
  if constexpr (plain && std::same_as<T, float>) {
    const Index piece = std::max<Index>(16, (Index{1} << 17) / w.cols);
    parallel_pieces(w.rows, piece, [&](Index first, Index count) {
      add_small_rows(y + first, w, first, count, x);
    });
  } else {
    // Blocks of 16 KB of floats for Eigen's kernel, read again from the first cache.
    constexpr Index height = 8;
    constexpr Index width = 512;
    using Vector = Eigen::Matrix<T, Eigen::Dynamic, 1>;
    const Index step = plain ? height : width;
    const Index piece =
        std::max<Index>(1, (Index{1} << 17) / (step * (plain ? w.cols : w.rows))) * step;
    parallel_pieces(plain ? w.rows : w.cols, piece, [&](Index first, Index count) {
      alignas(64) std::array<T, height * width> memory;
      const Index first_row = plain ? first : 0;
      const Index first_col = plain ? 0 : first;
      const Index rows = plain ? count : w.rows;
      const Index cols = plain ? w.cols : count;
      for (Index i = 0; i < rows; i += height) {
        for (Index j = 0; j < cols; j += width) {
          const MutableMap<T> block(memory.data(), std::min(height, rows - i),
                                    std::min(width, cols - j),
                                    Eigen::OuterStride<>(std::min(width, cols - j)));
          widen_block(w, first_row + i, first_col + j, block);
          if constexpr (plain) {
            Eigen::Map<Vector>(y + first + i, block.rows()).noalias() +=
                block * Eigen::Map<const Vector>(x + j, block.cols());
          } else {
            Eigen::Map<Vector>(y + first + j, block.cols()).noalias() +=
                block.transpose() * Eigen::Map<const Vector>(x + i, block.rows());
          }
        }
      }
    });
  }
}

/// c += a op(w).
template <Operand OpW, HalfFloat F, class T>
void add_small_product(MutableMap<T> c, const ConstMap<T>& a, const SmallMatrix<F>& w) {
  constexpr bool transposed = OpW == Operand::transposed;
  const Index depth = a.cols();
  if (c.rows() == 0 || c.cols() == 0 || depth == 0) return;
  if (c.rows() == 1) {
    return add_small_matrix_vector < transposed ? Operand::plain
                                                : Operand::transposed > (c.data(), w, a.data());
  }

  // For a row-major result Eigen's kernel computes the transpose: w is its left factor.
  using Traits = Eigen::internal::gebp_traits<T, T>;
  using Rows = Eigen::internal::const_blas_data_mapper<T, Index, Eigen::ColMajor>;
  using Result = Eigen::internal::blas_data_mapper<T, Index, Eigen::ColMajor>;
  constexpr int order = transposed ? Eigen::RowMajor : Eigen::ColMajor;
  using Widened = Eigen::internal::const_blas_data_mapper<T, Index, order>;
  Eigen::internal::gemm_pack_lhs<T, Index, Widened, Traits::mr, Traits::LhsProgress,
                                 typename Traits::LhsPacket4Packing, order>
      pack_w;
  Eigen::internal::gemm_pack_rhs<T, Index, Rows, Traits::nr, Eigen::ColMajor> pack_a;
  Eigen::internal::gebp_kernel<T, T, Index, Result, Traits::mr, Traits::nr> kernel;

  const ProductSplit<T> split(c.rows(), c.cols(), depth);
  // Two panels of the kernel at a time: whole ones, so that each is packed as all at once would be.
  constexpr Index height = 2 * Index{Traits::mr};
  const Index block = whole_lines(height * split.block_depth());
  T* const memory = split.memory();
  T* const widened_memory = scratch<T, WidenedBlocks>(block * split.pieces());
  parallel_pieces(split.size(), split.piece(), [&](Index first, Index count) {
    const Index row = split.by_columns() ? 0 : first;
    const Index rows = split.by_columns() ? c.rows() : count;
    const Index col = split.by_columns() ? first : 0;
    const Index cols = split.by_columns() ? count : c.cols();
    Packing<T> packing = split.packing(first, rows, cols, memory);
    T* const widened = widened_memory + first / split.piece() * block;

    const auto pack_widened = [&](Index from, Index size, Index begin, Index length) {
      for (Index i = 0; i < size; i += height) {
        const Index panel = std::min(height, size - i);
        const Index wide = transposed ? length : panel;
        const MutableMap<T> to(widened, transposed ? panel : length, wide,
                               Eigen::OuterStride<>(wide));
        widen_block(w, transposed ? from + i : begin, transposed ? begin : from + i, to);
        pack_w(packing.blockA() + i * length, Widened(widened, wide), length, panel);
      }
    };
    const bool pack_a_once = packing.mc() != cols && packing.kc() == depth && packing.nc() == rows;
    for (Index i = 0; i < cols; i += packing.mc()) {
      const Index size = std::min(packing.mc(), cols - i);
      for (Index k = 0; k < depth; k += packing.kc()) {
        const Index length = std::min(packing.kc(), depth - k);
        pack_widened(col + i, size, k, length);
        for (Index j = 0; j < rows; j += packing.nc()) {
          const Index part = std::min(packing.nc(), rows - j);
          if (!pack_a_once || i == 0) {
            pack_a(packing.blockB(),
                   Rows(a.data() + (row + j) * a.outerStride() + k, a.outerStride()), length, part);
          }
          kernel(Result(c.data() + (row + j) * c.outerStride() + col + i, c.outerStride()),
                 packing.blockA(), packing.blockB(), size, length, part, T(1));
        }
      }
    }
  });
}

}  // namespace mora::inline MORA_ABI::detail
