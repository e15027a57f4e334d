// SPDX-License-Identifier: MIT
#pragma once

#include <compare>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "capacity/memory_grid.hpp"
#include "capacity/suite.hpp"
#include "experiment/rate_search.hpp"

namespace capacity {

/// One point of the grid.
struct MemoryCase {
  std::string method;
  Index rank = 0;
  Index pairs = 0;

  auto operator<=>(const MemoryCase&) const = default;
  [[nodiscard]] std::string name() const {
    return method + "/pairs:" + std::to_string(pairs) + "/r:" + std::to_string(rank);
  }
};

/// The memory experiment. Its benchmarks are `learning_rate/<case>` (the search) and
/// `memorise/<case>`, whose jobs search first.
class Memorise {
 public:
  using Results = std::map<MemoryCase, std::vector<RunResult>>;

  explicit Memorise(MemoryGrid grid) : grid_(std::move(grid)) {}

  void add_methods(Suite& suite);

  [[nodiscard]] const MemoryGrid& grid() const { return grid_; }
  /// In the order of the tables.
  [[nodiscard]] const std::vector<std::string>& methods() const { return methods_; }
  /// What was measured: for each case a run a seed.
  [[nodiscard]] const Results& runs() const { return runs_; }
  /// For each case that was searched a run for every rate and seed.
  [[nodiscard]] const Results& searches() const { return searches_; }

  /// The case whose search a case uses.
  [[nodiscard]] MemoryCase search_for(MemoryCase c) const;
  /// The outcome of that search.
  [[nodiscard]] ChosenRate chosen_rate(const MemoryCase& c) const;

 private:
  /// A method without its type.
  struct Method {
    std::function<RunResult(const Training&, const RunSettings&)> run;
    bool full = false;
  };

  void add(Suite& suite, const MemoryCase& c, const Method& method);
  void plan_search(Plan& plan, const MemoryCase& c, const Method& method);
  void plan_runs(Plan& plan, const MemoryCase& c, const Method& method);
  double report_search(const MemoryCase& c, benchmark::UserCounters& counters) const;
  double report_runs(const MemoryCase& c, benchmark::UserCounters& counters) const;
  [[nodiscard]] double cost(Index pairs, bool full) const;

  MemoryGrid grid_;
  std::vector<std::string> methods_;
  Results searches_;
  Results runs_;
};

}  // namespace capacity
