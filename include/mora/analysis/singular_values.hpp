// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/QR>
#include <Eigen/SVD>
#include <Eigen/SparseCore>
#include <algorithm>
#include <functional>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "mora/adapters/linear.hpp"
#include "mora/analysis/spectrum.hpp"

/// \file
/// The singular values of an adapter's update, in double, through its structure: LoRA's from its
/// two thin factors, MoRA's from D, M and C, piece by piece where blocks do not touch each other.
/// At 4096 x 4096 and rank 8 that takes about a second where a dense SVD takes minutes. All of it
/// is exact up to rounding.

namespace mora::inline MORA_ABI {
namespace detail {

using MatrixXd = Eigen::MatrixXd;

template <class Derived>
void require_finite_update(const Eigen::DenseBase<Derived>& factor) {
  if (!all_finite(factor)) throw NumericError("spectrum: the update is not finite");
}

[[nodiscard]] inline Eigen::VectorXd dense_singular_values(const MatrixXd& matrix) {
  if (matrix.size() == 0) return {};
  require_finite_update(matrix);
  return Eigen::BDCSVD<MatrixXd>(matrix).singularValues();
}

/// Of left * right^T, [n, p] and [m, p]: from the p x p product of the two triangular factors when
/// p is the smallest size, else of the product itself.
[[nodiscard]] inline Eigen::VectorXd product_singular_values(const MatrixXd& left,
                                                             const MatrixXd& right) {
  require_finite_update(left);
  require_finite_update(right);
  const Index p = left.cols();
  if (p >= std::min(left.rows(), right.rows())) {
    return dense_singular_values(left * right.transpose());
  }
  const auto triangle = [p](const MatrixXd& factor) {
    const Eigen::HouseholderQR<MatrixXd> qr(factor);
    return MatrixXd(qr.matrixQR().topRows(p).template triangularView<Eigen::Upper>());
  };
  return dense_singular_values(triangle(left) * triangle(right).transpose());
}

/// Descending, at most min(rows, cols) of them.
[[nodiscard]] inline Spectrum make_spectrum(Index rows, Index cols, std::vector<double> values) {
  std::sort(values.begin(), values.end(), std::greater<>());
  const auto count = std::min(values.size(), static_cast<std::size_t>(std::min(rows, cols)));
  return {rows, cols, Eigen::Map<const Eigen::VectorXd>(values.data(), static_cast<Index>(count))};
}

/// C^T or D as a sparse matrix [features, blocks * side], read off by applying the operator to unit
/// vectors: the operator's concept needs nothing more for it.
template <class Apply>
[[nodiscard]] Eigen::SparseMatrix<double> columns_of(Index features, Index width, Apply&& apply) {
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

/// The columns of some blocks as a dense matrix, without the rows that they do not touch.
[[nodiscard]] inline MatrixXd dense_columns(const Eigen::SparseMatrix<double>& matrix,
                                            const std::vector<Index>& blocks, Index side) {
  std::vector<Index> place(static_cast<std::size_t>(matrix.rows()), -1);
  const auto for_each_entry = [&](const auto& f) {
    Index column = 0;
    for (const Index block : blocks) {
      for (Index i = 0; i < side; ++i, ++column) {
        for (Eigen::SparseMatrix<double>::InnerIterator e(matrix, block * side + i); e; ++e) {
          f(place[static_cast<std::size_t>(e.row())], column, e.value());
        }
      }
    }
  };
  Index rows = 0;
  for_each_entry([&](Index& row, Index, double) {
    if (row < 0) row = rows++;
  });
  MatrixXd dense = MatrixXd::Zero(rows, static_cast<Index>(blocks.size()) * side);
  for_each_entry([&](Index row, Index column, double value) { dense(row, column) = value; });
  return dense;
}

}  // namespace detail

/// The singular values of any dense matrix [m, n]; O(m n min(m, n)). Throws NumericError for
/// numbers that are not finite, as all overloads do.
[[nodiscard]] inline Spectrum spectrum(const Matrix<double>& matrix) {
  return {matrix.rows(), matrix.cols(), detail::dense_singular_values(matrix)};
}

/// Of s B A: QR of both factors, then the SVD of an r x r matrix; O((in + out) r^2). Throws
/// ShapeError for parameters that were given another shape, as the next overload does.
template <Real T>
[[nodiscard]] Spectrum spectrum(const LoraAdapter<T>& adapter) {
  adapter.require_shapes();
  const detail::MatrixXd left = adapter.b().value.template cast<double>();
  const detail::MatrixXd right = adapter.a().value.transpose().template cast<double>();
  const Eigen::VectorXd values =
      detail::product_singular_values(adapter.settings().scale() * left, right);
  return detail::make_spectrum(adapter.out_features(), adapter.in_features(),
                               {values.begin(), values.end()});
}

/// Of s D(M C): for each set of blocks that touch each other, the product of D's and M's part with
/// C's. For rotation each whole block is such a set, of O(side^3) each; one block takes
/// O((in + out) side^2).
template <Real T, class Op>
[[nodiscard]] Spectrum spectrum(const MoraAdapter<T, Op>& adapter) {
  adapter.require_shapes();
  const Index side = adapter.side();
  const auto& c = adapter.compressor();
  const auto& d = adapter.decompressor();
  const auto inputs = detail::columns_of(c.in_features(), c.blocks() * side,
                                         [&](auto z, auto x) { c.add_adjoint(z, x); });
  const auto outputs =
      detail::columns_of(d.out_features(), c.blocks() * side, [&](auto z, auto y) { d.add(z, y); });
  detail::BlockSets joined(c.blocks(), side);
  joined.join_columns(inputs);
  joined.join_columns(outputs);

  const detail::MatrixXd m =
      adapter.settings().scale * adapter.matrix().value.template cast<double>();
  std::vector<double> values;
  for (const std::vector<Index>& blocks : joined.sets()) {
    detail::MatrixXd left = detail::dense_columns(outputs, blocks, side);
    if (left.size() == 0) continue;
    for (Index start = 0; start < left.cols(); start += side) {
      left.middleCols(start, side) = (left.middleCols(start, side) * m).eval();
    }
    const Eigen::VectorXd part =
        detail::product_singular_values(left, detail::dense_columns(inputs, blocks, side));
    values.insert(values.end(), part.begin(), part.end());
  }
  return detail::make_spectrum(d.out_features(), c.in_features(), std::move(values));
}

/// Of a layer's update: through the adapter's structure where there is an overload for it, else by
/// a dense SVD.
template <Adapter A>
[[nodiscard]] Spectrum spectrum(const AdaptedLinear<A>& layer) {
  if constexpr (requires { spectrum(layer.adapter()); }) {
    return spectrum(layer.adapter());
  } else {
    return spectrum(Matrix<double>(layer.update().template cast<double>()));
  }
}

}  // namespace mora::inline MORA_ABI
