// SPDX-License-Identifier: MIT
#include "study/report.hpp"

#include <cmath>
#include <numbers>
#include <ostream>
#include <vector>

#include "experiment/statistics.hpp"
#include "experiment/table.hpp"

namespace study {

namespace {

using experiment::Cells;
using experiment::CsvFile;
using experiment::number;
using experiment::sample_of;

/// Bits a target: a byte, or the end of a response.
[[nodiscard]] double bits(double loss) { return loss / std::numbers::ln2; }

[[nodiscard]] Cells operator+(Cells cells, const Cells& more) {
  cells.insert(cells.end(), more.begin(), more.end());
  return cells;
}

[[nodiscard]] Cells cells_of(const Case& c) { return {c.method, std::to_string(c.rank)}; }

void write_runs(const Study& study, const std::string& folder) {
  CsvFile runs(folder + "/runs.csv",
               {"method", "r", "seed", "parameters", "budget", "others", "learning_rate", "steps",
                "set", "bits_before", "bits", "exact", "diverged", "seconds"});
  CsvFile curves(folder + "/curves.csv",
                 {"method", "r", "seed", "set", "step", "bits", "perplexity", "exact"});
  for (const Case& c : study.cases()) {
    for (const RunResult& run : study.runs(c)) {
      const Cells of_run = cells_of(c) + Cells{std::to_string(run.settings.seed)};
      for (std::size_t set = 0; set < study.task().held_out.size(); ++set) {
        const std::string& name = study.task().held_out[set].name;
        const Score& first = run.curve.front().scores[set];
        const Score& last = run.curve.back().scores[set];
        const auto at_end = [&](const std::string& cell) { return run.diverged ? "" : cell; };
        runs.add(of_run +
                 Cells{std::to_string(run.parameters), std::to_string(run.budget),
                       std::to_string(run.others), number("%g", run.settings.learning_rate),
                       std::to_string(study.grid().training.steps), name,
                       number("%.5f", bits(first.loss)), at_end(number("%.5f", bits(last.loss))),
                       at_end(number("%.5f", last.exact)), std::to_string(run.diverged),
                       number("%.2f", run.seconds)});
        for (const CurvePoint& point : run.curve) {
          const Score& score = point.scores[set];
          curves.add(of_run +
                     Cells{name, std::to_string(point.step), number("%.5f", bits(score.loss)),
                           number("%.4f", std::exp(score.loss)), number("%.5f", score.exact)});
        }
      }
    }
  }
}

void write_search(const Study& study, const std::string& folder) {
  CsvFile rates(folder + "/learning_rates.csv",
                {"method", "r", "learning_rate", "bits", "diverged", "chosen", "at_edge"});
  for (const Case& c : study.cases()) {
    const experiment::ChosenRate chosen = study.chosen_rate(c);
    for (const RunResult& run : study.search(c)) {
      const bool is_chosen = run.settings.learning_rate == chosen.rate;
      rates.add(cells_of(c) + Cells{number("%g", run.settings.learning_rate),
                                    number("%.5f", bits(-run.score())),
                                    std::to_string(run.diverged), std::to_string(is_chosen),
                                    std::to_string(is_chosen && chosen.at_edge)});
    }
  }
}

void write_spectra(const Study& study, const std::string& folder) {
  CsvFile summary(folder + "/spectrum.csv",
                  {"method", "r", "seed", "kind", "above_0.1", "effective_rank", "largest"});
  CsvFile values(folder + "/singular_values.csv", {"method", "r", "kind", "place", "value"});
  for (const Case& c : study.cases()) {
    for (const RunResult& run : study.runs(c)) {
      for (const KindSpectrum& each : run.spectra) {
        summary.add(cells_of(c) + Cells{std::to_string(run.settings.seed), each.kind,
                                        number("%.3f", each.above),
                                        number("%.3f", each.effective_rank),
                                        number("%.5f", each.values.front())});
      }
    }
    const RunResult& first = study.runs(c).front();
    for (const KindSpectrum& each : first.spectra) {
      for (std::size_t i = 0; i < each.values.size(); ++i) {
        values.add(cells_of(c) +
                   Cells{each.kind, std::to_string(i + 1), number("%.4g", each.values[i])});
      }
    }
  }
}

void print_search(const Study& study, std::ostream& out) {
  experiment::Pivot pivot;
  bool edge = false;
  for (const Case& c : study.cases()) {
    const experiment::ChosenRate chosen = study.chosen_rate(c);
    edge = edge || chosen.at_edge;
    for (const RunResult& run : study.search(c)) {
      const double rate = run.settings.learning_rate;
      const std::string mark = rate != chosen.rate ? "  " : chosen.at_edge ? "*!" : "* ";
      pivot.set(c.name(), number("%g", rate),
                run.diverged ? "diverged" + mark : number("%.4f", bits(-run.score())) + mark);
    }
  }
  pivot
      .table("Search of learning rates: bits a byte of '" + study.task().held_out.front().name +
                 "', its half for searching",
             "")
      .print(out);
  out << "  * chosen" << (edge ? "; ! at the edge of the grid, a better one may lie beyond" : "")
      << '\n';
}

}  // namespace

void write_csv(const Study& study, const std::string& folder) {
  write_runs(study, folder);
  write_search(study, folder);
  write_spectra(study, folder);
}

void write_costs(const Grid& grid, const std::map<Case, Cost>& costs, const std::string& folder) {
  CsvFile file(folder + "/cost.csv", {"method", "r", "step_ms", "times_first", "mib"});
  for (const Case& c : cases_of(grid)) {
    const Cost& cost = costs.at(c);
    file.add(cells_of(c) + Cells{number("%.2f", cost.step_ms), number("%.3f", cost.times_first),
                                 number("%.2f", cost.mib)});
  }
}

void print_costs(const Grid& grid, const std::map<Case, Cost>& costs, std::ostream& out) {
  experiment::Table table("A step of training on one thread",
                          {"", "ms", "times the first", "MiB beside the base"});
  for (const Case& c : cases_of(grid)) {
    const Cost& cost = costs.at(c);
    table.add({c.name(), number("%.1f", cost.step_ms), number("%.2f", cost.times_first),
               number("%.1f", cost.mib)});
  }
  table.print(out);
}

void print(const Study& study, const std::map<Case, Cost>& costs, std::ostream& out) {
  print_search(study, out);
  const std::vector<HeldOut>& sets = study.task().held_out;
  Cells header = {"", "parameters", "budget", "others", "rate"};
  for (const HeldOut& set : sets) {
    header = header + Cells{set.name + " before", "bits a byte"};
    if (study.task().exact) header.push_back("right %");
  }
  header = header + Cells{"above 0.1", "effective rank", "step ms", "MiB"};
  experiment::Table table("After " + std::to_string(study.grid().training.steps) +
                              " steps, mean ± standard deviation over " +
                              std::to_string(study.grid().seeds) + " seeds",
                          header);
  for (const Case& c : study.cases()) {
    const std::vector<RunResult>& runs = study.runs(c);
    const RunResult& first = runs.front();
    Cells row = {c.name(), experiment::grouped(first.parameters),
                 first.budget == 0 ? "-" : experiment::grouped(first.budget),
                 experiment::grouped(first.others), number("%g", first.settings.learning_rate)};
    for (std::size_t set = 0; set < sets.size(); ++set) {
      // Of runs that diverged there is no result.
      const auto at_end = [&](const char* format, auto get) {
        std::vector<double> values;
        for (const RunResult& run : runs) {
          if (!run.diverged) values.push_back(get(run.curve.back().scores[set]));
        }
        const std::size_t lost = runs.size() - values.size();
        if (values.empty()) return std::string("diverged");
        return experiment::with_spread(format, sample_of(values)) +
               (lost > 0 ? ", " + std::to_string(lost) + " diverged" : "");
      };
      const auto before = sample_of(
          runs, [&](const RunResult& run) { return bits(run.curve.front().scores[set].loss); });
      row.push_back(number("%.4f", before.mean));
      row.push_back(at_end("%.4f", [](const Score& score) { return bits(score.loss); }));
      if (study.task().exact) {
        row.push_back(at_end("%.1f", [](const Score& score) { return 100.0 * score.exact; }));
      }
    }
    const auto over_kinds = [&](auto get) {
      double sum = 0;
      Index count = 0;
      for (const RunResult& run : runs) {
        for (const KindSpectrum& each : run.spectra) {
          sum += get(each);
          ++count;
        }
      }
      return count == 0 ? 0.0 : sum / double(count);
    };
    const Cost& cost = costs.at(c);
    table.add(row +
              Cells{number("%.1f", over_kinds([](const auto& k) { return k.above; })),
                    number("%.1f", over_kinds([](const auto& k) { return k.effective_rank; })),
                    number("%.1f", cost.step_ms), number("%.1f", cost.mib)});
  }
  table.print(out);
}

}  // namespace study
