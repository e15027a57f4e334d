// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>

float sum_in_other() {
  const mora::MoraLinear<float> layer(mora::Matrix<float>(mora::Matrix<float>::Ones(6, 4)));
  return layer.forward(mora::Matrix<float>::Ones(3, 4)).sum();
}
