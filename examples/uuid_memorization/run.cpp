// SPDX-License-Identifier: MIT
#include "uuid_memorization/run.hpp"

#include <algorithm>
#include <chrono>
#include <string_view>

#include "experiment/methods.hpp"
#include "mora/models/llama/llama.hpp"
#include "mora/optim/schedule.hpp"
#include "mora/train/batches.hpp"
#include "mora/train/train.hpp"

namespace uuid_memorization {

namespace {

/// What the model knows of the pairs, by step: an evaluator of the training loop.
class RecallCurve {
 public:
  explicit RecallCurve(const PairSet& pairs) : pairs_(&pairs) {}

  [[nodiscard]] std::string_view name() const { return "pairs"; }
  mora::LossSum evaluate(const mora::Llama<float>& model) {
    last_ = recall_of(model, *pairs_);
    const Index digits = pairs_->size() * Index{Uuid::digits};
    return {last_.loss * double(digits), digits};
  }
  void on_evaluation(const mora::EvaluationInfo& info) {
    points_.push_back({info.state.step, last_});
  }
  [[nodiscard]] const std::vector<CurvePoint>& points() const { return points_; }

 private:
  const PairSet* pairs_;
  PairRecall last_;
  std::vector<CurvePoint> points_;
};

constexpr const char* memory = "memory";

}  // namespace

RunResult memory_run(const Method& method, const Base& base, const Training& training,
                     const RunSettings& settings) {
  const auto start = std::chrono::steady_clock::now();
  const PairSet pairs(settings.pairs, settings.seed);
  mora::Llama<float> model(base.settings.config(), base.weights);
  method.attach(model, memory, {settings.rank, settings.seed, ~settings.seed});

  RunResult result;
  result.settings = settings;
  result.parameters = mora::parameter_count(model);
  result.steps = training.steps;
  result.work = experiment::decoder_work(model, method, memory);
  if (!method.full) result.budget = experiment::decoder_budget(model, settings.rank);

  RecallCurve curve(pairs);
  result.curve.push_back({0, recall_of(model, pairs)});
  auto optimizer = method.make_optimizer(settings.learning_rate);
  mora::Batches batches(pairs, {.batch_size = training.batch, .seed = settings.seed});
  const mora::CosineSchedule schedule{.steps = training.steps, .warm_up = training.steps / 20};
  try {
    mora::train(model, optimizer, schedule, batches,
                {.steps = training.steps,
                 .evaluate_every = std::max<Index>(1, training.steps / training.curve_points)},
                curve);
    result.curve.insert(result.curve.end(), curve.points().begin(), curve.points().end());
    result.recall = result.curve.back().recall;
  } catch (const mora::NumericError&) {
    result.curve.insert(result.curve.end(), curve.points().begin(), curve.points().end());
    result.diverged = true;
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

std::vector<std::string> all_methods() {
  std::vector<std::string> names;
  experiment::for_each_method([&](const auto& method) { names.push_back(method.name); });
  return names;
}

}  // namespace uuid_memorization
