// SPDX-License-Identifier: MIT
#include <Eigen/Core>

#include <mora/mora.hpp>

void make() {
  const Eigen::MatrixXf weight = Eigen::MatrixXf::Ones(6, 4);
  const mora::FrozenLinear<float> layer(weight);
}
