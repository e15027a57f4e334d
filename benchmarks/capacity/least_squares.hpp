// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include "mora/adapters/linear.hpp"

namespace capacity {

/// The smallest relative error ||T - Delta W||_F / ||T||_F that an adapter can reach whose update
/// is linear in its parameters (MoRA), for a target T [out, in].
///
/// Delta W = A m is a linear map of the parameters m, so the best m solves a least-squares problem.
/// It is solved by conjugate gradients on the normal equations (CGLS; Hestenes and Stiefel 1952),
/// which need A and its adjoint alone: A m is the layer's update(), and A^T G is what the backward
/// pass adds to the gradient for inputs X = I and output gradients dY = G^T.
template <class Layer>
[[nodiscard]] double least_squares_error(Layer& layer, const mora::Matrix<double>& target) {
  using Matrix = mora::Matrix<double>;
  const Matrix inputs = Matrix::Identity(layer.in_features(), layer.in_features());
  auto& parameter = layer.adapter().matrix();
  typename Layer::Saved saved;
  const auto adjoint = [&](const Matrix& matrix) -> Matrix {
    mora::zero_gradients(layer);
    static_cast<void>(layer.forward(inputs, saved));
    layer.backward_parameters(Matrix(matrix.transpose()), saved);
    return parameter.gradient;
  };

  Matrix residual = target;  // the parameters start at zero; they themselves are not needed
  Matrix slope = adjoint(residual);
  Matrix direction = slope;
  double square = slope.squaredNorm();
  const double enough = 1e-20 * square;
  constexpr int most = 1000;
  for (int i = 0; i < most && square > enough; ++i) {
    parameter.value = direction;
    const Matrix change = layer.update();
    residual -= square / change.squaredNorm() * change;
    slope = adjoint(residual);
    const double next = slope.squaredNorm();
    direction = slope + next / square * direction;
    square = next;
  }
  if (square > 1e-12 * enough / 1e-20) {
    throw mora::NumericError("least squares: the iteration did not converge");
  }
  return residual.norm() / target.norm();
}

}  // namespace capacity
