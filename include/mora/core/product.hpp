// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <type_traits>

#include "mora/core/buffer.hpp"
#include "mora/core/lines.hpp"
#include "mora/core/matrix.hpp"
#include "mora/core/matrix_vector.hpp"
#include "mora/core/operand.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/register_block.hpp"
#include "mora/core/scratch.hpp"

/// \file
/// The one place that computes matrix products of any size (narrow ones are faster elsewhere):
/// packing buffers are kept (no allocation once warmed up), results do not depend on the number of
/// threads, no threads spin while they wait for each other, and blocks stay in the caches also
/// where an operand has thousands of columns (docs/results/train_step.md).

namespace mora::inline MORA_ABI::detail {

struct PackedOperands;

/// How much of a depth is summed in one go, of which equal parts are: a panel of the right factor
/// stays in L1, and few enough numbers for a float's digits.
[[nodiscard]] inline Index depth_part(Index depth) {
  constexpr Index most = 256;
  const Index parts = std::max<Index>(1, (depth + most - 1) / most);
  return std::max<Index>(1, (depth + parts - 1) / parts);
}

/// How a product [rows, cols] over `depth` is cut into pieces for the threads, and these into
/// blocks for the caches. Every number is summed in the same order whatever the cut.
///
/// Columns follow so few at a time that their packed block is read from L2; for them rows of a tile
/// are read of the left factor, so much of the depth at a time that they take at most 2 MB, which
/// L3 holds.
template <class T>
class ProductSplit {
 public:
  /// Rows that share what is packed of the right factor.
  static constexpr Index most_tile_rows = 1024;

  ProductSplit(Index rows, Index cols, Index depth) : block_depth_(depth_part(depth)) {
    constexpr double worth_a_thread = 1 << 17;  // multiply-adds; a thread costs microseconds
    const double work = double(rows) * double(cols) * double(depth);
    const Index threads =
        std::clamp<Index>(static_cast<Index>(work / worth_a_thread), 1, thread_count());
    by_columns_ = cols / panel_cols<T> >= rows / block_rows;
    size_ = by_columns_ ? cols : rows;
    const Index step = by_columns_ ? panel_cols<T> : Index{block_rows};
    piece_ = threads == 1 ? size_ : ((size_ + step - 1) / step + threads - 1) / threads * step;
    // A row alone may be summed otherwise: compilers form no fused operations in a single chain.
    while (!by_columns_ && piece_ < size_ && size_ % piece_ == 1) piece_ += step;

    const Index piece_rows = by_columns_ ? rows : piece_;
    const Index most_rows =
        std::clamp<Index>(most_packed / block_depth_, block_rows, most_tile_rows);
    const Index tiles = (piece_rows + most_rows - 1) / most_rows;
    tile_rows_ = (piece_rows + tiles - 1) / tiles;
    const Index fitting = most_packed / (tile_rows_ * block_depth_);
    part_depth_ = std::max<Index>(fitting, 1) * block_depth_;
    left_block_ = whole_lines(tile_rows_ * block_depth_);
    const Index blocks = (std::min(part_depth_, depth) + block_depth_ - 1) / block_depth_;
    packed_ = right_block() + blocks * left_block_;
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

  /// c += alpha op(a) b on all threads, for a right factor that `pack_right(to, col, cols, k,
  /// depth, piece)` packs.
  template <Operand OpA, class PackRight>
  void run(MutableMap<T> c, T alpha, const ConstMap<T>& a, Index depth,
           const PackRight& pack_right) const {
    T* const buffers = memory();
    constexpr bool plain = OpA == Operand::plain;
    const bool packs = !plain || far_apart(a.outerStride());
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
          if (packs) {
            for_each_block([&](T* packed, Index k, Index length) {
              pack_left<OpA>(packed, a, piece.row + row, rows, k, length);
            });
          }
          for (Index col = 0; col < piece.cols; col += block_cols) {
            const Index cols = std::min(block_cols, piece.cols - col);
            T* const result = c.data() + (piece.row + row) * c.outerStride() + piece.col + col;
            for_each_block([&](const T* packed, Index k, Index length) {
              const Panels<T> panels =
                  pack_right(right, piece.col + col, cols, k, length, piece.number);
              for_each_row_block(rows, [&](Index i, Index block) {
                LeftRows<T> own{a.data() + (piece.row + row + i) * a.outerStride() + k,
                                a.outerStride(), 1};
                if (packs) {
                  own = plain ? LeftRows<T>{packed + i * length, length, 1}
                              : LeftRows<T>{packed + i * length, 1, block};
                }
                multiply_rows<true>(result + i * c.outerStride(), c.outerStride(), block, cols,
                                    alpha, own, panels, length);
              });
            });
          }
        }
      }
    });
  }

 private:
  static constexpr Index block_cols = 6 * panel_cols<T>;
  static constexpr Index most_packed = (Index{1} << 21) / Index{sizeof(T)};

  /// Rows so far apart are in one another's places of L1, and each on a page of its own.
  [[nodiscard]] static bool far_apart(Index stride) {
    return stride * Index{sizeof(T)} >= Index{1} << 12;
  }

  /// Rows of op(a) that follow one another, so that L1 holds those of a block.
  template <Operand OpA>
  static void pack_left(T* to, const ConstMap<T>& a, Index row, Index rows, Index k, Index depth) {
    if constexpr (OpA == Operand::plain) {
      for (Index i = row; i < row + rows; ++i, to += depth) {
        std::copy_n(a.data() + i * a.outerStride() + k, depth, to);
      }
      return;
    }
    const T* const from = a.data() + k * a.outerStride() + row;
    for_each_row_block(rows, [&](Index i, Index block) {
      const auto copy = [&](auto count) {
        const T* own = from + i;
        for (Index l = 0; l < depth; ++l, own += a.outerStride(), to += count) {
          for (Index j = 0; j < count; ++j) to[j] = own[j];
        }
      };
      block == block_rows ? copy(std::integral_constant<Index, block_rows>()) : copy(block);
    });
  }

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
      .template run<OpA>(
          c, alpha, a, depth, [&](T* to, Index col, Index cols, Index k, Index length, Index) {
            return b_plain ? pack_panels(to, columns_of(rows_of(b, k, length), col, cols))
                           : pack_panels_of_transposed(
                                 to, columns_of(rows_of(b, col, cols), k, length));
          });
}

struct ReadBlocks;

/// c += a op(b) for a b that is not in memory as T: `read(row, col, to)` returns the part of b that
/// begins there, of the size of `to`, where it may write it: parts that fit the cache, each once
/// for every tile of rows. The sums are those of add_product, in the same order, where c has more
/// than one row: the same bits.
template <Operand OpB, class T, class Read>
void add_product_by_parts(MutableMap<T> c, const ConstMap<T>& a, const Read& read) {
  const Index depth = a.cols();
  if (c.rows() == 0 || c.cols() == 0 || depth == 0) return;

  constexpr bool transposed = OpB == Operand::transposed;
  const ProductSplit<T> split(c.rows(), c.cols(), depth);
  const Index block = split.right_block();
  T* const parts = scratch<T, ReadBlocks>(block * split.pieces());
  split.template run<Operand::plain>(
      c, T(1), a, depth, [&](T* to, Index col, Index cols, Index k, Index length, Index piece) {
        T* const part = parts + piece * block;
        const Index wide = transposed ? length : cols;
        const ConstMap<T> b =
            read(transposed ? col : k, transposed ? k : col,
                 MutableMap<T>(part, transposed ? cols : length, wide, Eigen::OuterStride<>(wide)));
        return transposed ? pack_panels_of_transposed(to, b) : pack_panels(to, b);
      });
}

/// A right factor op(b) [depth, cols] packed for the kernel once, for many products, each of which
/// would pack it again. A copy as large as b; any number of threads may multiply with it.
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
    part_ = depth_part(depth_);
    T* to = memory_.shape(depth_, packed_size<T>(cols_, 1)).data();
    for (Index k = 0; k < depth_; k += part_) {
      const Index length = std::min(part_, depth_ - k);
      if constexpr (plain) {
        pack_panels(to, rows_of(b, k, length));
      } else {
        pack_panels_of_transposed(to, columns_of(b, k, length));
      }
      to += packed_size<T>(cols_, length);
    }
  }

  /// c = alpha a b on this thread, all columns of a few rows after one another, as c may be far
  /// larger than the caches.
  void product(MutableMap<T> c, T alpha, const ConstMap<T>& a) const {
    if (depth_ == 0) c.setZero();
    run(c, alpha, a, false);
  }
  /// c += alpha a b.
  void add_product(MutableMap<T> c, T alpha, const ConstMap<T>& a) const { run(c, alpha, a, true); }

 private:
  void run(MutableMap<T> c, T alpha, const ConstMap<T>& a, bool adds) const {
    const T* b = memory_.data();
    for (Index k = 0; k < depth_; k += part_) {
      const Index length = std::min(part_, depth_ - k);
      const Panels<T> panels{b, panel_cols<T> * length, panel_cols<T>};
      for_each_row_block(c.rows(), [&](Index i, Index rows) {
        const LeftRows<T> own{a.data() + i * a.outerStride() + k, a.outerStride(), 1};
        T* const to = c.data() + i * c.outerStride();
        adds || k > 0
            ? multiply_rows<true>(to, c.outerStride(), rows, cols_, alpha, own, panels, length)
            : multiply_rows<false>(to, c.outerStride(), rows, cols_, alpha, own, panels, length);
      });
      b += packed_size<T>(cols_, length);
    }
  }

  Index depth_ = 0;
  Index cols_ = 0;
  Index part_ = 1;
  Buffer<T> memory_;
};

}  // namespace mora::inline MORA_ABI::detail
