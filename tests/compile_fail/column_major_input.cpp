// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>

void forward(const mora::MoraLinear<float>& layer) {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Ones(3, 4);
  (void)layer.forward(x);
}
