// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "mora/core/buffer.hpp"
#include "mora/core/lines.hpp"
#include "mora/core/matrix.hpp"
#include "mora/core/matrix_vector.hpp"
#include "mora/core/operand.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/product_kernel.hpp"
#include "mora/core/scratch.hpp"

/// \file
/// The one place that computes matrix products of any size (narrow ones are faster elsewhere), with
/// loops of its own around Eigen's packing and kernel, for four things that Eigen's expression for
/// a product does not give: packing buffers that are kept (no allocation once warmed up), results
/// that do not depend on the number of threads, no threads that spin while they wait for each
/// other, and blocks that stay in the caches also where an operand has thousands of columns
/// (docs/results/train_step.md).

namespace mora::inline MORA_ABI::detail {

struct PackedOperands;

/// How a product [rows, cols] over `depth` is cut into pieces for the threads, and these into
/// blocks for the caches, along the register blocks of Eigen's kernel, so that every number is
/// summed in the same order whatever the number of threads.
///
/// A tile of rows is packed once, as long as that takes at most 2 MB, which L3 holds: a part of the
/// depth otherwise. Then columns follow, so few at a time that their packed block is read from L2.
template <class T>
class ProductSplit {
 public:
  /// Rows that share what is packed of the right factor.
  static constexpr Index most_tile_rows = 1024;

  ProductSplit(Index rows, Index cols, Index depth) : block_depth_(kernel_depth<T>(depth, cols)) {
    using Kernel = ProductKernel<T>;
    constexpr double worth_a_thread = 1 << 17;  // multiply-adds; a thread costs microseconds
    const double work = double(rows) * double(cols) * double(depth);
    const Index threads =
        std::clamp<Index>(static_cast<Index>(work / worth_a_thread), 1, thread_count());
    by_columns_ = cols / Kernel::register_cols >= rows / Kernel::register_rows;
    size_ = by_columns_ ? cols : rows;
    const Index step = by_columns_ ? Kernel::register_cols : Kernel::register_rows;
    piece_ = threads == 1 ? size_ : ((size_ + step - 1) / step + threads - 1) / threads * step;

    const Index piece_rows = by_columns_ ? rows : piece_;
    const Index most_rows =
        std::clamp<Index>(most_packed / block_depth_, Kernel::register_rows, most_tile_rows);
    const Index tiles = (piece_rows + most_rows - 1) / most_rows;
    tile_rows_ = ((piece_rows + tiles - 1) / tiles + Kernel::register_rows - 1) /
                 Kernel::register_rows * Kernel::register_rows;
    const Index fitting = most_packed / (tile_rows_ * block_depth_);
    part_depth_ = std::max<Index>(fitting, 1) * block_depth_;
    left_block_ = whole_lines(tile_rows_ * block_depth_);
    const Index blocks = (std::min(part_depth_, depth) + block_depth_ - 1) / block_depth_;
    packed_ = right_block() + blocks * left_block_ + line_numbers;  // kernels may look ahead
  }

  [[nodiscard]] Index pieces() const { return (size_ + piece_ - 1) / piece_; }
  /// Numbers of a packed block of the right factor.
  [[nodiscard]] Index right_block() const { return whole_lines(block_cols * block_depth_); }

  /// Takes packing buffers for all pieces: the calling thread's, so that once they are there
  /// nothing can fail half-way.
  T* memory() const { return scratch<T, PackedOperands>(packed_ * pieces()); }

  /// Rows [row, row + rows) and columns [col, col + cols) of the result.
  struct Piece {
    Index number;
    Index row;
    Index rows;
    Index col;
    Index cols;
  };

  /// c += alpha a b on all threads, for factors that `pack_left(to, row, rows, k, depth)` and
  /// `pack_right(to, col, cols, k, depth, piece)` write to `to` as the kernel reads them.
  template <class PackLeft, class PackRight>
  void run(MutableMap<T> c, T alpha, Index depth, const PackLeft& pack_left,
           const PackRight& pack_right) const {
    T* const buffers = memory();
    parallel_pieces(size_, piece_, [&](Index first, Index count) {
      const Index number = first / piece_;
      const Piece piece = by_columns_ ? Piece{number, 0, c.rows(), first, count}
                                      : Piece{number, first, count, 0, c.cols()};
      T* const right = buffers + number * packed_;
      T* const left = right + right_block();
      for (Index row = 0; row < piece.rows; row += tile_rows_) {
        const Index rows = std::min(tile_rows_, piece.rows - row);
        for (Index part = 0; part < depth; part += part_depth_) {
          const Index end = std::min(part + part_depth_, depth);
          const auto for_each_block = [&](const auto& f) {
            T* packed = left;
            for (Index k = part; k < end; k += block_depth_, packed += left_block_) {
              f(packed, k, std::min(block_depth_, end - k));
            }
          };
          for_each_block([&](T* packed, Index k, Index length) {
            pack_left(packed, piece.row + row, rows, k, length);
          });
          for (Index col = 0; col < piece.cols; col += block_cols) {
            const Index cols = std::min(block_cols, piece.cols - col);
            T* const result = c.data() + (piece.row + row) * c.outerStride() + piece.col + col;
            for_each_block([&](const T* packed, Index k, Index length) {
              pack_right(right, piece.col + col, cols, k, length, piece.number);
              ProductKernel<T>::add(result, c.outerStride(), packed, right, rows, cols, length,
                                    alpha);
            });
          }
        }
      }
    });
  }

 private:
  static constexpr Index block_cols = 4 * ProductKernel<T>::register_cols;
  static constexpr Index most_packed = (Index{1} << 21) / Index{sizeof(T)};

  Index block_depth_;
  bool by_columns_;
  Index size_;
  Index piece_;
  Index tile_rows_;
  Index part_depth_;
  Index left_block_;
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
  ProductSplit<T>(c.rows(), c.cols(), depth)
      .run(
          c, alpha, depth,
          [&](T* to, Index row, Index rows, Index k, Index length) {
            const T* const from =
                a.data() + (a_plain ? row * a.outerStride() + k : k * a.outerStride() + row);
            ProductKernel<T>::template pack_left<OpA>(to, from, a.outerStride(), rows, length);
          },
          [&](T* to, Index col, Index cols, Index k, Index length, Index /*piece*/) {
            const T* const from =
                b.data() + (b_plain ? k * b.outerStride() + col : col * b.outerStride() + k);
            ProductKernel<T>::template pack_right<OpB>(to, from, b.outerStride(), cols, length);
          });
}

struct ReadBlocks;

/// c += a op(b) for a b that is not in memory as T: `read(row, col, to)` returns the part of b that
/// begins there, of the size of `to`, where it may write it: parts that fit the cache, each once
/// for every tile of rows. The sums are those of add_product, in the same order, where c has more
/// than one row: the same bits.
template <Operand OpB, class T, class Read>
void add_product_by_parts(MutableMap<T> c, const ConstMap<T>& a, const Read& read) {
  using Kernel = ProductKernel<T>;
  const Index depth = a.cols();
  if (c.rows() == 0 || c.cols() == 0 || depth == 0) return;

  constexpr bool transposed = OpB == Operand::transposed;
  const ProductSplit<T> split(c.rows(), c.cols(), depth);
  const Index block = split.right_block();
  T* const parts = scratch<T, ReadBlocks>(block * split.pieces());
  split.run(
      c, T(1), depth,
      [&](T* to, Index row, Index rows, Index k, Index length) {
        Kernel::template pack_left<Operand::plain>(to, a.data() + row * a.outerStride() + k,
                                                   a.outerStride(), rows, length);
      },
      [&](T* to, Index col, Index cols, Index k, Index length, Index piece) {
        T* const part = parts + piece * block;
        const Index wide = transposed ? length : cols;
        const ConstMap<T> b =
            read(transposed ? col : k, transposed ? k : col,
                 MutableMap<T>(part, transposed ? cols : length, wide, Eigen::OuterStride<>(wide)));
        Kernel::template pack_right<OpB>(to, b.data(), b.outerStride(), cols, length);
      });
}

struct PackedRows;

/// A right factor op(b) [depth, cols] packed for Eigen's kernel once, for many products, each of
/// which would pack it again. A copy as large as b; any number of threads may multiply with it.
template <class T>
class PackedFactor {
 public:
  PackedFactor() = default;
  explicit PackedFactor(const ConstMap<T>& b) { pack(b); }
  /// Another factor, in the same memory where that is enough.
  template <Operand Op = Operand::plain>
  void pack(const ConstMap<T>& b) {
    constexpr bool plain = Op == Operand::plain;
    depth_ = plain ? b.rows() : b.cols();
    cols_ = plain ? b.cols() : b.rows();
    kc_ = kernel_depth<T>(depth_, cols_);
    block_size_ = whole_lines(kc_ * cols_);
    T* const memory = memory_.shape((depth_ + kc_ - 1) / kc_, block_size_).data();
    for_each_block([&](Index first, Index count) {
      Kernel::template pack_right<Op>(memory + first / kc_ * block_size_,
                                      b.data() + first * (plain ? b.outerStride() : 1),
                                      b.outerStride(), cols_, count);
    });
  }

  /// Takes the memory that this thread's add_product will need for such a factor.
  static void reserve(Index depth, Index cols) {
    (void)packed_rows(kernel_depth<T>(depth, cols), Kernel::register_rows);
  }

  /// c += alpha * a * b on this thread, a few rows of c at a time, which come from memory while
  /// others are computed.
  void add_product(MutableMap<T> c, T alpha, const ConstMap<T>& a) const {
    add_product(c, alpha, a, Kernel::register_rows);
  }
  /// The same for a c that the caches hold, with more rows at a time.
  void add_tall_product(MutableMap<T> c, T alpha, const ConstMap<T>& a) const {
    add_product(c, alpha, a, std::min<Index>(whole_lines(c.rows()), 512));
  }

 private:
  using Kernel = ProductKernel<T>;

  void add_product(MutableMap<T> c, T alpha, const ConstMap<T>& a, Index tile) const {
    T* const packed = packed_rows(kc_, tile);
    for (Index row = 0; row < c.rows(); row += tile) {
      const Index rows = std::min(tile, c.rows() - row);
      for_each_block([&](Index first, Index count) {
        Kernel::template pack_left<Operand::plain>(packed, a.data() + row * a.outerStride() + first,
                                                   a.outerStride(), rows, count);
        Kernel::add(c.data() + row * c.outerStride(), c.outerStride(), packed,
                    memory_.data() + first / kc_ * block_size_, rows, cols_, count, alpha);
      });
    }
  }

  template <class F>
  void for_each_block(const F& f) const {
    for (Index first = 0; first < depth_; first += kc_) f(first, std::min(kc_, depth_ - first));
  }

  /// A line more than it needs: kernels may look ahead.
  [[nodiscard]] static T* packed_rows(Index depth, Index rows) {
    return scratch<T, PackedRows>(whole_lines(rows * depth) + line_numbers);
  }

  Index depth_ = 0;
  Index cols_ = 0;
  Index kc_ = 1;
  Index block_size_ = 0;  // each begins on a line, as vectors are loaded from there
  Buffer<T> memory_;
};

}  // namespace mora::inline MORA_ABI::detail
