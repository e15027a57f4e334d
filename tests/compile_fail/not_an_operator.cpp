// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>

struct Nothing {};

void make(const mora::FrozenLinear<float>& base) {
  const mora::MoraLinear<float, Nothing> layer(base);
}
