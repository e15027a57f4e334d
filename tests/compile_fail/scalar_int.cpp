// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>

void make(const mora::Matrix<int>& weight) { const mora::MoraLinear<int> layer(weight); }
