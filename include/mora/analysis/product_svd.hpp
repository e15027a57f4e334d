// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/QR>
#include <Eigen/SVD>
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "mora/core/elementwise.hpp"
#include "mora/core/matrix.hpp"

namespace mora::inline MORA_ABI::detail {

/// left * right^T = u diag(values) v^T, with orthonormal columns and values in descending order;
/// without vectors u and v are empty.
struct ThinSvd {
  Eigen::MatrixXd u;
  Eigen::VectorXd values;
  Eigen::MatrixXd v;
};

enum class SingularVectors { none, thin };

/// A matrix as numbers of at most 1 and a power of two: squares and products of finite numbers may
/// be none. Exact, but for numbers beside which the largest is near 2^1022 times as large: those
/// lose digits or vanish.
struct Scaled {
  explicit Scaled(const Eigen::MatrixXd& matrix) {
    (void)std::frexp(largest_magnitude(matrix), &exponent);
    numbers = matrix.unaryExpr([e = exponent](double x) { return std::ldexp(x, -e); });
  }
  int exponent = 0;
  Eigen::MatrixXd numbers;
};

/// values * 2^exponent. Throws NumericError for one beyond double.
[[nodiscard]] inline Eigen::VectorXd scaled_back(Eigen::VectorXd values, int exponent) {
  for (double& value : values) {
    const double small = value;
    value = std::ldexp(small, exponent);
    if (!std::isfinite(value)) {
      throw NumericError(concat("singular values: expected at most ",
                                std::numeric_limits<double>::max(), ", found ", small, " * 2^",
                                exponent));
    }
  }
  return values;
}

/// Of left * right^T, [n, p] and [m, p] with n, m >= p: a factor with more rows than p is replaced
/// by the p x p triangle of its QR decomposition.
[[nodiscard]] inline ThinSvd thin_factors_svd(const Eigen::MatrixXd& left,
                                              const Eigen::MatrixXd& right,
                                              SingularVectors vectors) {
  const bool thin = vectors == SingularVectors::thin;
  const unsigned options = thin ? Eigen::ComputeThinU | Eigen::ComputeThinV : 0;
  using Qr = Eigen::HouseholderQR<Eigen::MatrixXd>;
  const auto qr_of = [](const Eigen::MatrixXd& factor) {
    return factor.rows() > factor.cols() ? std::optional<Qr>(factor) : std::nullopt;
  };
  const auto small = [](const Eigen::MatrixXd& factor, const std::optional<Qr>& qr) {
    if (!qr) return factor;
    const auto top = qr->matrixQR().topRows(factor.cols());
    return Eigen::MatrixXd(top.template triangularView<Eigen::Upper>());
  };
  const std::optional<Qr> l = qr_of(left);
  const std::optional<Qr> r = qr_of(right);
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(small(left, l) * small(right, r).transpose(), options);
  if (!thin) return {{}, svd.singularValues(), {}};
  const auto lifted = [](const Eigen::MatrixXd& columns, const std::optional<Qr>& qr) {
    if (!qr) return columns;
    Eigen::MatrixXd whole = Eigen::MatrixXd::Zero(qr->rows(), columns.cols());
    whole.topRows(columns.rows()) = columns;
    whole.applyOnTheLeft(qr->householderQ());
    return whole;
  };
  return {lifted(svd.matrixU(), l), svd.singularValues(), lifted(svd.matrixV(), r)};
}

/// Of a matrix of finite numbers, by QR first where it is not square. Throws as product_svd does.
[[nodiscard]] inline ThinSvd dense_svd(const Eigen::MatrixXd& matrix, SingularVectors vectors);

/// Of left * right^T, [n, p] and [m, p] of finite numbers. Where p is not the smallest size, the
/// product itself becomes a factor. Throws NumericError for a singular value beyond double.
[[nodiscard]] inline ThinSvd product_svd(const Eigen::MatrixXd& left, const Eigen::MatrixXd& right,
                                         SingularVectors vectors) {
  if (left.size() == 0 || right.size() == 0) return {};
  const Scaled a(left), b(right);
  ThinSvd svd = left.cols() > std::min(left.rows(), right.rows())
                    ? dense_svd(a.numbers * b.numbers.transpose(), vectors)
                    : thin_factors_svd(a.numbers, b.numbers, vectors);
  svd.values = scaled_back(std::move(svd.values), a.exponent + b.exponent);
  return svd;
}

inline ThinSvd dense_svd(const Eigen::MatrixXd& matrix, SingularVectors vectors) {
  const Index narrow = std::min(matrix.rows(), matrix.cols());
  const Eigen::MatrixXd identity = Eigen::MatrixXd::Identity(narrow, narrow);
  if (matrix.rows() == narrow) return product_svd(identity, matrix.transpose(), vectors);
  return product_svd(matrix, identity, vectors);
}

}  // namespace mora::inline MORA_ABI::detail
