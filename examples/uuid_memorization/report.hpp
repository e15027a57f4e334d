// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

#include "experiment/statistics.hpp"
#include "experiment/table.hpp"
#include "uuid_memorization/memorisation.hpp"

namespace uuid_memorization {

using experiment::number;
using experiment::Pivot;
using experiment::Sample;
using experiment::sample_of;
using experiment::with_spread;

/// What was done, in words.
inline void print_protocol(const Grid& grid, std::ostream& out) {
  const auto text = [](auto value) { return std::to_string(value); };
  const BaseSettings& base = grid.base;
  experiment::print_paragraph(
      out, "UUID pairs: a LLaMA decoder (width " + text(base.width) + ", feed-forward " +
               text(base.inner) + ", " + text(base.layers) + " layers, " + text(base.heads) +
               " heads), trained for " + text(base.steps) + " steps on " + text(base.pairs) +
               " other pairs and on functions of fresh keys, is frozen; adapters on all its linear "
               "layers but the head learn new pairs, 32 digits of key and 32 of value, with loss "
               "on the value alone: AdamW without weight decay, " +
               text(grid.training.steps) + " steps of " + text(grid.training.batch) +
               " pairs for every method, warm-up over 5 % and cosine to 0. " + text(grid.seeds) +
               " seeds; learning rates from one grid for all methods, searched at " +
               text(grid.search_pairs) + " pairs with " + text(grid.search_seeds) +
               (grid.search_seeds == 1 ? " seed" : " seeds") + " of its own.");
}

inline void print_check(const BaseCheck& check, std::ostream& out) {
  experiment::Table table("The base: what it knows, each digit given those before it",
                          {"", "loss", "characters right %"});
  const auto add = [&](const std::string& name, const PairRecall& recall) {
    table.add({name, number("%.3f", recall.loss), number("%.1f", 100.0 * recall.accuracy)});
  };
  add("its own pairs", check.own);
  add("its own pairs, keys exchanged", check.exchanged);
  add("fresh keys, value is the key", check.copy);
  add("fresh keys, value is the key with its halves swapped", check.swapped);
  add("pairs that it has never seen", check.unknown);
  table.print(out);
  out << "  "
      << (check.attends_to_key() ? "It attends to the key."
                                 : "It does not attend to the key as it should.")
      << '\n';
}

/// Bits a parameter for every rate, the chosen one marked.
inline void print_search(const Memorisation& memorisation, std::ostream& out) {
  Pivot pivot;
  bool edge = false;
  for (const std::string& method : memorisation.grid().methods) {
    for (const auto& [c, search] : memorisation.searches()) {
      if (c.method != method) continue;
      const experiment::ChosenRate chosen = memorisation.chosen_rate(c);
      edge = edge || chosen.at_edge;
      for (const double rate : memorisation.grid().rates) {
        const std::string mark = rate != chosen.rate ? "  " : chosen.at_edge ? "*!" : "* ";
        pivot.set(c.name(), number("%g", rate),
                  number("%.3f", experiment::mean_bits_per_parameter(search, rate)) + mark);
      }
    }
  }
  pivot.table("Search of learning rates: bits remembered per trainable parameter", "").print(out);
  out << "  * chosen" << (edge ? "; ! at the edge of the grid, a better one may lie beyond" : "")
      << '\n';
}

/// The tables of one budget, full training among them for comparison.
class BudgetReport {
 public:
  BudgetReport(const Memorisation& memorisation, Index rank) : rank_(rank) {
    // The set size of the table that has room for one.
    const std::vector<Index>& sizes = memorisation.grid().pairs;
    by_step_pairs_ = sizes[sizes.size() / 2];
    for (const std::string& method : memorisation.grid().methods) {
      for (const auto& [c, runs] : memorisation.runs()) {
        if (c.method == method && (c.rank == rank || c.rank == 0)) add(c, runs);
      }
    }
  }

  void print(std::ostream& out) const {
    const std::string title = "UUID pairs, r = " + std::to_string(rank_) + ": ";
    setup_
        .table(title +
                   "trainable parameters, their budget (LoRA's number), multiply-adds a token "
                   "that the adapters add",
               "")
        .print(out);
    accuracy_
        .table(title + "characters right in % by number of pairs (mean ± standard deviation)", "")
        .print(out);
    loss_.table(title + "loss a digit", "").print(out);
    verbatim_.table(title + "pairs that greedy decoding repeats without an error, in %", "")
        .print(out);
    bits_.table(title + "bits remembered per trainable parameter, of 122 random bits a pair", "")
        .print(out);
    by_step_
        .table(title + "characters right in % by step with " + std::to_string(by_step_pairs_) +
                   " pairs",
               "")
        .print(out);
  }

 private:
  void add(const Case& c, const std::vector<RunResult>& runs) {
    const std::string pairs = std::to_string(c.pairs);
    const RunResult& first = runs.front();
    const auto sample = [&](double factor, auto get) {
      return sample_of(runs, [&](const RunResult& run) { return factor * get(run); });
    };
    setup_.set(c.method, "parameters", experiment::grouped(first.parameters));
    setup_.set(c.method, "budget", first.budget == 0 ? "-" : experiment::grouped(first.budget));
    setup_.set(c.method, "multiply-adds", experiment::grouped(first.work));
    accuracy_.set(
        c.method, pairs,
        with_spread("%.1f", sample(100.0, [](const auto& run) { return run.recall.accuracy; })));
    loss_.set(c.method, pairs,
              with_spread("%.3f", sample(1.0, [](const auto& run) { return run.recall.loss; })));
    verbatim_.set(
        c.method, pairs,
        with_spread("%.0f", sample(100.0, [](const auto& run) { return run.recall.verbatim; })));
    bits_.set(
        c.method, pairs,
        with_spread("%.3f", sample(1.0, [](const auto& run) { return run.bits_per_parameter(); })));
    if (c.pairs == by_step_pairs_) add_by_step(c.method, runs);
  }

  /// At about eight of the steps where it was measured.
  void add_by_step(const std::string& method, const std::vector<RunResult>& runs) {
    const std::vector<CurvePoint>& curve = runs.front().curve;
    const std::size_t stride = std::max<std::size_t>(1, (curve.size() - 1) / 8);
    for (std::size_t point = 0; point < curve.size(); point += stride) {
      const Sample accuracy = sample_of(runs, [&](const RunResult& run) {
        return point < run.curve.size() ? run.curve[point].recall.accuracy : 0.0;
      });
      by_step_.set(method, std::to_string(curve[point].step), number("%.1f", 100 * accuracy.mean));
    }
  }

  Index rank_;
  Index by_step_pairs_ = 0;
  Pivot setup_, accuracy_, loss_, verbatim_, bits_, by_step_;
};

inline void print(const Memorisation& memorisation, const BaseCheck& check, std::ostream& out) {
  print_protocol(memorisation.grid(), out);
  print_check(check, out);
  print_search(memorisation, out);
  for (const Index rank : memorisation.grid().ranks) BudgetReport(memorisation, rank).print(out);
}

}  // namespace uuid_memorization
