// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "experiment/table.hpp"
#include "uuid_memorization/memorisation.hpp"

namespace uuid_memorization {

/// runs.csv: every run of the results; curves.csv: the same by step; learning_rates.csv: the whole
/// search; base.csv: what was checked of the base.
inline void write_csv(const Memorisation& memorisation, const BaseCheck& base,
                      const std::string& folder) {
  using experiment::Cells;
  using experiment::CsvFile;
  using experiment::number;
  const auto recall = [](const PairRecall& r) {
    return Cells{number("%.5f", r.loss), number("%.5f", r.accuracy), number("%.5f", r.first_four),
                 number("%.5f", r.verbatim), number("%.1f", r.bits)};
  };
  const Cells recall_names = {"loss", "accuracy", "first_four", "verbatim", "bits"};
  const auto joined = [](Cells cells, const Cells& more) {
    cells.insert(cells.end(), more.begin(), more.end());
    return cells;
  };
  const auto of_run = [](const Case& c, const RunResult& run) {
    return Cells{c.method, std::to_string(c.rank), std::to_string(c.pairs),
                 std::to_string(run.settings.seed)};
  };
  const Cells run_names = {"method", "r", "pairs", "seed"};

  CsvFile checks(folder + "/base.csv", joined({"pairs"}, recall_names));
  checks.add(joined({"own"}, recall(base.own)));
  checks.add(joined({"own_keys_exchanged"}, recall(base.exchanged)));
  checks.add(joined({"value_is_key"}, recall(base.copy)));
  checks.add(joined({"value_is_key_swapped"}, recall(base.swapped)));
  checks.add(joined({"unknown"}, recall(base.unknown)));

  CsvFile rates(folder + "/learning_rates.csv",
                joined(joined(run_names, {"learning_rate", "bits_per_parameter"}),
                       joined(recall_names, {"diverged", "chosen", "at_edge"})));
  for (const auto& [c, search] : memorisation.searches()) {
    const experiment::ChosenRate chosen = memorisation.chosen_rate(c);
    for (const RunResult& run : search) {
      const bool is_chosen = run.settings.learning_rate == chosen.rate;
      rates.add(joined(
          joined(of_run(c, run), {number("%g", run.settings.learning_rate),
                                  number("%.6f", run.bits_per_parameter())}),
          joined(recall(run.recall), {std::to_string(run.diverged), std::to_string(is_chosen),
                                      std::to_string(is_chosen && chosen.at_edge)})));
    }
  }
  CsvFile runs(folder + "/runs.csv",
               joined(joined(run_names, {"parameters", "budget", "work", "learning_rate", "steps",
                                         "loss_before", "bits_per_parameter"}),
                      joined(recall_names, {"diverged", "seconds"})));
  CsvFile curves(folder + "/curves.csv", joined(joined(run_names, {"step"}), recall_names));
  for (const auto& [c, results] : memorisation.runs()) {
    for (const RunResult& run : results) {
      runs.add(joined(
          joined(of_run(c, run),
                 {std::to_string(run.parameters), std::to_string(run.budget),
                  std::to_string(run.work), number("%g", run.settings.learning_rate),
                  std::to_string(run.steps), number("%.5f", run.curve.front().recall.loss),
                  number("%.6f", run.bits_per_parameter())}),
          joined(recall(run.recall), {std::to_string(run.diverged), number("%.3f", run.seconds)})));
      for (const CurvePoint& point : run.curve) {
        curves.add(
            joined(joined(of_run(c, run), {std::to_string(point.step)}), recall(point.recall)));
      }
    }
  }
}

}  // namespace uuid_memorization
