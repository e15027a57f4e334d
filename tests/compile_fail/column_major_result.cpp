// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>

void forward(const mora::MoraLinear<float>& layer, const mora::Matrix<float>& x) {
  Eigen::MatrixXf y(3, 6);
  layer.forward(x, y);
}
