// SPDX-License-Identifier: MIT
#include "uuid_memorization/run.hpp"

#include <algorithm>
#include <chrono>
#include <string_view>

#include "adapter_work.hpp"
#include "experiment/methods.hpp"
#include "mora/models/llama/llama.hpp"
#include "mora/optim/adamw.hpp"
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

/// Budget and multiply-adds over all adapted layers.
template <class M>
void count_adapters(const mora::Llama<float>& model, const M& method, RunResult& result) {
  using Settings = decltype(method.settings(1, 1));
  for (const mora::LlamaTensor& tensor : model.tensors().all()) {
    if (!tensor.linear || tensor.layer < 0) continue;
    const auto* const adapter = model.adapter("memory", tensor.module());
    result.work += adapter_work(*adapter->template get_if<mora::AdapterOf<float, Settings>>());
    if (!experiment::is_full<M>) {
      result.budget += mora::lora_budget(tensor.cols, tensor.rows, result.settings.rank);
    }
  }
}

template <class M>
RunResult memory_run(const M& method, const Base& base, const Training& training,
                     const RunSettings& settings) {
  const auto start = std::chrono::steady_clock::now();
  const PairSet pairs(settings.pairs, settings.seed);
  mora::Llama<float> model(base.settings.config(), base.weights);
  mora::SplitMix64 generator(~settings.seed);
  model.attach("memory", method.settings(settings.rank, settings.seed), {.all_linear = true},
               generator);

  RunResult result;
  result.settings = settings;
  result.parameters = mora::parameter_count(model);
  result.steps = training.steps;
  count_adapters(model, method, result);

  RecallCurve curve(pairs);
  result.curve.push_back({0, recall_of(model, pairs)});
  mora::AdamW<float> optimizer({.learning_rate = settings.learning_rate});
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

}  // namespace

std::vector<Method> all_methods() {
  std::vector<Method> methods;
  experiment::for_each_method([&]<class M>(const M& method) {
    methods.push_back(
        {method.name, experiment::is_full<M>,
         [method](const Base& base, const Training& training, const RunSettings& settings) {
           return memory_run(method, base, training, settings);
         }});
  });
  return methods;
}

}  // namespace uuid_memorization
