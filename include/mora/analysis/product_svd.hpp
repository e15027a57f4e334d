// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/QR>
#include <Eigen/SVD>
#include <algorithm>
#include <utility>

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

/// Of left * right^T, [n, p] and [m, p] of finite numbers: from the p x p product of the two
/// triangular factors when p is the smallest size, else of the product itself.
[[nodiscard]] inline ThinSvd product_svd(const Eigen::MatrixXd& left, const Eigen::MatrixXd& right,
                                         SingularVectors vectors) {
  if (left.size() == 0 || right.size() == 0) return {};
  const bool thin = vectors == SingularVectors::thin;
  const unsigned options = thin ? Eigen::ComputeThinU | Eigen::ComputeThinV : 0;
  const auto decompose = [&](const Eigen::MatrixXd& matrix) -> ThinSvd {
    const Eigen::BDCSVD<Eigen::MatrixXd> svd(matrix, options);
    if (!thin) return {{}, svd.singularValues(), {}};
    return {svd.matrixU(), svd.singularValues(), svd.matrixV()};
  };
  const Index p = left.cols();
  if (p >= std::min(left.rows(), right.rows())) return decompose(left * right.transpose());
  const Eigen::HouseholderQR<Eigen::MatrixXd> l(left), r(right);
  const auto triangle = [p](const auto& qr) {
    return Eigen::MatrixXd(qr.matrixQR().topRows(p).template triangularView<Eigen::Upper>());
  };
  ThinSvd result = decompose(triangle(l) * triangle(r).transpose());
  const auto lift = [](Eigen::MatrixXd& small, const auto& qr) {
    Eigen::MatrixXd whole = Eigen::MatrixXd::Zero(qr.rows(), small.cols());
    whole.topRows(small.rows()) = small;
    whole.applyOnTheLeft(qr.householderQ());
    small = std::move(whole);
  };
  if (thin) {
    lift(result.u, l);
    lift(result.v, r);
  }
  return result;
}

}  // namespace mora::inline MORA_ABI::detail
