// SPDX-License-Identifier: MIT
#include "study/run.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <string_view>

#include "experiment/decompositions_once.hpp"
#include "experiment/journal.hpp"
#include "mora/analysis/singular_values.hpp"
#include "mora/optim/schedule.hpp"
#include "mora/train/batches.hpp"
#include "mora/train/callbacks/restart.hpp"
#include "mora/train/train.hpp"

namespace study {

namespace {

using mora::Batch;

/// Adds what the logits of a batch say: losses, and the sequences that are right as a whole. That
/// each token of a response is the likeliest after those before it is what greedy decoding needs to
/// repeat it.
struct ScoreSum {
  mora::LossSum loss;
  Index sequences = 0;
  Index right = 0;

  void add(const Model& model, const Batch& batch, bool exact) {
    loss += model.loss(batch);
    if (!exact) return;
    const mora::Matrix<float> logits = model.logits(batch);
    for (Index s = 0; s < batch.sequences(); ++s) {
      bool all = true;
      for (Index i = batch.starts[s]; i < batch.starts[s + 1]; ++i) {
        Index best = 0;
        logits.row(i).maxCoeff(&best);
        all = all && (batch.targets[i] == mora::ignored || batch.targets[i] == best);
      }
      right += all;
      ++sequences;
    }
  }
  [[nodiscard]] Score score() const {
    return {loss.mean(), sequences == 0 ? 0.0 : double(right) / double(sequences)};
  }
};

[[nodiscard]] std::vector<Score> scores_of(const Model& model, const Task& task, Part part) {
  std::vector<Score> scores;
  for (const HeldOut& set : task.held_out) {
    ScoreSum sum;
    for (const Batch& batch : part == Part::search ? set.search : set.results) {
      sum.add(model, batch, task.exact);
    }
    scores.push_back(sum.score());
  }
  return scores;
}

/// An evaluator of the training loop that keeps all scores by step.
class ScoreCurve {
 public:
  ScoreCurve(const Task& task, Part part) : task_(&task), part_(part) {}

  [[nodiscard]] std::string_view name() const { return "held out"; }
  mora::LossSum evaluate(const Model& model) {
    last_ = scores_of(model, *task_, part_);
    return {last_.front().loss, 1};
  }
  void on_evaluation(const mora::EvaluationInfo& info) {
    points.push_back({info.state.step, last_});
  }

  std::vector<CurvePoint> points;

 private:
  const Task* task_;
  Part part_;
  std::vector<Score> last_;
};

/// Either schedule.
struct Schedule {
  const Training* training;
  bool restarts;

  double operator()(Index step) const {
    constexpr double minimum = 0.1;
    const Training& t = *training;
    if (restarts) {
      return mora::JaggedSchedule{.steps = t.steps,
                                  .warm_up = t.warm_up,
                                  .restart_every = t.restart_every,
                                  .restart_warm_up = t.restart_warm_up,
                                  .minimum = minimum}(step);
    }
    return mora::CosineSchedule{.steps = t.steps, .warm_up = t.warm_up, .minimum = minimum}(step);
  }
};

/// What was learnt, restarts included: the difference between the weights at both ends.
[[nodiscard]] std::vector<KindSpectrum> spectra_of(
    Model& model, const std::vector<mora::FrozenLinear<float>>& start) {
  std::map<std::string, KindSpectrum> kinds;
  model.merge();
  for (std::size_t place = 0; place < start.size(); ++place) {
    const mora::LlamaTensor& tensor = model.tensors()[place];
    if (!tensor.linear || tensor.layer < 0) continue;
    const mora::Matrix<double> update =
        model.weights()[place].weight().cast<double>() - start[place].weight().cast<double>();
    const mora::Spectrum spectrum = mora::spectrum(update);
    const std::string_view module = tensor.module();
    const std::string kind(module.substr(module.rfind('.') + 1));
    KindSpectrum& mean = kinds[kind];
    const double share = 1.0 / double(model.config().num_hidden_layers);
    mean.kind = kind;
    mean.above += share * double(spectrum.count_above(0.1));
    mean.effective_rank += share * spectrum.effective_rank();
    mean.values.resize(static_cast<std::size_t>(spectrum.values.size()), 0.0);
    for (Index i = 0; i < spectrum.values.size(); ++i) {
      mean.values[static_cast<std::size_t>(i)] += share * spectrum.values[i];
    }
  }
  std::vector<KindSpectrum> all;
  for (auto& [kind, mean] : kinds) all.push_back(std::move(mean));
  return all;
}

[[nodiscard]] experiment::MethodUse use_of(const RunSettings& settings) {
  return {settings.rank, settings.seed, settings.seed};
}

[[nodiscard]] bool is_finite(const CurvePoint& point) {
  return std::ranges::all_of(point.scores, [](const Score& s) { return std::isfinite(s.loss); });
}

void count_parameters(const Model& model, const Method& method, RunResult& result) {
  model.visit_parameters([&](std::string_view name, const auto& parameter) {
    const bool linear = name.find("_proj.") != name.npos;
    (linear ? result.parameters : result.others) += parameter.value.size();
  });
  if (!method.full) result.budget = experiment::decoder_budget(model, result.settings.rank);
}

}  // namespace

double RunResult::score() const {
  if (diverged) return -std::numeric_limits<double>::infinity();
  return -curve.back().scores.front().loss;
}

Model start_of_run(const Task& task, const Method& method, const RunSettings& settings) {
  Model model = task.start(settings.seed);
  method.attach(model, learner, use_of(settings));
  if (task.trains_embedding) {
    model.attach(
        learner, mora::FullSettings{},
        {.modules = {"embed_tokens", "input_layernorm", "post_attention_layernorm", "norm"}});
  }
  return model;
}

RunResult train_run(const Task& task, const Method& method, const Training& training,
                    const RunSettings& settings, Part part) {
  const auto begin = std::chrono::steady_clock::now();
  RunResult result{.settings = settings};
  Model model = start_of_run(task, method, settings);
  count_parameters(model, method, result);
  Optimizer optimizer = method.make_optimizer(settings.learning_rate);
  mora::Batches<Examples> batches(task.train,
                                  {.batch_size = training.batch, .seed = settings.seed});
  ScoreCurve curve(task, part);
  mora::TrainSettings loop{.steps = training.steps, .clip_norm = 1.0};
  if (part == Part::results) {
    curve.points.push_back({0, scores_of(model, task, part)});
    loop.evaluate_every = std::max<Index>(1, training.steps / training.curve_points);
  }
  const bool restarts = static_cast<bool>(method.restart);
  mora::RestartEvery restart(restarts ? training.restart_every : training.steps, [&](Index number) {
    method.restart(model, optimizer, number, use_of(settings));
  });
  try {
    mora::train(model, optimizer, Schedule{&training, restarts}, batches, loop, restart, curve);
    if (part == Part::results) {
      result.spectra = spectra_of(model, task.start(settings.seed).weights());
    }
  } catch (const mora::NumericError&) {
    result.diverged = true;
  }
  result.curve = std::move(curve.points);
  // The last step may have led where only the evaluation sees it, and no number may be read back.
  while (!result.curve.empty() && !is_finite(result.curve.back())) {
    result.diverged = true;
    result.curve.pop_back();
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

void put_run(std::ostream& out, const RunResult& run) {
  using experiment::exact;
  const std::size_t sets = run.curve.empty() ? 0 : run.curve.front().scores.size();
  out << run.settings.rank << ' ' << exact(run.settings.learning_rate) << ' ' << run.settings.seed
      << ' ' << run.parameters << ' ' << run.budget << ' ' << run.others << ' ' << run.diverged
      << ' ' << exact(run.seconds) << ' ' << run.curve.size() << ' ' << sets;
  for (const CurvePoint& point : run.curve) {
    out << ' ' << point.step;
    for (const Score& score : point.scores) {
      out << ' ' << exact(score.loss) << ' ' << exact(score.exact);
    }
  }
  out << ' ' << run.spectra.size();
  for (const KindSpectrum& each : run.spectra) {
    out << ' ' << each.kind << ' ' << exact(each.above) << ' ' << exact(each.effective_rank) << ' '
        << each.values.size();
    for (const double value : each.values) out << ' ' << exact(value);
  }
}

void get_run(std::istream& in, RunResult& run) {
  std::size_t points = 0;
  std::size_t sets = 0;
  std::size_t kinds = 0;
  in >> run.settings.rank >> run.settings.learning_rate >> run.settings.seed >> run.parameters >>
      run.budget >> run.others >> run.diverged >> run.seconds >> points >> sets;
  for (std::size_t i = 0; in && i < points; ++i) {
    CurvePoint& point = run.curve.emplace_back();
    in >> point.step;
    for (std::size_t set = 0; in && set < sets; ++set) {
      Score& score = point.scores.emplace_back();
      in >> score.loss >> score.exact;
    }
  }
  if (run.curve.empty() && !run.diverged) in.setstate(std::ios::failbit);
  in >> kinds;
  for (std::size_t i = 0; in && i < kinds; ++i) {
    KindSpectrum& each = run.spectra.emplace_back();
    std::size_t values = 0;
    in >> each.kind >> each.above >> each.effective_rank >> values;
    for (std::size_t v = 0; in && v < values; ++v) in >> each.values.emplace_back();
  }
}

}  // namespace study
