// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <iostream>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "capacity/memorise.hpp"
#include "experiment/table.hpp"

namespace capacity {

/// The means of a case over its seeds.
struct MemorySummary {
  MemoryCase where;
  Sample accuracy;
  Sample bits_per_parameter;
  RunResult first;  ///< The first seed's, for what all seeds share.
  [[nodiscard]] bool memorised() const { return accuracy.mean >= memorised_accuracy; }
};

/// Those of a budget, in the order of the methods, then by set size.
[[nodiscard]] inline std::vector<MemorySummary> summaries(const Memorise& memorise, Index rank) {
  std::vector<MemorySummary> all;
  for (const std::string& method : memorise.methods()) {
    for (const auto& [c, runs] : memorise.runs()) {
      if (c.method != method || c.rank != rank) continue;
      all.push_back(
          {.where = c,
           .accuracy = sample_of(runs, [](const RunResult& r) { return r.recall.accuracy; }),
           .bits_per_parameter =
               sample_of(runs, [](const RunResult& r) { return r.bits_per_parameter(); }),
           .first = runs.front()});
    }
  }
  return all;
}

/// What was done, in words.
inline void print_protocol(const Memorise& memorise, std::ostream& out) {
  const MemoryGrid& grid = memorise.grid();
  const Training& training = grid.training;
  const auto text = [](auto value) { return std::to_string(value); };
  std::string searched;
  for (const MemoryBudget& budget : grid.budgets) {
    searched += (searched.empty() ? "" : "; ") + std::string("for r = ") + text(budget.rank) +
                " at each size from " + text(budget.least_search);
  }
  print_paragraph(
      out,
      "UUID pairs: a frozen random network, key -> embedding " + text(grid.shape.width) + " -> " +
          text(grid.shape.hidden) + " (ReLU) -> " + text(grid.shape.width) +
          " -> head 32 x 16 logits, with adapters on the two layers between embedding and head, " +
          "is trained by AdamW without weight decay in batches of " + text(training.batch) +
          " pairs (smaller sets whole) for " + text(training.passes) + " passes, or until " +
          grouped(training.least_seen) +
          " pairs were seen where that is more, but for that in no more than " +
          grouped(training.most_for_least) +
          " steps; the learning rate warms up over 5 % of the steps "
          "and falls to 0 as a cosine. What a method holds after that is counted; longer training "
          "may give more. " +
          text(grid.seeds) + " seeds; learning rates from one grid for all methods, searched (" +
          searched + " pairs on, whose rate smaller sets take) with " + text(grid.search_seeds) +
          (grid.search_seeds == 1 ? " seed" : " seeds") +
          " of its own. Full training is run with "
          "the largest set alone, which contains the smaller ones.");
}

/// The whole search: bits a parameter for every rate, the chosen one marked.
inline void print_search(const Memorise& memorise, std::ostream& out) {
  Pivot pivot;
  bool edge = false;
  for (const std::string& method : memorise.methods()) {
    for (const auto& [c, search] : memorise.searches()) {
      if (c.method != method) continue;
      const ChosenRate chosen = memorise.chosen_rate(c);
      for (const double rate : memorise.grid().rates) {
        const std::string mark = rate != chosen.rate ? "  " : chosen.at_edge ? "*!" : "* ";
        pivot.set(c.name(), number("%g", rate),
                  number("%.3f", mean_bits_per_parameter(search, rate)) + mark);
      }
      if (!chosen.at_edge) continue;
      edge = true;
      std::cerr << "warning: the best learning rate of " << c.name() << ", " << chosen.rate
                << ", is at the edge of the grid\n";
    }
  }
  if (pivot.rows().empty()) return;
  pivot.table("Search of learning rates: bits remembered per trainable parameter", "").print(out);
  out << "  * chosen" << (edge ? "; ! at the edge of the grid, a better one may lie beyond" : "")
      << '\n';
}

/// Mean character accuracy of a case at about six of the steps where it was measured.
inline void add_by_step(Pivot& pivot, const std::string& method,
                        const std::vector<RunResult>& runs) {
  const std::vector<CurvePoint>& curve = runs.front().curve;
  const std::size_t stride = std::max<std::size_t>(1, (curve.size() - 1) / 6);
  for (std::size_t point = 0; point < curve.size(); point += stride) {
    const Sample accuracy = sample_of(runs, [&](const RunResult& run) {
      return point < run.curve.size() ? run.curve[point].recall.accuracy : 0.0;
    });
    pivot.set(method, std::to_string(curve[point].step), number("%.1f", 100.0 * accuracy.mean));
  }
}

inline void print_budget(const Memorise& memorise, const MemoryBudget& budget, std::ostream& out) {
  Pivot setup;
  Pivot accuracy;
  Pivot bits;
  Pivot by_step;
  Pivot steps;
  std::map<std::string, Index> largest;
  for (const MemorySummary& s : summaries(memorise, budget.rank)) {
    const std::string& method = s.where.method;
    const std::string pairs = std::to_string(s.where.pairs);
    setup.set(method, "parameters", grouped(s.first.parameters));
    setup.set(method, "budget", s.first.budget == 0 ? "-" : grouped(s.first.budget));
    setup.set(method, "multiply-adds", grouped(s.first.work));
    steps.set("steps", pairs, grouped(s.first.steps));
    accuracy.set(method, pairs,
                 with_spread("%.1f", {100.0 * s.accuracy.mean, 100.0 * s.accuracy.deviation}));
    bits.set(method, pairs, with_spread("%.3f", s.bits_per_parameter));
    if (s.memorised()) largest[method] = std::max(largest[method], s.where.pairs);
    if (s.where.pairs == budget.middle_size()) {
      add_by_step(by_step, method, memorise.runs().at(s.where));
    }
  }
  if (setup.rows().empty()) return;
  for (const std::string& method : accuracy.rows()) {
    const auto found = largest.find(method);
    accuracy.set(method, "memorised",
                 found == largest.end() ? "none" : std::to_string(found->second));
  }
  const std::string title = "UUID pairs, r = " + std::to_string(budget.rank) + ": ";
  setup
      .table(title +
                 "trainable parameters, their budget (LoRA's number), multiply-adds a pair "
                 "that the adapters add",
             "")
      .print(out);
  steps.table(title + "training steps by number of pairs", "").print(out);
  accuracy
      .table(title +
                 "character accuracy in % by number of pairs (mean ± standard deviation); "
                 "largest set memorised",
             "")
      .print(out);
  bits.table(title + "bits remembered per trainable parameter, of 122 random bits a pair", "")
      .print(out);
  if (by_step.rows().empty()) return;
  by_step
      .table(title + "character accuracy in % by step with " +
                 std::to_string(budget.middle_size()) + " pairs",
             "")
      .print(out);
}

inline void print(const Memorise& memorise, std::ostream& out) {
  if (memorise.searches().empty()) return;
  print_protocol(memorise, out);
  print_search(memorise, out);
  for (const MemoryBudget& budget : memorise.grid().budgets) print_budget(memorise, budget, out);
}

}  // namespace capacity
