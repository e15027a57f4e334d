// SPDX-License-Identifier: MIT
#include <complex>
#include <mora/mora.hpp>

void make(const mora::Matrix<std::complex<float>>& weight) {
  const mora::MoraLinear<std::complex<float>> layer(weight);
}
