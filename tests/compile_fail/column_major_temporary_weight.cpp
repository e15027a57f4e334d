// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>

void make() { const mora::FrozenLinear<float> layer(Eigen::MatrixXf(6, 4)); }
