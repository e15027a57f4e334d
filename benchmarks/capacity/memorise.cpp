// SPDX-License-Identifier: MIT
#include "capacity/memorise.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "capacity/memory_run.hpp"

namespace capacity {

void Memorise::add_methods(Suite& suite) {
  for_each_method([&]<class M>(const M& method) {
    methods_.push_back(method.name);
    const auto run = [this, method](const Training& training, const RunSettings& settings) {
      return memory_run(method, grid_.shape, training, settings);
    };
    for (const MemoryBudget& budget : grid_.budgets) {
      for (const Index pairs : budget.pairs) {
        // Full training is costly and knows the largest set by heart; smaller ones are part of it.
        if (is_full<M> && pairs != budget.pairs.back()) continue;
        add(suite, {method.name, budget.rank, pairs}, {run, is_full<M>});
      }
    }
  });
}

void Memorise::add(Suite& suite, const MemoryCase& c, const Method& method) {
  const MemoryCase search = search_for(c);
  if (search == c) {
    suite.add(
        "learning_rate/" + c.name(), [=, this](Plan& plan) { plan_search(plan, c, method); },
        [=, this](benchmark::UserCounters& counters) { return report_search(c, counters); });
  }
  suite.add(
      "memorise/" + c.name(),
      [=, this](Plan& plan) {
        plan_search(plan, search, method);
        plan_runs(plan, c, method);
      },
      [=, this](benchmark::UserCounters& counters) { return report_runs(c, counters); });
}

MemoryCase Memorise::search_for(MemoryCase c) const {
  for (const MemoryBudget& budget : grid_.budgets) {
    if (budget.rank == c.rank) c.pairs = budget.search_size(c.pairs);
  }
  return c;
}

ChosenRate Memorise::chosen_rate(const MemoryCase& c) const {
  return choose_rate(searches_.at(search_for(c)), grid_.rates, bits_per_parameter);
}

/// Seconds of a core, roughly: 15 multiply-adds a nanosecond, and for full training two more
/// products and an optimizer's step over all weights.
double Memorise::cost(Index pairs, bool full) const {
  const NetworkShape& s = grid_.shape;
  const auto steps = double(grid_.training.steps(pairs));
  const auto batch = double(std::min(pairs, grid_.training.batch));
  const auto weights = double(2 * s.hidden * s.width);
  const auto products = 1.5 * weights + double(2 * s.width * NetworkShape::logits);
  if (!full) return steps * batch * products / 15e9;
  return steps * (batch * (products + weights) / 15e9 + weights / 2e8);
}

void Memorise::plan_search(Plan& plan, const MemoryCase& c, const Method& method) {
  std::vector<RunResult>& results = searches_[c];
  results.resize(grid_.rates.size() * static_cast<std::size_t>(grid_.search_seeds));
  std::size_t place = 0;
  Training training = grid_.training;
  training.curve_points = 1;
  for (const double rate : grid_.rates) {
    for (int i = 0; i < grid_.search_seeds; ++i, ++place) {
      const RunSettings settings{c.rank, c.pairs, rate, 1000 + static_cast<std::uint64_t>(i)};
      const std::string name = "learning_rate/" + c.name() + "/rate:" + number("%g", rate) +
                               "/seed:" + std::to_string(settings.seed);
      plan.add(Stage::first, {name, cost(c.pairs, method.full),
                              [&result = results[place], method, training, settings] {
                                result = method.run(training, settings);
                              }});
    }
  }
}

void Memorise::plan_runs(Plan& plan, const MemoryCase& c, const Method& method) {
  std::vector<RunResult>& results = runs_[c];
  results.resize(static_cast<std::size_t>(grid_.seeds));
  for (std::size_t i = 0; i < results.size(); ++i) {
    const std::uint64_t seed = i + 1;
    plan.add(Stage::second,
             {"memorise/" + c.name() + "/seed:" + std::to_string(seed), cost(c.pairs, method.full),
              [&result = results[i], method, c, seed, this] {
                result = method.run(grid_.training, {c.rank, c.pairs, chosen_rate(c).rate, seed});
              }});
  }
}

double Memorise::report_search(const MemoryCase& c, benchmark::UserCounters& counters) const {
  const std::vector<RunResult>& search = searches_.at(c);
  const ChosenRate chosen = chosen_rate(c);
  counters["learning_rate"] = chosen.rate;
  counters["at_edge"] = chosen.at_edge;
  for (const double rate : grid_.rates) {
    counters["bits_per_parameter@" + number("%g", rate)] = mean_bits_per_parameter(search, rate);
  }
  return sample_of(search, [](const RunResult& run) { return run.seconds; }).mean;
}

double Memorise::report_runs(const MemoryCase& c, benchmark::UserCounters& counters) const {
  const std::vector<RunResult>& runs = runs_.at(c);
  const RunResult& first = runs.front();
  const Sample bits = sample_of(runs, [](const RunResult& r) { return r.bits_per_parameter(); });
  const Sample accuracy = sample_of(runs, [](const RunResult& r) { return r.recall.accuracy; });
  counters["parameters"] = double(first.parameters);
  counters["budget"] = double(first.budget);
  counters["work"] = double(first.work);
  counters["steps"] = double(first.steps);
  counters["seeds"] = double(runs.size());
  counters["learning_rate"] = first.settings.learning_rate;
  counters["accuracy"] = accuracy.mean;
  counters["accuracy_sd"] = accuracy.deviation;
  counters["bits_per_parameter"] = bits.mean;
  counters["bits_per_parameter_sd"] = bits.deviation;
  counters["memorised"] = accuracy.mean >= memorised_accuracy;
  counters["diverged"] = sample_of(runs, [](const RunResult& r) { return r.diverged; }).mean;
  return sample_of(runs, [](const RunResult& r) { return r.seconds; }).mean;
}

}  // namespace capacity
