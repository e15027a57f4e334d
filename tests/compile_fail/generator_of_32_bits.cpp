// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>
#include <random>

void make(const mora::FrozenLinear<float>& base) {
  std::mt19937 generator(1);
  const mora::LoraLinear<float> layer(base, {}, generator);
}
