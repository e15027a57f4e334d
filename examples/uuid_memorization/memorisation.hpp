// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <compare>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "experiment/plan.hpp"
#include "experiment/rate_search.hpp"
#include "uuid_memorization/grid.hpp"
#include "uuid_memorization/journal.hpp"

namespace uuid_memorization {

/// One point of the grid. Full training has no budget, so its rank is 0.
struct Case {
  std::string method;
  Index rank = 0;
  Index pairs = 0;

  auto operator<=>(const Case&) const = default;
  [[nodiscard]] std::string name() const {
    return method + "/r:" + std::to_string(rank) + "/pairs:" + std::to_string(pairs);
  }
};

/// The runs of a grid over one base: first the search of learning rates, then the results.
class Memorisation {
 public:
  using Results = std::map<Case, std::vector<RunResult>>;

  /// Throws mora::ArgumentError for a method that is not there.
  Memorisation(Grid grid, const Base& base, Journal& journal)
      : grid_(std::move(grid)), base_(&base), journal_(&journal) {
    if (grid_.methods.empty()) grid_.methods = all_methods();
    for (const std::string& name : grid_.methods) {
      const Method& method = experiment::decoder_method(name);
      if (method.restart) throw mora::ArgumentError(name + ": here nothing restarts adapters");
      for (const Index rank : ranks_of(method)) {
        plan_search({name, rank, grid_.search_pairs}, method);
        for (const Index pairs : grid_.pairs) plan_runs({name, rank, pairs}, method);
      }
    }
  }
  Memorisation(const Memorisation&) = delete;  // the plan points into it
  Memorisation& operator=(const Memorisation&) = delete;

  void run(int threads, std::ostream& log) { plan_.run(threads, log); }

  [[nodiscard]] const Grid& grid() const { return grid_; }
  /// For each case a run a seed.
  [[nodiscard]] const Results& runs() const { return runs_; }
  /// For each search a run for every rate and seed.
  [[nodiscard]] const Results& searches() const { return searches_; }
  /// The outcome of the search that a case uses.
  [[nodiscard]] experiment::ChosenRate chosen_rate(Case c) const {
    c.pairs = grid_.search_pairs;
    return experiment::choose_rate(searches_.at(c), grid_.rates, experiment::bits_per_parameter);
  }

 private:
  using Job = experiment::Job;
  using Stage = experiment::Stage;

  [[nodiscard]] std::vector<Index> ranks_of(const Method& method) const {
    return method.full ? std::vector<Index>{0} : grid_.ranks;
  }
  /// Seconds of a core, roughly.
  [[nodiscard]] double cost(const Case& c) const {
    const double positions =
        double(pair_positions) * (double(grid_.training.steps * grid_.training.batch) +
                                  0.3 * double(grid_.training.curve_points * c.pairs));
    const double width = double(grid_.base.width) / 64.0;
    return positions * width * width * (c.method == "lora" ? 2.5e-5 : 3e-5);
  }
  [[nodiscard]] RunResult run(const Method& method, const Training& t, const RunSettings& s) const {
    const std::string key =
        mora::detail::concat(grid_.base.name(), " batch:", t.batch, " steps:", t.steps,
                             " points:", t.curve_points, ' ', method.name, " r:", s.rank,
                             " pairs:", s.pairs, " rate:", s.learning_rate, " seed:", s.seed);
    return journal_->run(key, [&] { return memory_run(method, *base_, t, s); });
  }
  void plan_search(const Case& c, const Method& method) {
    std::vector<RunResult>& results = searches_[c];
    results.resize(grid_.rates.size() * static_cast<std::size_t>(grid_.search_seeds));
    std::size_t place = 0;
    Training training = grid_.training;
    training.curve_points = 1;  // a search needs the end alone
    for (const double rate : grid_.rates) {
      for (int i = 0; i < grid_.search_seeds; ++i, ++place) {
        const RunSettings settings{c.rank, c.pairs, rate, 1000 + static_cast<std::uint64_t>(i)};
        plan_.add(Stage::first,
                  {"learning_rate/" + c.name() + "/rate:" + experiment::number("%g", rate) +
                       "/seed:" + std::to_string(settings.seed),
                   cost(c), [&result = results[place], &method, training, settings, this] {
                     result = run(method, training, settings);
                   }});
      }
    }
  }
  void plan_runs(const Case& c, const Method& method) {
    std::vector<RunResult>& results = runs_[c];
    results.resize(static_cast<std::size_t>(grid_.seeds));
    for (std::size_t i = 0; i < results.size(); ++i) {
      const std::uint64_t seed = i + 1;
      plan_.add(
          Stage::second,
          {"memorise/" + c.name() + "/seed:" + std::to_string(seed), cost(c),
           [&result = results[i], &method, c, seed, this] {
             result = run(method, grid_.training, {c.rank, c.pairs, chosen_rate(c).rate, seed});
           }});
    }
  }

  Grid grid_;
  const Base* base_;
  Journal* journal_;
  experiment::Plan plan_;
  Results searches_;
  Results runs_;
};

}  // namespace uuid_memorization
