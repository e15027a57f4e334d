// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "mora/core/matrix.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/scratch.hpp"

/// \file
/// The one place that computes matrix products of any size. It drives Eigen's packing and kernels
/// itself, for three things that Eigen's expression for a product does not give: packing buffers
/// that are kept (no allocation once warmed up), results that do not depend on the number of
/// threads, and no threads that spin while they wait for each other. It is also the one place that
/// names Eigen::internal; the signatures used are the same in Eigen 3.4 and 5.0.

namespace mora::inline MORA_ABI::detail {

enum class Operand { plain, transposed };

struct PackedOperands;

/// Packing buffers behind the interface that Eigen's product asks for, in `size` numbers.
template <class T>
class Packing : public Eigen::internal::level3_blocking<T, T> {
 public:
  Packing(Index mc, Index nc, Index kc, T* memory) {
    this->m_mc = mc;
    this->m_nc = nc;
    this->m_kc = kc;
    this->m_blockA = memory;
    this->m_blockB = memory + whole_lines(mc * kc);
  }
  [[nodiscard]] static Index size(Index mc, Index nc, Index kc) {
    return whole_lines(mc * kc) + whole_lines(nc * kc);
  }

 private:
  [[nodiscard]] static Index whole_lines(Index size) { return (size + 63) / 64 * 64; }
};

/// y += alpha * op(w) x for a row-major w and contiguous vectors: Eigen's matrix-vector kernel on
/// pieces of y, because one core does not saturate the memory.
template <Operand OpW, class T>
void add_matrix_vector(T* y, T alpha, const ConstMap<T>& w, const T* x) {
  using Vector = Eigen::Matrix<T, Eigen::Dynamic, 1>;
  constexpr bool plain = OpW == Operand::plain;
  const Index outputs = plain ? w.rows() : w.cols();
  const Index inputs = plain ? w.cols() : w.rows();
  const Eigen::Map<const Vector> input(x, inputs);
  const Index work = std::max<Index>(1, inputs);
  const Index piece = std::max<Index>(16, (Index{1} << 17) / work);
  parallel_pieces(outputs, piece, [&](Index first, Index count) {
    Eigen::Map<Vector> output(y + first, count);
    if constexpr (plain) {
      output.noalias() += alpha * (rows_of(w, first, count) * input);
    } else {
      output.noalias() += alpha * (w.middleCols(first, count).transpose() * input);
    }
  });
}

/// c += alpha * op(a) * op(b), on all threads when compiled with OpenMP.
/// The split follows the register blocking of Eigen's kernel, so that every number is summed in
/// the same order whatever the number of threads. c overlaps neither a nor b.
template <Operand OpA, Operand OpB, class T>
void add_product(MutableMap<T> c, T alpha, const ConstMap<T>& a, const ConstMap<T>& b) {
  constexpr bool a_plain = OpA == Operand::plain;
  constexpr bool b_plain = OpB == Operand::plain;
  const Index depth = a_plain ? a.cols() : a.rows();
  if (c.rows() == 0 || c.cols() == 0 || depth == 0) return;
  if constexpr (a_plain) {
    constexpr Operand op = b_plain ? Operand::transposed : Operand::plain;
    if (c.rows() == 1) return add_matrix_vector<op>(c.data(), alpha, b, a.data());
  }

  using Product = Eigen::internal::general_matrix_matrix_product<
      Index, T, a_plain ? Eigen::RowMajor : Eigen::ColMajor, false, T,
      b_plain ? Eigen::RowMajor : Eigen::ColMajor, false, Eigen::RowMajor, 1>;
  // For a row-major result Eigen computes the transpose: the columns of c are its kernel's rows.
  using Traits = typename Product::Traits;
  Index kc = depth;
  Index mc = c.cols();
  Index nc = c.rows();
  Eigen::internal::computeProductBlockingSizes<T, T, 1>(kc, mc, nc, Index{1});
  mc = std::max<Index>(mc, 1);

  const auto piece_of_c = [&](Index row, Index rows, Index col, Index cols, T* memory) {
    Packing<T> packing(std::min(cols, mc), std::min(rows, nc), kc, memory);
    Product::run(rows, cols, depth, a.data() + (a_plain ? row * a.outerStride() : row),
                 a.outerStride(), b.data() + (b_plain ? col : col * b.outerStride()),
                 b.outerStride(), c.data() + row * c.outerStride() + col, 1, c.outerStride(), alpha,
                 packing, nullptr);
  };

  constexpr double worth_a_thread = 1 << 17;  // multiply-adds; a thread costs microseconds
  const double work = double(c.rows()) * double(c.cols()) * double(depth);
  const Index threads =
      std::clamp<Index>(static_cast<Index>(work / worth_a_thread), 1, thread_count());
  const bool by_columns = c.cols() / Index{Traits::mr} >= c.rows() / Index{Traits::nr};
  const Index size = by_columns ? c.cols() : c.rows();
  const Index step = by_columns ? Index{Traits::mr} : Index{Traits::nr};
  const Index piece =
      threads == 1 ? size : ((size + step - 1) / step + threads - 1) / threads * step;
  // The memory of all threads is this one's: once it is there, nothing can fail half-way.
  const Index packed = Packing<T>::size(std::min(by_columns ? piece : c.cols(), mc),
                                        std::min(by_columns ? c.rows() : piece, nc), kc);
  T* const memory = scratch<T, PackedOperands>(packed * ((size + piece - 1) / piece));
  parallel_pieces(size, piece, [&](Index first, Index count) {
    T* const own = memory + first / piece * packed;
    if (by_columns) {
      piece_of_c(0, c.rows(), first, count, own);
    } else {
      piece_of_c(first, count, 0, c.cols(), own);
    }
  });
}

}  // namespace mora::inline MORA_ABI::detail
