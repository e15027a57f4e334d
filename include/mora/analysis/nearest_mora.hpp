// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include "mora/adapters/merging.hpp"
#include "mora/adapters/mora.hpp"
#include "mora/core/elementwise.hpp"

namespace mora::inline MORA_ABI {

template <class Op>
struct NearestMora {
  MoraAdapter<double, Op> adapter;
  double relative_error = 0.0;  ///< ||Delta W - its update||_F / ||Delta W||_F, 0 for a zero one.
};

namespace detail {

/// The update is a linear map of M; this is it and its adjoint, for one operator and shape.
template <class Op>
class MoraMap {
 public:
  using Matrix = mora::Matrix<double>;

  /// `adapter` outlives this, and has any M afterwards.
  explicit MoraMap(MoraAdapter<double, Op>& adapter)
      : adapter_(adapter), inputs_(Matrix::Identity(adapter.in_features(), adapter.in_features())) {
    Matrix unused = Matrix::Zero(adapter.in_features(), adapter.out_features());
    adapter.add_forward(map_of(std::as_const(inputs_)), map_of(unused), &saved_);
  }

  /// Delta W [out, in] of M = m.
  [[nodiscard]] Matrix update(const Matrix& m) {
    adapter_.matrix().value = m;
    Matrix delta = Matrix::Zero(adapter_.out_features(), adapter_.in_features());
    const auto plan = adapter_.plan_merge();
    for_each_weight_chunk(delta.rows(), delta.cols(), [&](Index first, Index count) {
      adapter_.merge_rows(plan, first, rows_of(map_of(delta), first, count));
    });
    return delta;
  }
  /// What the backward pass adds to M's gradient for inputs I and output gradients G^T.
  [[nodiscard]] Matrix adjoint(const Matrix& g) {
    const Matrix dy = g.transpose();
    adapter_.matrix().gradient.resize(0, 0);
    adapter_.add_backward(map_of(std::as_const(inputs_)), map_of(dy), saved_, nullptr);
    return adapter_.matrix().gradient;
  }

 private:
  MoraAdapter<double, Op>& adapter_;
  Matrix inputs_;
  typename MoraAdapter<double, Op>::Saved saved_;
};

}  // namespace detail

/// The MoRA adapter with these settings whose update is nearest to `update` [out, in] in Frobenius
/// norm: what a change of operators, or from LoRA to MoRA, can keep. It is exact where the operator
/// can say that update.
///
/// A least-squares problem, as the update is linear in M, solved by conjugate gradients on the
/// normal equations (CGLS; Hestenes and Stiefel 1952): a few iterations for truncation and sharing,
/// tens for rotation, each of in blocks side^2 multiply-adds; memory for three updates. Throws what
/// MoraAdapter's constructor throws, NumericError for an update that is not finite or an iteration
/// that does not converge.
template <class Op = Rotation>
[[nodiscard]] NearestMora<Op> nearest_mora(const MatrixView<double>& update,
                                           const MoraSettings<Op>& settings = {}) {
  using Matrix = mora::Matrix<double>;
  NearestMora<Op> nearest{MoraAdapter<double, Op>(update.cols(), update.rows(), settings)};
  if (!detail::all_finite(update)) throw NumericError("nearest MoRA: the update is not finite");
  const double largest = detail::largest_magnitude(update);
  if (largest == 0.0) return nearest;

  detail::MoraMap<Op> map(nearest.adapter);
  Matrix residual = update / largest;  // no square of it overflows
  const double whole = residual.norm();
  Matrix m = Matrix::Zero(nearest.adapter.side(), nearest.adapter.side());
  Matrix slope = map.adjoint(residual);
  Matrix direction = slope;
  double square = slope.squaredNorm();
  const double enough = 1e-20 * square;
  constexpr int most = 1000;
  for (int i = 0; i < most && square > enough; ++i) {
    const Matrix change = map.update(direction);
    const double step = square / change.squaredNorm();
    m += step * direction;
    residual -= step * change;
    slope = map.adjoint(residual);
    const double next = slope.squaredNorm();
    direction = slope + next / square * direction;
    square = next;
  }
  if (!(square <= 1e-12 / 1e-20 * enough)) {
    throw NumericError("nearest MoRA: the iteration did not converge");
  }
  nearest.relative_error = residual.norm() / whole;
  nearest.adapter.matrix().value = largest * m;
  nearest.adapter.matrix().gradient.resize(0, 0);
  return nearest;
}

}  // namespace mora::inline MORA_ABI
