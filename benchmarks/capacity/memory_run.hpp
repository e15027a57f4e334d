// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>
#include <span>
#include <utility>

#include "adapter_work.hpp"
#include "capacity/batches.hpp"
#include "capacity/memory_result.hpp"
#include "capacity/network.hpp"
#include "experiment/methods.hpp"
#include "mora/optim/adamw.hpp"

namespace capacity {

/// The learning rate's factor at a step: linear warm-up over the first 5 % of the steps, times a
/// cosine from 1 to 0 over all of them.
[[nodiscard]] inline double schedule(Index step, Index steps) {
  const double warm_up = std::max(1.0, 0.05 * double(steps));
  const double cosine = std::cos(std::numbers::pi * double(step) / double(steps));
  return std::min(1.0, double(step + 1) / warm_up) * 0.5 * (1.0 + cosine);
}

/// Takes the task's frozen weights over.
template <class Method>
[[nodiscard]] auto make_network(const Method& method, const RunSettings& run, MemoryTask& task) {
  using Layer = typename Method::template Layer<float>;
  const auto settings = method.settings(run.rank, run.seed);
  mora::SplitMix64 generator(~run.seed);
  Layer first(mora::FrozenLinear<float>(std::move(task.first_weight)), settings, generator);
  Layer second(mora::FrozenLinear<float>(std::move(task.second_weight)), settings, generator);
  mora::FrozenLinear<float> head(std::move(task.head));
  return Network<Layer>(std::move(first), std::move(second), std::move(head));
}

/// One training run from fresh adapters, by AdamW without weight decay. The batches depend on the
/// seed and not on the method.
template <class Method>
[[nodiscard]] RunResult memory_run(const Method& method, const NetworkShape& shape,
                                   const Training& training, const RunSettings& settings) {
  const auto start = std::chrono::steady_clock::now();
  MemoryTask task(shape, settings.pairs, settings.seed);
  auto network = make_network(method, settings, task);
  mora::AdamW<float> optimizer({.learning_rate = settings.learning_rate});
  Batches batches(settings.pairs, training.batch, settings.seed);

  RunResult result;
  result.settings = settings;
  result.parameters = mora::parameter_count(network);
  if (!is_full<Method>) {
    result.budget = mora::lora_budget(shape.width, shape.hidden, settings.rank) +
                    mora::lora_budget(shape.hidden, shape.width, settings.rank);
  }
  result.work = adapter_work(network.first().adapter()) + adapter_work(network.second().adapter());
  result.steps = training.steps(settings.pairs);

  const auto measure = [&](Index step) {
    result.recall = recall_of(network.infer(task.keys), task);
    result.curve.push_back({step, result.recall});
  };
  measure(0);
  Matrix keys;
  Matrix gradient;
  try {
    for (Index step = 0; step < result.steps; ++step) {
      const std::span<const Index> batch = batches.next();
      keys.resize(static_cast<Index>(batch.size()), task.keys.cols());
      for (std::size_t i = 0; i < batch.size(); ++i) {
        keys.row(static_cast<Index>(i)) = task.keys.row(batch[i]);
      }
      mora::zero_gradients(network);
      loss_gradient(network.forward(keys), task, batch, gradient);
      network.backward(gradient);
      optimizer.step(network, schedule(step, result.steps));
      const auto points = [&](Index steps) { return steps * training.curve_points / result.steps; };
      if (points(step + 1) > points(step)) measure(step + 1);
    }
  } catch (const mora::NumericError&) {
    result.diverged = true;
    result.recall = {};
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace capacity
