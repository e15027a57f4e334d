// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

#include "mora/adapters/lora.hpp"
#include "mora/adapters/merging.hpp"
#include "mora/analysis/product_svd.hpp"

namespace mora::inline MORA_ABI {

/// What PiSSA starts from: together they compute what the frozen layer did.
template <Real T>
struct PissaStart {
  FrozenLinear<T> residual;  ///< W - s B A, with the frozen layer's bias.
  LoraAdapter<T> adapter;
};

namespace detail {

/// Orthonormal rows that span those of `rows` [n, size], n <= size.
template <class T>
[[nodiscard]] Matrix<T> orthonormal_rows(const Matrix<T>& rows) {
  const Eigen::MatrixXd columns = rows.transpose().template cast<double>();
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(columns);
  const Eigen::MatrixXd q =
      qr.householderQ() * Eigen::MatrixXd::Identity(columns.rows(), columns.cols());
  return q.transpose().cast<T>();
}

}  // namespace detail

/// PiSSA (Meng et al. 2024, arXiv 2404.02948, Eq. 2 to 4): LoRA that starts from the r largest
/// singular values of W = U S V^T: A = (S_r / s)^1/2 V_r^T, B = U_r (S_r / s)^1/2; what is left of
/// W is frozen in its place.
///
///     auto [residual, adapter] = mora::pissa<float>(frozen, {.rank = 8}, generator);
///     mora::LoraLinear<float> layer(residual, std::move(adapter));
///
/// Trained adapters are for that residual. For W as it was, the update is s B A less what it was at
/// the start, a plain LoRA of rank 2 r: `weighted_sum<float>({{&trained, 1.0}, {&start, -1.0}})`.
///
/// The singular vectors are found by subspace iteration from random directions (Halko, Martinsson
/// and Tropp 2011, algorithm 4.4), which is exact only up to how far S falls within `iterations`;
/// that W is what both parts compute does not depend on it. `settings.init` is not used. Cost:
/// 2 (iterations + 1)(r + 8) tokens' work, and memory for W - s B A. Throws ArgumentError for
/// settings out of range, a scale not above 0 and iterations below 0, ShapeError for a rank beyond
/// min(in, out), NumericError for a weight that is not finite.
template <Real T, Generator64 G>
[[nodiscard]] PissaStart<T> pissa(const FrozenLinear<T>& base, const LoraSettings& settings,
                                  G& generator, Index iterations = 16) {
  base.require_usable();
  settings.validate();
  detail::require_at_least<Index>("pissa, iterations", 0, iterations);
  const double scale = settings.scale();
  if (!(scale > 0.0)) {
    throw ArgumentError(detail::concat("alpha, as the scale: expected more than 0, found ", scale));
  }
  const Index in = base.in_features();
  const Index out = base.out_features();
  const Index most = std::min(in, out);
  if (settings.rank > most) {
    throw ShapeError(detail::concat("rank: expected at most min(in_features, out_features) = ",
                                    most, ", found ", settings.rank));
  }
  constexpr Index more = 8;  // than the rank, so that its last directions are found as well
  const Index size = std::min(most, settings.rank + more);

  // Rows of `left` span the outputs' side of the largest singular vectors, of `right` the inputs'.
  Matrix<T> right(size, in);
  fill_normal(right, 1.0, generator);
  Matrix<T> left(size, out);
  const auto to_left = [&] {
    left.setZero();
    detail::FrozenAccess::add_product<detail::Operand::transposed>(
        base, detail::map_of(left), detail::map_of(std::as_const(right)));
    if (!detail::all_finite(left)) {
      throw NumericError("pissa: the weight, or a product with it, is not finite");
    }
    left = detail::orthonormal_rows(left);
  };
  const auto to_right = [&] {
    right.setZero();
    detail::FrozenAccess::add_product<detail::Operand::plain>(base, detail::map_of(right),
                                                              detail::map_of(std::as_const(left)));
  };
  to_left();
  for (Index i = 0; i < iterations; ++i) {
    to_right();
    right = detail::orthonormal_rows(right);
    to_left();
  }
  to_right();  // now W is about left^T right
  const detail::ThinSvd svd =
      detail::product_svd(left.transpose().template cast<double>(),
                          right.transpose().template cast<double>(), detail::SingularVectors::thin);
  const Eigen::VectorXd roots = (svd.values.head(settings.rank) / scale).cwiseSqrt();
  Matrix<T> a = (roots.asDiagonal() * svd.v.leftCols(settings.rank).transpose()).cast<T>();
  Matrix<T> b = (svd.u.leftCols(settings.rank) * roots.asDiagonal()).cast<T>();
  const LoraAdapter<T> taken(a, Matrix<T>(-b), settings);
  return {detail::merged_layer(taken, base), LoraAdapter<T>(std::move(a), std::move(b), settings)};
}

}  // namespace mora::inline MORA_ABI
