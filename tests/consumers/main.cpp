// SPDX-License-Identifier: MIT
// One of two translation units that include everything: a function that is not inline would be
// defined twice.
#include <cmath>

#include <mora/mora.hpp>

float sum_in_other();

int main() {
  const mora::MoraLinear<float> layer(mora::Matrix<float>(mora::Matrix<float>::Ones(6, 4)));
  const float sum = layer.forward(mora::Matrix<float>::Ones(3, 4)).sum();
  return std::abs(sum - 72.0F) < 1e-4F && std::abs(sum_in_other() - sum) < 1e-4F ? 0 : 1;
}
