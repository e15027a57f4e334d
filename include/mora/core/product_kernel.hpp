// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "mora/core/matrix.hpp"
#include "mora/core/operand.hpp"

/// \file
/// Eigen's kernel for matrix products, the one place that names Eigen::internal; the signatures
/// used are the same in Eigen 3.4 and 5.0.

namespace mora::inline MORA_ABI::detail {

/// c += alpha a b of blocks that are packed: columns of c in vectors, a few rows of c at a time,
/// whose sums are in registers. Eigen calls the right factor the left one, as it computes the
/// transpose, whose columns are contiguous.
template <class T>
class ProductKernel {
  using Traits = Eigen::internal::gebp_traits<T, T>;
  template <int order>
  using Source = Eigen::internal::const_blas_data_mapper<T, Index, order>;

 public:
  /// The sides of a block of c that is summed in registers.
  static constexpr Index register_rows = Traits::nr;
  static constexpr Index register_cols = Traits::mr;

  /// Rows of op(a): [rows, depth] where plain, [depth, rows] where transposed.
  template <Operand Op>
  static void pack_left(T* to, const T* a, Index stride, Index rows, Index depth) {
    constexpr int order = Op == Operand::plain ? Eigen::ColMajor : Eigen::RowMajor;
    Eigen::internal::gemm_pack_rhs<T, Index, Source<order>, Traits::nr, order>()(
        to, Source<order>(a, stride), depth, rows);
  }
  /// Columns of op(b): [depth, cols] where plain, [cols, depth] where transposed.
  template <Operand Op>
  static void pack_right(T* to, const T* b, Index stride, Index cols, Index depth) {
    constexpr int order = Op == Operand::plain ? Eigen::ColMajor : Eigen::RowMajor;
    Eigen::internal::gemm_pack_lhs<T, Index, Source<order>, Traits::mr, Traits::LhsProgress,
                                   typename Traits::LhsPacket4Packing, order>()(
        to, Source<order>(b, stride), depth, cols);
  }
  static void add(T* c, Index stride, const T* left, const T* right, Index rows, Index cols,
                  Index depth, T alpha) {
    using Result = Eigen::internal::blas_data_mapper<T, Index, Eigen::ColMajor>;
    Eigen::internal::gebp_kernel<T, T, Index, Result, Traits::mr, Traits::nr>()(
        Result(c, stride), right, left, cols, depth, rows, alpha);
  }
};

/// How much of `depth` Eigen takes at a time, so that the kernel's panels stay in L1.
template <class T>
[[nodiscard]] Index kernel_depth(Index depth, Index cols) {
  Index rows = ProductKernel<T>::register_rows;
  Eigen::internal::computeProductBlockingSizes<T, T, 1>(depth, cols, rows, Index{1});
  return std::max<Index>(depth, 1);
}

}  // namespace mora::inline MORA_ABI::detail
