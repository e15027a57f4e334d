// SPDX-License-Identifier: MIT
//
// The smallest program: adapt one frozen layer to a new task, then merge what was learnt.

#include <iostream>
#include <random>

#include "mora/mora.hpp"

int main() {
  using Matrix = mora::Matrix<float>;
  std::mt19937_64 generator(1);
  const auto random = [&](mora::Index rows, mora::Index cols, double deviation) {
    Matrix matrix(rows, cols);
    mora::fill_normal(matrix, deviation, generator);
    return matrix;
  };
  const Matrix weight = random(64, 96, 0.1);  // [out, in]
  const Matrix x = random(12, 96, 1.0);       // [tokens, in]
  const Matrix y = random(12, 64, 1.0);       // [tokens, out], to be learnt by heart

  mora::MoraLinear<float> layer(weight, {.rank = 8});  // reads `weight`, never changes it
  mora::AdamW<float> optimizer({.learning_rate = 1e-2});
  mora::MoraLinear<float>::Saved saved;
  for (int step = 0; step <= 200; ++step) {
    const Matrix error = layer.forward(x, saved) - y;
    if (step % 50 == 0) std::cout << "step " << step << ": error " << error.norm() << '\n';
    mora::zero_gradients(layer);
    layer.backward_parameters(error, saved);
    optimizer.step(layer);
  }

  const Matrix before = layer.forward(x);
  layer.merge();  // the layer now has a weight of its own, and costs what the frozen one costs
  const double difference = (layer.forward(x) - before).norm() / before.norm();
  std::cout << mora::parameter_count(layer) << " parameters of " << weight.size()
            << "; merged and unmerged outputs differ by " << difference << '\n';
  return difference < 1e-5 ? 0 : 1;
}
