// SPDX-License-Identifier: MIT
#pragma once

#include <initializer_list>
#include <string>

#include "capacity/memorise.hpp"
#include "experiment/table.hpp"

namespace capacity {

/// learning_rates.csv: every run of the search. memorise.csv: every run of the results.
/// memorise_curves.csv: the latter by step.
inline void write_csv(const Memorise& memorise, const std::string& folder) {
  if (memorise.searches().empty()) return;
  const auto cells = [](const MemoryCase& c, const RunResult& run,
                        std::initializer_list<std::string> more) {
    Cells all = {c.method, std::to_string(c.rank), std::to_string(c.pairs),
                 std::to_string(run.settings.seed)};
    all.insert(all.end(), more);
    return all;
  };
  CsvFile rates(folder + "/learning_rates.csv",
                {"method", "r", "pairs", "seed", "learning_rate", "bits_per_parameter", "accuracy",
                 "diverged", "chosen", "at_edge"});
  for (const auto& [c, search] : memorise.searches()) {
    const ChosenRate chosen = memorise.chosen_rate(c);
    for (const RunResult& run : search) {
      const bool is_chosen = run.settings.learning_rate == chosen.rate;
      rates.add(
          cells(c, run,
                {number("%g", run.settings.learning_rate), number("%.6f", run.bits_per_parameter()),
                 number("%.5f", run.recall.accuracy), std::to_string(run.diverged),
                 std::to_string(is_chosen), std::to_string(is_chosen && chosen.at_edge)}));
    }
  }
  if (memorise.runs().empty()) return;
  CsvFile results(folder + "/memorise.csv",
                  {"method", "r", "pairs", "seed", "parameters", "budget", "work", "learning_rate",
                   "steps", "accuracy", "bits", "bits_per_parameter", "diverged", "seconds"});
  CsvFile curves(folder + "/memorise_curves.csv",
                 {"method", "r", "pairs", "seed", "step", "accuracy", "bits_per_parameter"});
  for (const auto& [c, runs] : memorise.runs()) {
    for (const RunResult& run : runs) {
      results.add(cells(c, run,
                        {std::to_string(run.parameters), std::to_string(run.budget),
                         std::to_string(run.work), number("%g", run.settings.learning_rate),
                         std::to_string(run.steps), number("%.5f", run.recall.accuracy),
                         number("%.1f", run.recall.bits), number("%.6f", run.bits_per_parameter()),
                         std::to_string(run.diverged), number("%.3f", run.seconds)}));
      for (const CurvePoint& point : run.curve) {
        curves.add(cells(c, run,
                         {std::to_string(point.step), number("%.5f", point.recall.accuracy),
                          number("%.6f", point.recall.bits / double(run.parameters))}));
      }
    }
  }
}

}  // namespace capacity
