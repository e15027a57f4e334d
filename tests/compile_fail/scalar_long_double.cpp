// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>

void make(const mora::Matrix<long double>& weight) {
  const mora::MoraLinear<long double> layer(weight);
}
