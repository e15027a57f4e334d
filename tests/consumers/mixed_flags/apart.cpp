// SPDX-License-Identifier: MIT
// Compiled twice, with different flags, as two functions that hand each other no type of mora.
#include <mora/adapters/linear.hpp>
#include <random>

double MORA_PART() {
  std::mt19937_64 generator(1);
  mora::Matrix<float> weight(60, 70);
  mora::Matrix<float> x(33, 70);
  mora::fill_normal(weight, 1.0, generator);
  mora::fill_normal(x, 1.0, generator);
  mora::LoraLinear<float> layer(weight, {.rank = 4}, generator);
  layer.adapter().b().value.setConstant(0.01f);
  mora::LoraLinear<float>::Saved saved;
  const mora::Matrix<float> y = layer.forward(x, saved);
  const double sum = layer.backward(y, saved).cast<double>().squaredNorm();
  layer.merge();
  return sum + layer.forward(x).cast<double>().squaredNorm();
}
