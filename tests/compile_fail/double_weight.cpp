// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>

void make(const mora::Matrix<double>& weight) { const mora::FrozenLinear<float> layer(weight); }
