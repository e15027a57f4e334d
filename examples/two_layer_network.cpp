// SPDX-License-Identifier: MIT
//
// A network of two adapted layers: names for its parameters, a training step written out, and LoRA
// beside MoRA at the same number of parameters.

#include <iostream>
#include <random>

#include "mora/mora.hpp"

using Matrix = mora::Matrix<float>;

/// y = W2 relu(W1 x), with an adapter around each weight.
template <class Layer>
struct Network {
  Layer first;
  Layer second;
  typename Layer::Saved first_saved{};
  typename Layer::Saved second_saved{};
  Matrix hidden{};

  template <class F>
  void visit_parameters(F&& f) {
    mora::visit_parameters("first", first, f);  // first.M, or first.A and first.B
    mora::visit_parameters("second", second, f);
  }

  Matrix forward(const Matrix& x) {
    hidden = first.forward(x, first_saved).cwiseMax(0.0f);
    return second.forward(hidden, second_saved);
  }
  void backward(const Matrix& dy) {
    Matrix dhidden = second.backward(dy, second_saved);
    dhidden.array() *= (hidden.array() > 0.0f).cast<float>();
    first.backward_parameters(dhidden, first_saved);
  }
};

template <class Layer>
float train(const char* name, Network<Layer> network, const Matrix& x, const Matrix& y) {
  mora::AdamW<float> optimizer({.learning_rate = 1e-2});
  float loss = 0;
  for (int step = 0; step < 300; ++step) {
    const Matrix error = network.forward(x) - y;
    loss = error.squaredNorm() / float(error.size());
    mora::zero_gradients(network);
    network.backward(2.0f / float(error.size()) * error);
    optimizer.step(network);
  }
  std::cout << name << ": "
            << mora::parameter_count(network.first) + mora::parameter_count(network.second)
            << " parameters, loss " << loss << '\n';
  return loss;
}

int main() {
  std::mt19937_64 generator(7);
  const auto random = [&](mora::Index rows, mora::Index cols, double deviation) {
    Matrix matrix(rows, cols);
    mora::fill_normal(matrix, deviation, generator);
    return matrix;
  };
  // The frozen weights are shared by both networks.
  const Matrix w1 = random(128, 64, 0.12);
  const Matrix w2 = random(16, 128, 0.08);
  const Matrix x = random(64, 64, 1.0);
  const Matrix y = random(64, 16, 1.0);

  using Mora = mora::MoraLinear<float, mora::Sharing>;
  using Lora = mora::LoraLinear<float>;
  const float by_mora = train<Mora>("MoRA", {Mora(w1, {.rank = 4}), Mora(w2, {.rank = 4})}, x, y);
  const float by_lora = train<Lora>(
      "LoRA", {Lora(w1, {.rank = 4}, generator), Lora(w2, {.rank = 4}, generator)}, x, y);
  return by_mora < 1.0f && by_lora < 1.0f ? 0 : 1;
}
