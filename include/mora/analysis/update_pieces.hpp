// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/SparseCore>
#include <cmath>
#include <cstddef>
#include <functional>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "mora/adapters/lokr.hpp"
#include "mora/adapters/lora.hpp"
#include "mora/adapters/miss.hpp"
#include "mora/adapters/mora.hpp"

/// \file
/// The structure of an adapter's update, in double: parts of it that touch neither a row nor a
/// column of each other, each a product of two factors. What analysis is exact and fast through.

namespace mora::inline MORA_ABI::detail {

using MatrixXd = Eigen::MatrixXd;

/// What is asked of pieces: the update's numbers, or singular values alone.
enum class PieceForm { exact, same_values };

/// The rows and columns of the update with these numbers are left * right^T. In the form
/// same_values only the singular values are, and the numbers say nothing.
struct UpdatePiece {
  std::vector<Index> rows;
  std::vector<Index> cols;
  MatrixXd left;   // [rows, p]
  MatrixXd right;  // [cols, p]
};

/// An operator's map from z: D, or the adjoint of C. Behind one type, so that what follows is
/// compiled once and not for every operator.
using MapOfZ = std::function<void(std::span<const double> z, std::span<double> result)>;

/// C^T or D as a sparse matrix [features, blocks * side], read off by applying the operator to unit
/// vectors: the operator's concept needs nothing more for it.
[[nodiscard]] inline Eigen::SparseMatrix<double> columns_of(Index features, Index width,
                                                            const MapOfZ& apply) {
  std::vector<Eigen::Triplet<double>> entries;
  std::vector<double> unit(static_cast<std::size_t>(width), 0.0);
  std::vector<double> column(static_cast<std::size_t>(features), 0.0);
  for (std::size_t p = 0; p < unit.size(); ++p) {
    unit[p] = 1.0;
    apply(std::span<const double>(unit), std::span<double>(column));
    unit[p] = 0.0;
    for (std::size_t i = 0; i < column.size(); ++i) {
      if (column[i] == 0.0) continue;
      entries.emplace_back(static_cast<int>(i), static_cast<int>(p), column[i]);
      column[i] = 0.0;
    }
  }
  Eigen::SparseMatrix<double> matrix(features, width);
  matrix.setFromTriplets(entries.begin(), entries.end());
  return matrix;
}

/// Sets of blocks that share inputs or outputs; blocks of different sets touch different rows and
/// columns of the update, so that its singular values are those of the sets together.
class BlockSets {
 public:
  BlockSets(Index blocks, Index side) : side_(side), parent_(static_cast<std::size_t>(blocks)) {
    std::iota(parent_.begin(), parent_.end(), std::size_t{0});
  }
  /// Joins the blocks whose columns meet in a row.
  void join_columns(const Eigen::SparseMatrix<double>& matrix) {
    const Eigen::SparseMatrix<double, Eigen::RowMajor> by_row(matrix);
    for (Index row = 0; row < by_row.outerSize(); ++row) {
      Eigen::SparseMatrix<double, Eigen::RowMajor>::InnerIterator entry(by_row, row);
      if (!entry) continue;
      const std::size_t first = root(entry.col() / side_);
      for (++entry; entry; ++entry) parent_[root(entry.col() / side_)] = first;
    }
  }
  [[nodiscard]] std::vector<std::vector<Index>> sets() {
    std::vector<std::vector<Index>> all(parent_.size());
    for (std::size_t block = 0; block < parent_.size(); ++block) {
      all[root(static_cast<Index>(block))].push_back(static_cast<Index>(block));
    }
    std::erase_if(all, [](const auto& set) { return set.empty(); });
    return all;
  }

 private:
  std::size_t root(Index block) {
    auto b = static_cast<std::size_t>(block);
    while (parent_[b] != b) b = parent_[b] = parent_[parent_[b]];
    return b;
  }
  Index side_;
  std::vector<std::size_t> parent_;
};

/// The columns of some blocks as a dense matrix, without the rows that they do not touch: `rows`
/// receives the numbers of the others. In the form same_values all rows with a single entry in the
/// same column become one, of their norm, which only rotates rows: with sharing and truncation few
/// others are left.
[[nodiscard]] inline MatrixXd dense_columns(const Eigen::SparseMatrix<double>& matrix,
                                            const std::vector<Index>& blocks, Index side,
                                            PieceForm form, std::vector<Index>& rows) {
  const auto for_each_entry = [&](const auto& f) {
    Index column = 0;
    for (const Index block : blocks) {
      for (Index i = 0; i < side; ++i, ++column) {
        for (Eigen::SparseMatrix<double>::InnerIterator e(matrix, block * side + i); e; ++e) {
          f(e.row(), column, e.value());
        }
      }
    }
  };
  std::vector<Index> entries(static_cast<std::size_t>(matrix.rows()), 0);
  for_each_entry([&](Index row, Index, double) { ++entries[static_cast<std::size_t>(row)]; });

  const Index width = std::ssize(blocks) * side;
  std::vector<Index> place(entries.size(), -1);
  std::vector<Index> single(static_cast<std::size_t>(width), -1);  // the row of a column's norm
  for_each_entry([&](Index row, Index column, double) {
    const auto r = static_cast<std::size_t>(row);
    if (place[r] >= 0) return;
    const bool joins = form == PieceForm::same_values && entries[r] == 1;
    Index& there = joins ? single[static_cast<std::size_t>(column)] : place[r];
    if (there < 0) {
      there = std::ssize(rows);
      rows.push_back(row);
    }
    place[r] = there;
  });
  MatrixXd dense = MatrixXd::Zero(std::ssize(rows), width);
  for_each_entry([&](Index row, Index column, double value) {
    double& sum = dense(place[static_cast<std::size_t>(row)], column);
    sum = sum == 0.0 ? value : std::hypot(sum, value);
  });
  return dense;
}

/// A piece of all rows and columns.
[[nodiscard]] inline UpdatePiece whole_piece(Index out, Index in) {
  UpdatePiece piece;
  piece.rows.resize(static_cast<std::size_t>(out));
  piece.cols.resize(static_cast<std::size_t>(in));
  std::iota(piece.rows.begin(), piece.rows.end(), Index{0});
  std::iota(piece.cols.begin(), piece.cols.end(), Index{0});
  return piece;
}

/// s B A: one piece.
template <Real T>
[[nodiscard]] std::vector<UpdatePiece> update_pieces(const LoraAdapter<T>& adapter,
                                                     PieceForm /*form*/ = PieceForm::exact) {
  adapter.require_shapes();
  UpdatePiece piece = whole_piece(adapter.out_features(), adapter.in_features());
  piece.left = adapter.settings().scale() * adapter.b().value.template cast<double>();
  piece.right = adapter.a().value.transpose().template cast<double>();
  return {std::move(piece)};
}

/// D^T S: one piece.
template <Real T>
[[nodiscard]] std::vector<UpdatePiece> update_pieces(const MissAdapter<T>& adapter,
                                                     PieceForm /*form*/ = PieceForm::exact) {
  adapter.require_shapes();
  UpdatePiece piece = whole_piece(adapter.out_features(), adapter.in_features());
  piece.left = adapter.matrix().value.transpose().template cast<double>();
  piece.right = MatrixXd::Zero(adapter.in_features(), piece.left.cols());
  for (Index j = 0; j < piece.right.rows(); ++j) piece.right(j, j % piece.right.cols()) = 1.0;
  return {std::move(piece)};
}

/// A factor of LoKr's as left * right^T, no wider than it has to be.
template <Real T>
[[nodiscard]] std::pair<MatrixXd, MatrixXd> halves_of(const LokrFactor<T>& factor, bool thin) {
  const MatrixXd a = factor.a.value.template cast<double>();
  if (thin) return {a, factor.b.value.transpose().template cast<double>()};
  if (a.cols() <= a.rows()) return {a, MatrixXd::Identity(a.cols(), a.cols())};
  return {MatrixXd::Identity(a.rows(), a.rows()), a.transpose()};
}

/// a (x) b.
[[nodiscard]] inline MatrixXd kronecker(const MatrixXd& a, const MatrixXd& b) {
  MatrixXd product(a.rows() * b.rows(), a.cols() * b.cols());
  for (Index i = 0; i < a.rows(); ++i) {
    for (Index j = 0; j < a.cols(); ++j) {
      product.block(i * b.rows(), j * b.cols(), b.rows(), b.cols()) = a(i, j) * b;
    }
  }
  return product;
}

/// s W1 (x) W2: one piece, whose halves are the Kronecker products of theirs.
template <Real T>
[[nodiscard]] std::vector<UpdatePiece> update_pieces(const LokrAdapter<T>& adapter,
                                                     PieceForm /*form*/ = PieceForm::exact) {
  adapter.require_shapes();
  UpdatePiece piece = whole_piece(adapter.out_features(), adapter.in_features());
  const auto [left1, right1] = halves_of(adapter.w1(), adapter.shape().thin1);
  const auto [left2, right2] = halves_of(adapter.w2(), adapter.shape().thin2);
  piece.left = adapter.settings().scale() * kronecker(left1, left2);
  piece.right = kronecker(right1, right2);
  return {std::move(piece)};
}

/// D(M C) from C^T, D and M: a piece for each set of blocks that touch each other, D's and M's part
/// times C's. With rotation each whole block is such a set.
[[nodiscard]] inline std::vector<UpdatePiece> mora_pieces(
    const Eigen::SparseMatrix<double>& inputs, const Eigen::SparseMatrix<double>& outputs,
    const MatrixXd& m, PieceForm form) {
  const Index side = m.rows();
  BlockSets joined(inputs.cols() / side, side);
  joined.join_columns(inputs);
  joined.join_columns(outputs);
  std::vector<UpdatePiece> pieces;
  for (const std::vector<Index>& blocks : joined.sets()) {
    UpdatePiece piece;
    piece.left = dense_columns(outputs, blocks, side, form, piece.rows);
    if (piece.left.size() == 0) continue;
    for (Index start = 0; start < piece.left.cols(); start += side) {
      piece.left.middleCols(start, side) = (piece.left.middleCols(start, side) * m).eval();
    }
    piece.right = dense_columns(inputs, blocks, side, form, piece.cols);
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

template <Real T, class Op>
[[nodiscard]] std::vector<UpdatePiece> update_pieces(const MoraAdapter<T, Op>& adapter,
                                                     PieceForm form = PieceForm::exact) {
  adapter.require_shapes();
  const auto& c = adapter.compressor();
  const auto& d = adapter.decompressor();
  const Index width = c.blocks() * adapter.side();
  return mora_pieces(
      columns_of(c.in_features(), width, [&](auto z, auto x) { c.add_adjoint(z, x); }),
      columns_of(d.out_features(), width, [&](auto z, auto y) { d.add(z, y); }),
      adapter.settings().scale * adapter.matrix().value.template cast<double>(), form);
}

}  // namespace mora::inline MORA_ABI::detail
