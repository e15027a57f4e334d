// SPDX-License-Identifier: MIT
#pragma once

#include <compare>
#include <cstddef>
#include <map>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "experiment/journal.hpp"
#include "experiment/plan.hpp"
#include "experiment/rate_search.hpp"
#include "study/run.hpp"
#include "study/tasks.hpp"

namespace study {

/// An experiment's size: every method at every budget, after the same search of learning rates, in
/// the same number of steps.
struct Grid {
  TaskSettings task = {};
  Training training = {};
  std::vector<std::string> methods;
  std::vector<Index> ranks;   ///< LoRA's; each is a budget.
  std::vector<double> rates;  ///< Ascending.
  int seeds = 3;              ///< Of the results; the search has one of its own.
};

/// One row of the results. Full training has no budget, so its rank is 0.
struct Case {
  std::string method;
  Index rank = 0;

  auto operator<=>(const Case&) const = default;
  [[nodiscard]] std::string name() const { return method + "/r:" + std::to_string(rank); }
};

using Journal = experiment::Journal<RunResult>;

/// In the order of the methods. Throws mora::ArgumentError for a method that is not there.
[[nodiscard]] inline std::vector<Case> cases_of(const Grid& grid) {
  std::vector<Case> cases;
  for (const std::string& name : grid.methods) {
    const Method& method = experiment::decoder_method(name);
    for (const Index rank : method.full ? std::vector<Index>{0} : grid.ranks) {
      cases.push_back({name, rank});
    }
  }
  return cases;
}

/// The runs of a grid on one task: first the search of learning rates, then the results.
class Study {
 public:
  using Results = std::map<Case, std::vector<RunResult>>;

  /// Throws mora::ArgumentError for a method that is not there.
  Study(const Grid& grid, const Task& task, Journal& journal)
      : grid_(grid), task_(&task), journal_(&journal), cases_(cases_of(grid)) {
    for (const Case& c : cases_) plan(c, experiment::decoder_method(c.method));
  }
  Study(const Study&) = delete;  // the plan points into it
  Study& operator=(const Study&) = delete;

  void run(int threads, std::ostream& log) { plan_.run(threads, log); }

  [[nodiscard]] const Grid& grid() const { return grid_; }
  [[nodiscard]] const Task& task() const { return *task_; }
  /// In the order of the methods.
  [[nodiscard]] const std::vector<Case>& cases() const { return cases_; }
  /// A run a seed.
  [[nodiscard]] const std::vector<RunResult>& runs(const Case& c) const { return runs_.at(c); }
  /// A run a rate.
  [[nodiscard]] const std::vector<RunResult>& search(const Case& c) const {
    return searches_.at(c);
  }
  [[nodiscard]] experiment::ChosenRate chosen_rate(const Case& c) const {
    return experiment::choose_rate(search(c), grid_.rates,
                                   [](const RunResult& run) { return run.score(); });
  }

 private:
  static constexpr std::uint64_t search_seed = 1000;

  /// Seconds of a core, roughly.
  [[nodiscard]] double cost() const {
    const Shape& shape = grid_.task.shape;
    const double weights = double(shape.layers * shape.width) *
                           double(4 * shape.width + 3 * shape.inner + grid_.task.length);
    const double tokens = double(grid_.training.steps * grid_.training.batch * grid_.task.length);
    return 6.0 * weights * tokens / 1e10;
  }
  [[nodiscard]] RunResult run(const Method& method, const RunSettings& s, Part part) const {
    const Training& t = grid_.training;
    const std::string key = mora::detail::concat(
        task_->name, " batch:", t.batch, " steps:", t.steps, " warm_up:", t.warm_up,
        " restarts:", t.restart_every, '+', t.restart_warm_up, " points:", t.curve_points, ' ',
        method.name, " r:", s.rank, " rate:", s.learning_rate, " seed:", s.seed,
        part == Part::search ? " search" : " results");
    return journal_->run(key, [&] { return train_run(*task_, method, t, s, part); });
  }
  void plan(const Case& c, const Method& method) {
    std::vector<RunResult>& search = searches_[c];
    search.resize(grid_.rates.size());
    for (std::size_t i = 0; i < search.size(); ++i) {
      const RunSettings settings{c.rank, grid_.rates[i], search_seed};
      plan_.add(experiment::Stage::first, {"search/" + c.name() + "/rate:" + std::to_string(i),
                                           cost(), [&result = search[i], &method, settings, this] {
                                             result = run(method, settings, Part::search);
                                           }});
    }
    std::vector<RunResult>& results = runs_[c];
    results.resize(static_cast<std::size_t>(grid_.seeds));
    for (std::size_t i = 0; i < results.size(); ++i) {
      plan_.add(experiment::Stage::second,
                {"results/" + c.name() + "/seed:" + std::to_string(i + 1), cost(),
                 [&result = results[i], &method, c, seed = std::uint64_t{i + 1}, this] {
                   result = run(method, {c.rank, chosen_rate(c).rate, seed}, Part::results);
                 }});
    }
  }

  Grid grid_;
  const Task* task_;
  Journal* journal_;
  std::vector<Case> cases_;
  experiment::Plan plan_;
  Results searches_;
  Results runs_;
};

}  // namespace study
