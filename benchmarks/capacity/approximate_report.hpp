// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <map>
#include <ostream>
#include <string>
#include <utility>

#include "capacity/approximate.hpp"
#include "experiment/table.hpp"

namespace capacity {

inline void write_csv(const Approximate& approximate, const std::string& folder) {
  if (approximate.rows().empty()) return;
  CsvFile file(folder + "/approximation.csv",
               {"target", "size", "r", "method", "parameters", "budget", "seed", "relative_error"});
  for (const ApproximationRow& row : approximate.rows()) {
    for (std::size_t seed = 0; seed < row.errors.size(); ++seed) {
      file.add({row.target.name(), std::to_string(row.size), std::to_string(row.lora_rank),
                row.method, std::to_string(row.parameters), std::to_string(row.budget),
                std::to_string(seed + 1), number("%.8g", row.errors[seed])});
    }
  }
}

/// A table a target: methods down, r across.
inline void print(const Approximate& approximate, std::ostream& out) {
  std::map<std::string, Pivot> by_target;
  std::map<std::string, double> spread;
  Cells order;
  for (const ApproximationRow& row : approximate.rows()) {
    const std::string target = row.target.name();
    if (std::find(order.begin(), order.end(), target) == order.end()) order.push_back(target);
    const std::string r = std::to_string(row.lora_rank);
    by_target[target].set("budget", r, grouped(row.budget));
    by_target[target].set(row.method, r, number("%.3f", row.error().mean));
    spread[target] = std::max(spread[target], row.error().deviation);
  }
  for (const std::string& target : order) {
    by_target[target]
        .table("Target " + target +
                   ": smallest relative error of an update (mean over seeds; deviations up to " +
                   number("%.4f", spread[target]) + ")",
               "r")
        .print(out);
  }
}

/// For each target in how many cases LoRA comes closer than every MoRA operator.
inline void conclude(const Approximate& approximate, std::ostream& out) {
  std::map<std::pair<std::string, Index>, double> lora;
  std::map<std::pair<std::string, Index>, double> best_mora;
  for (const ApproximationRow& row : approximate.rows()) {
    const std::pair<std::string, Index> key{row.target.name(), row.lora_rank};
    const double error = row.error().mean;
    if (row.method == "lora") {
      lora[key] = error;
    } else {
      const auto best = best_mora.try_emplace(key, error).first;
      best->second = std::min(best->second, error);
    }
  }
  std::string text;
  for (const Target& target : targets()) {
    int cases = 0;
    int closer = 0;
    for (const auto& [key, error] : lora) {
      const auto other = best_mora.find(key);
      if (key.first != target.name() || other == best_mora.end()) continue;
      ++cases;
      closer += error < other->second;
    }
    if (cases == 0) continue;
    text += (text.empty() ? "" : ", ") + target.name() + " " + std::to_string(closer) + " of " +
            std::to_string(cases);
  }
  if (text.empty()) return;
  print_paragraph(out,
                  "Approximation: budgets at which LoRA's best update is closer to the target than "
                  "the best update of every MoRA operator: " +
                      text + ".");
}

}  // namespace capacity
