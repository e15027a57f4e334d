// SPDX-License-Identifier: MIT
//
// The training loop: a model of one's own, a source of batches, a schedule, LoRA+ as a parameter
// group, clipping, an evaluation that stops the run early, and progress on the terminal.

#include <iostream>
#include <random>
#include <utility>
#include <vector>

#include "mora/mora.hpp"

using Matrix = mora::Matrix<float>;

struct Batch {
  Matrix x;
  Matrix y;
  mora::Index target_count() const { return y.rows(); }
};

/// One adapted layer with half the squared error.
class Model {
 public:
  using Batch = ::Batch;
  Model(const Matrix& weight, std::mt19937_64& generator)
      : layer_(weight, {.rank = 4}, generator) {}

  template <class F>
  void visit_parameters(F&& f) {
    mora::visit_parameters("layer", layer_, f);
  }
  mora::LossSum accumulate_gradients(const Batch& batch, double weight) {
    const Matrix error = layer_.forward(batch.x, saved_) - batch.y;
    layer_.backward_parameters(float(weight) * error, saved_);
    return {0.5 * error.squaredNorm(), batch.target_count()};
  }
  mora::LossSum loss(const Batch& batch) const {
    return {0.5 * (layer_.forward(batch.x) - batch.y).squaredNorm(), batch.target_count()};
  }

 private:
  mora::LoraLinear<float> layer_;
  mora::LoraLinear<float>::Saved saved_;
};

/// Fresh examples of a map that is the frozen weight and an update of rank 2.
class Examples {
 public:
  Examples(Matrix map, std::uint64_t seed) : map_(std::move(map)), generator_(seed) {}
  const Batch& next() {
    batch_.x.resize(16, map_.cols());
    mora::fill_normal(batch_.x, 1.0, generator_);
    batch_.y = batch_.x * map_.transpose();
    return batch_;
  }

 private:
  Matrix map_;
  std::mt19937_64 generator_;
  Batch batch_;
};

int main() {
  std::mt19937_64 generator(3);
  const auto random = [&](mora::Index rows, mora::Index cols, double deviation) {
    Matrix matrix(rows, cols);
    mora::fill_normal(matrix, deviation, generator);
    return matrix;
  };
  const Matrix weight = random(24, 32, 0.2);
  const Matrix map = weight + random(24, 2, 0.3) * random(2, 32, 0.3);
  Examples training(map, 1);
  Examples others(map, 2);
  const std::vector<Batch> held_out{others.next(), others.next()};

  Model model(weight, generator);
  const double before = mora::evaluate(model, held_out).mean();
  const mora::AdamWSettings settings{.learning_rate = 2e-3};
  mora::AdamW<float> optimizer(settings, {mora::lora_plus(settings, 4.0)});  // B learns faster
  mora::EarlyStop early_stop({.patience = 2, .minimum_improvement = 1e-6});
  mora::train(model, optimizer, mora::CosineSchedule{.steps = 600, .warm_up = 30, .minimum = 0.1},
              training, {.steps = 600, .accumulate = 2, .clip_norm = 1.0, .evaluate_every = 100},
              mora::Progress(std::cout), mora::EvaluateOn("held out", held_out), early_stop);
  std::cout << "loss before: " << before << ", best: " << early_stop.state().best << '\n';
  return early_stop.state().best < 0.1 * before ? 0 : 1;
}
