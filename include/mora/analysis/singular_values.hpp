// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

#include "mora/adapters/linear.hpp"
#include "mora/analysis/product_svd.hpp"
#include "mora/analysis/spectrum.hpp"
#include "mora/analysis/update_pieces.hpp"

/// \file
/// The singular values of an adapter's update, in double, through its structure: LoRA's from its
/// two thin factors, MoRA's from D, M and C, piece by piece where blocks do not touch each other.
/// At 4096 x 4096 and rank 8 that takes about a second where a dense SVD takes minutes. All of it
/// is exact up to rounding.

namespace mora::inline MORA_ABI {
namespace detail {

template <class Derived>
void require_finite_update(const Eigen::DenseBase<Derived>& factor) {
  if (!all_finite(factor)) throw NumericError("spectrum: the update is not finite");
}

[[nodiscard]] inline Eigen::VectorXd dense_singular_values(const MatrixXd& matrix) {
  if (matrix.size() == 0) return {};
  require_finite_update(matrix);
  return dense_svd(matrix, SingularVectors::none).values;
}

/// Descending, at most min(rows, cols) of them.
[[nodiscard]] inline Spectrum make_spectrum(Index rows, Index cols, std::vector<double> values) {
  std::sort(values.begin(), values.end(), std::greater<>());
  const auto count = std::min(values.size(), static_cast<std::size_t>(std::min(rows, cols)));
  return {rows, cols, Eigen::Map<const Eigen::VectorXd>(values.data(), static_cast<Index>(count))};
}

}  // namespace detail

/// The singular values of any dense matrix [m, n]; O(m n min(m, n)). Throws NumericError for
/// numbers that are not finite and for singular values beyond double, as all overloads do.
[[nodiscard]] inline Spectrum spectrum(const MatrixView<double>& matrix) {
  return {matrix.rows(), matrix.cols(), detail::dense_singular_values(matrix)};
}

/// Of an adapter's update, from its pieces: of s B A by QR of both factors and the SVD of an r x r
/// matrix, O((in + out) r^2); of s D(M C) with sharing and truncation, and a whole block of
/// rotation, from a side x side matrix, O(side^3). Throws ShapeError for parameters that were given
/// another shape.
template <class A>
requires requires(const A& adapter) { detail::update_pieces(adapter); }
[[nodiscard]] Spectrum spectrum(const A& adapter) {
  std::vector<double> values;
  for (const detail::UpdatePiece& piece :
       detail::update_pieces(adapter, detail::PieceForm::same_values)) {
    detail::require_finite_update(piece.left);
    detail::require_finite_update(piece.right);
    const Eigen::VectorXd part =
        detail::product_svd(piece.left, piece.right, detail::SingularVectors::none).values;
    values.insert(values.end(), part.begin(), part.end());
  }
  return detail::make_spectrum(adapter.out_features(), adapter.in_features(), std::move(values));
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
