// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>

void make(const mora::FrozenLinear<float>& base, const mora::MoraAdapter<double>& adapter) {
  const mora::MoraLinear<float> layer(base, adapter);
}
