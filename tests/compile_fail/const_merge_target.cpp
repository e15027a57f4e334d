// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>

void merge(mora::MoraLinear<float>& layer, const mora::Matrix<float>& weight) {
  layer.merge_into(weight);
}
