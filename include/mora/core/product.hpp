// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "mora/core/buffer.hpp"
#include "mora/core/elementwise.hpp"
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

/// At least what a cache line and the widest vector hold, in numbers.
inline constexpr Index line_numbers = 64;
[[nodiscard]] inline Index whole_lines(Index size) {
  return (size + line_numbers - 1) / line_numbers * line_numbers;
}

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
};

/// y += alpha * op(w) x for a row-major w and contiguous vectors, on this thread, by Eigen's
/// matrix-vector kernel.
template <Operand OpW, class T>
void add_matrix_vector_here(T* y, T alpha, const ConstMap<T>& w, const T* x) {
  using Vector = Eigen::Matrix<T, Eigen::Dynamic, 1>;
  if constexpr (OpW == Operand::plain) {
    Eigen::Map<Vector>(y, w.rows()).noalias() +=
        alpha * (w * Eigen::Map<const Vector>(x, w.cols()));
  } else {
    Eigen::Map<Vector>(y, w.cols()).noalias() +=
        alpha * (w.transpose() * Eigen::Map<const Vector>(x, w.rows()));
  }
}

/// How many numbers a page of memory has. Where w is read by columns a piece takes that many of
/// each row, because processors read ahead to the end of a page: pieces of 32 and 16 took 2.3
/// and 3.5 times as long.
template <class Stored>
inline constexpr Index page_numbers = 4096 / Index{sizeof(Stored)};

/// Whether w comes from memory and not from a cache, with rows of at most two pages. Longer ones
/// Eigen's kernel reads faster, eight at a time.
template <class T>
[[nodiscard]] bool is_streamed(const ConstMap<T>& w) {
  return w.size() >= (Index{1} << 20) / Index{sizeof(T)} && w.cols() <= 2 * page_numbers<T>;
}
/// y += alpha w x, one row after the other, as memory that is read in its order arrives fastest.
/// Processors do not read ahead beyond a page, so that the next page's first lines are asked for
/// (docs/results/train_step.md).
template <class T>
void add_streamed_rows(T* y, T alpha, const ConstMap<T>& w, const T* x) {
  constexpr Index page = page_numbers<T>;
  constexpr Index line = 64 / Index{sizeof(T)};
  const Index last = (w.rows() - 1) * w.outerStride() + w.cols() - 1;
  for (Index i = 0; i < w.rows(); ++i) {
    T sum = 0;
    for (Index j = 0; j < w.cols(); j += page) {
      const Index at = i * w.outerStride() + j;
      for (Index k = 0; k < 4; ++k) {
        __builtin_prefetch(w.data() + std::min(at + page + k * line, last));
      }
      sum += dot(w.data() + at, x + j, std::min(page, w.cols() - j));
    }
    y[i] += alpha * sum;
  }
}

/// How many numbers of y a piece of such a product has, in whole `step`s.
[[nodiscard]] inline Index vector_piece(Index inputs, Index step) {
  return std::max<Index>(1, (Index{1} << 17) / std::max<Index>(1, inputs * step)) * step;
}

/// The same product on pieces of y, because one core does not saturate the memory. Numbers of y do
/// not depend on the pieces.
template <Operand OpW, class T>
void add_matrix_vector(T* y, T alpha, const ConstMap<T>& w, const T* x) {
  if constexpr (OpW == Operand::plain) {
    if (is_streamed(w)) {
      const Index pieces = 4 * thread_count();  // so that no thread waits long for another
      parallel_pieces(w.rows(), (w.rows() + pieces - 1) / pieces, [&](Index first, Index count) {
        add_streamed_rows(y + first, alpha, rows_of(w, first, count), x);
      });
      return;
    }
  }
  constexpr bool plain = OpW == Operand::plain;
  const Index outputs = plain ? w.rows() : w.cols();
  const Index inputs = plain ? w.cols() : w.rows();
  const Index piece = plain ? vector_piece(inputs, 16)
                            : std::max(vector_piece(inputs, line_numbers), page_numbers<T>);
  parallel_pieces(outputs, piece, [&](Index first, Index count) {
    const ConstMap<T> part = plain ? rows_of(w, first, count)
                                   : ConstMap<T>(w.data() + first, w.rows(), count,
                                                 Eigen::OuterStride<>(w.outerStride()));
    add_matrix_vector_here<OpW>(y + first, alpha, part, x);
  });
}

/// How a product [rows, cols] over `depth` is cut into Eigen's blocks and into pieces for the
/// threads, along the register blocks of Eigen's kernel, so that every number is summed in the same
/// order whatever the number of threads.
template <class T>
class ProductSplit {
 public:
  ProductSplit(Index rows, Index cols, Index depth) : kc_(depth), mc_(cols), nc_(rows) {
    // For a row-major result Eigen computes the transpose: its columns are the kernel's rows.
    using Traits = Eigen::internal::gebp_traits<T, T>;
    Eigen::internal::computeProductBlockingSizes<T, T, 1>(kc_, mc_, nc_, Index{1});
    mc_ = std::max<Index>(mc_, 1);
    constexpr double worth_a_thread = 1 << 17;  // multiply-adds; a thread costs microseconds
    const double work = double(rows) * double(cols) * double(depth);
    const Index threads =
        std::clamp<Index>(static_cast<Index>(work / worth_a_thread), 1, thread_count());
    by_columns_ = cols / Index{Traits::mr} >= rows / Index{Traits::nr};
    size_ = by_columns_ ? cols : rows;
    const Index step = by_columns_ ? Index{Traits::mr} : Index{Traits::nr};
    piece_ = threads == 1 ? size_ : ((size_ + step - 1) / step + threads - 1) / threads * step;
    packed_ = Packing<T>::size(std::min(by_columns_ ? piece_ : cols, mc_),
                               std::min(by_columns_ ? rows : piece_, nc_), kc_);
  }

  [[nodiscard]] Index pieces() const { return (size_ + piece_ - 1) / piece_; }
  /// How much of the depth is taken at a time.
  [[nodiscard]] Index block_depth() const { return kc_; }

  /// Takes packing buffers for all pieces: the calling thread's, so that once they are there
  /// nothing can fail half-way.
  T* memory() const { return scratch<T, PackedOperands>(packed_ * pieces()); }

  /// A piece of the result: rows [row, row + rows) and columns [col, col + cols).
  struct Piece {
    Index number;
    Index row;
    Index rows;
    Index col;
    Index cols;
  };
  /// Calls `f(piece, packing)` for all pieces of a result [rows, cols], on all threads.
  template <class F>
  void for_each_piece(Index rows, Index cols, const F& f) const {
    T* const buffers = memory();
    parallel_pieces(size_, piece_, [&](Index first, Index count) {
      const Index number = first / piece_;
      const Piece piece =
          by_columns_ ? Piece{number, 0, rows, first, count} : Piece{number, first, count, 0, cols};
      Packing<T> packing(std::min(piece.cols, mc_), std::min(piece.rows, nc_), kc_,
                         buffers + number * packed_);
      f(piece, packing);
    });
  }

 private:
  Index kc_;
  Index mc_;
  Index nc_;
  bool by_columns_;
  Index size_;
  Index piece_;
  Index packed_;
};

/// Takes the memory that this thread's product [rows, cols] over `depth` will need: after it
/// `add_product` does not throw.
template <class T>
void reserve_product(Index rows, Index cols, Index depth) {
  if (rows != 0 && cols != 0 && depth != 0) (void)ProductSplit<T>(rows, cols, depth).memory();
}

/// c += alpha * op(a) * op(b), on all threads when compiled with OpenMP. c overlaps neither a nor
/// b.
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
  const ProductSplit<T> split(c.rows(), c.cols(), depth);
  split.for_each_piece(c.rows(), c.cols(), [&](const auto& piece, Packing<T>& packing) {
    Product::run(piece.rows, piece.cols, depth,
                 a.data() + piece.row * (a_plain ? a.outerStride() : 1), a.outerStride(),
                 b.data() + piece.col * (b_plain ? 1 : b.outerStride()), b.outerStride(),
                 c.data() + piece.row * c.outerStride() + piece.col, 1, c.outerStride(), alpha,
                 packing, nullptr);
  });
}

struct ReadBlocks;

/// c += a op(b) for a b that is not in memory as T: `read(row, col, to)` writes the part of b that
/// begins there to `to`, a part that fits the cache, each once a piece. The sums are those of
/// add_product, in the same order, where c has more than one row: the same bits.
template <Operand OpB, class T, class Read>
void add_product_by_parts(MutableMap<T> c, const ConstMap<T>& a, const Read& read) {
  const Index depth = a.cols();
  if (c.rows() == 0 || c.cols() == 0 || depth == 0) return;

  // For a row-major result Eigen's kernel computes the transpose: b is its left factor.
  constexpr bool transposed = OpB == Operand::transposed;
  constexpr int order = transposed ? Eigen::RowMajor : Eigen::ColMajor;
  using Traits = Eigen::internal::gebp_traits<T, T>;
  using Rows = Eigen::internal::const_blas_data_mapper<T, Index, Eigen::ColMajor>;
  using Part = Eigen::internal::const_blas_data_mapper<T, Index, order>;
  using Result = Eigen::internal::blas_data_mapper<T, Index, Eigen::ColMajor>;
  Eigen::internal::gemm_pack_lhs<T, Index, Part, Traits::mr, Traits::LhsProgress,
                                 typename Traits::LhsPacket4Packing, order>
      pack_b;
  Eigen::internal::gemm_pack_rhs<T, Index, Rows, Traits::nr, Eigen::ColMajor> pack_a;
  Eigen::internal::gebp_kernel<T, T, Index, Result, Traits::mr, Traits::nr> kernel;

  const ProductSplit<T> split(c.rows(), c.cols(), depth);
  // Two panels of the kernel at a time: whole ones, so that each is packed as all at once would be.
  constexpr Index height = 2 * Index{Traits::mr};
  const Index block = whole_lines(height * split.block_depth());
  T* const parts = scratch<T, ReadBlocks>(block * split.pieces());
  split.for_each_piece(c.rows(), c.cols(), [&](const auto& piece, Packing<T>& packing) {
    const Index row = piece.row;
    const Index rows = piece.rows;
    const Index col = piece.col;
    const Index cols = piece.cols;
    T* const part = parts + piece.number * block;

    const auto pack_block = [&](Index from, Index size, Index begin, Index length) {
      for (Index i = 0; i < size; i += height) {
        const Index panel = std::min(height, size - i);
        const Index wide = transposed ? length : panel;
        const MutableMap<T> to(part, transposed ? panel : length, wide, Eigen::OuterStride<>(wide));
        read(transposed ? from + i : begin, transposed ? begin : from + i, to);
        pack_b(packing.blockA() + i * length, Part(part, wide), length, panel);
      }
    };
    const bool pack_a_once = packing.mc() != cols && packing.kc() == depth && packing.nc() == rows;
    for (Index i = 0; i < cols; i += packing.mc()) {
      const Index size = std::min(packing.mc(), cols - i);
      for (Index k = 0; k < depth; k += packing.kc()) {
        const Index length = std::min(packing.kc(), depth - k);
        pack_block(col + i, size, k, length);
        for (Index j = 0; j < rows; j += packing.nc()) {
          const Index some = std::min(packing.nc(), rows - j);
          if (!pack_a_once || i == 0) {
            const Rows from(a.data() + (row + j) * a.outerStride() + k, a.outerStride());
            pack_a(packing.blockB(), from, length, some);
          }
          kernel(Result(c.data() + (row + j) * c.outerStride() + col + i, c.outerStride()),
                 packing.blockA(), packing.blockB(), size, length, some, T(1));
        }
      }
    }
  });
}

struct PackedRows;

/// A right factor b [depth, cols] packed for Eigen's kernel once, for many products of a few rows,
/// each of which would pack it again. A copy as large as b; any number of threads may multiply with
/// it.
template <class T>
class PackedFactor {
 public:
  PackedFactor() = default;
  explicit PackedFactor(const ConstMap<T>& b) { pack(b); }
  /// Another factor, in the same memory where that is enough.
  void pack(const ConstMap<T>& b) {
    depth_ = b.rows();
    cols_ = b.cols();
    kc_ = block(depth_, cols_);
    block_size_ = whole_lines(kc_ * cols_);
    T* const memory = memory_.shape((depth_ + kc_ - 1) / kc_, block_size_).data();
    using Rows = Eigen::internal::const_blas_data_mapper<T, Index, Eigen::ColMajor>;
    Eigen::internal::gemm_pack_lhs<T, Index, Rows, Traits::mr, Traits::LhsProgress,
                                   typename Traits::LhsPacket4Packing, Eigen::ColMajor>
        pack_lhs;
    for_each_block([&](Index first, Index count) {
      pack_lhs(memory + first / kc_ * block_size_,
               Rows(b.data() + first * b.outerStride(), b.outerStride()), count, cols_);
    });
  }

  /// Takes the memory that this thread's add_product will need for such a factor.
  static void reserve(Index depth, Index cols) { (void)packed_rows(block(depth, cols)); }

  /// c += alpha * a * b on this thread, a few rows of c at a time, which come from memory while
  /// others are computed.
  void add_product(MutableMap<T> c, T alpha, const ConstMap<T>& a) const {
    using Rows = Eigen::internal::const_blas_data_mapper<T, Index, Eigen::ColMajor>;
    using Result = Eigen::internal::blas_data_mapper<T, Index, Eigen::ColMajor>;
    Eigen::internal::gemm_pack_rhs<T, Index, Rows, Traits::nr, Eigen::ColMajor> pack;
    Eigen::internal::gebp_kernel<T, T, Index, Result, Traits::mr, Traits::nr> kernel;
    T* const packed = packed_rows(kc_);
    for (Index row = 0; row < c.rows(); row += Index{Traits::nr}) {
      const Index rows = std::min(Index{Traits::nr}, c.rows() - row);
      for_each_block([&](Index first, Index count) {
        pack(packed, Rows(a.data() + row * a.outerStride() + first, a.outerStride()), count, rows);
        kernel(Result(c.data() + row * c.outerStride(), c.outerStride()),
               memory_.data() + first / kc_ * block_size_, packed, cols_, count, rows, alpha);
      });
    }
  }

 private:
  using Traits = Eigen::internal::gebp_traits<T, T>;

  /// How much of the depth Eigen would take at a time, so that the kernel's panels are cached.
  [[nodiscard]] static Index block(Index depth, Index cols) {
    Index rows = Traits::nr;
    Eigen::internal::computeProductBlockingSizes<T, T, 1>(depth, cols, rows, Index{1});
    return std::max<Index>(depth, 1);
  }
  template <class F>
  void for_each_block(const F& f) const {
    for (Index first = 0; first < depth_; first += kc_) f(first, std::min(kc_, depth_ - first));
  }

  /// A line more than it needs: kernels may look ahead.
  [[nodiscard]] static T* packed_rows(Index depth) {
    return scratch<T, PackedRows>(whole_lines(Index{Traits::nr} * depth) + line_numbers);
  }

  Index depth_ = 0;
  Index cols_ = 0;
  Index kc_ = 1;
  Index block_size_ = 0;  // each begins on a line, as vectors are loaded from there
  Buffer<T> memory_;
};

}  // namespace mora::inline MORA_ABI::detail
