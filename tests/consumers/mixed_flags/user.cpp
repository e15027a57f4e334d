// SPDX-License-Identifier: MIT
#include <mora/adapters/linear.hpp>

mora::Index width_of(const mora::MoraLinear<float>& layer);

int main() {
  const mora::MoraLinear<float> layer(mora::Matrix<float>(mora::Matrix<float>::Ones(6, 4)));
  return width_of(layer) == 4 ? 0 : 1;
}
