// SPDX-License-Identifier: MIT
#pragma once

#include <map>
#include <ostream>
#include <set>
#include <string>
#include <utility>

#include "capacity/shapes.hpp"
#include "experiment/table.hpp"

namespace capacity {

inline void write_csv(const Shapes& shapes, const std::string& folder) {
  if (shapes.rows().empty()) return;
  CsvFile file(folder + "/capacity.csv",
               {"in", "out", "r", "method", "parameters", "budget", "side", "rank", "rank_from",
                "effective_rank", "seconds"});
  for (const ShapeRow& row : shapes.rows()) {
    file.add({std::to_string(row.in), std::to_string(row.out), std::to_string(row.lora_rank),
              row.method, std::to_string(row.parameters), std::to_string(row.budget),
              std::to_string(row.side), std::to_string(row.rank),
              row.computed ? "singular values" : "structure",
              row.computed ? number("%.2f", row.effective_rank) : "", number("%.4f", row.seconds)});
  }
}

[[nodiscard]] inline std::string rank_cell(const ShapeRow& row) {
  if (!row.computed) return "~" + std::to_string(row.rank);
  return std::to_string(row.rank) + " / " + number("%.0f", row.effective_rank);
}

/// For each shape a table of counts, and one of rank and effective rank: methods down, r across.
inline void print(const Shapes& shapes, std::ostream& out) {
  struct Tables {
    Pivot counts;
    Pivot ranks;
    std::string full;
  };
  std::map<std::pair<Index, Index>, Tables> by_shape;
  for (const ShapeRow& row : shapes.rows()) {
    Tables& tables = by_shape[{row.in, row.out}];
    if (row.lora_rank == 0) {
      tables.full =
          row.method + ": " + grouped(row.parameters) + " parameters, rank " + rank_cell(row);
      continue;
    }
    const std::string r = std::to_string(row.lora_rank);
    const std::string side = row.side == 0 ? "" : " = " + std::to_string(row.side) + "²";
    tables.counts.set("budget", r, grouped(row.budget));
    tables.counts.set(row.method, r, grouped(row.parameters) + side);
    tables.ranks.set(row.method, r, rank_cell(row));
  }
  for (const auto& [shape, tables] : by_shape) {
    const std::string name =
        "Layer " + std::to_string(shape.first) + " -> " + std::to_string(shape.second);
    Cells header = {"r"};
    header.insert(header.end(), tables.counts.columns().begin(), tables.counts.columns().end());
    Table counts(name + ": trainable parameters (methods with the same counts share a line)",
                 header);
    std::set<Cells> known;
    for (const std::string& method : tables.counts.rows()) {
      Cells cells = tables.counts.line(method);
      if (known.insert(Cells(cells.begin() + 1, cells.end())).second) counts.add(cells);
    }
    counts.print(out);
    tables.ranks
        .table(
            name + ": rank / effective rank (~ the most that the structure allows, not computed)",
            "r")
        .print(out);
    if (!tables.full.empty()) out << "  " << tables.full << '\n';
  }
}

}  // namespace capacity
