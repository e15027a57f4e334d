// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>

void make(const mora::Matrix<float>& weight) {
  const mora::FrozenLinear<float> layer(2.0f * weight);
}
