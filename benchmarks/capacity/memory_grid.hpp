// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "capacity/memory_result.hpp"

namespace capacity {

/// What is trained at one budget.
struct MemoryBudget {
  Index rank = 0;            ///< LoRA's, which sets the budget of all.
  std::vector<Index> pairs;  ///< Set sizes, up to where methods fail.
  /// The set size that learning rates are searched at; 0: at each size for itself.
  Index search_pairs = 0;

  /// A size well into the grid, for the table that has room for one.
  [[nodiscard]] Index middle_size() const { return pairs[pairs.size() * 2 / 3]; }
};

/// The memory experiment: every method at every budget and set size, after the same search.
struct MemoryGrid {
  NetworkShape shape;
  Training training;
  std::vector<double> rates;  ///< Ascending.
  int search_seeds = 1;       ///< Other ones than those of the results.
  int seeds = 3;
  std::vector<MemoryBudget> budgets;
};

/// A set counts as memorised when the mean over seeds of the character accuracy reaches this.
inline constexpr double memorised_accuracy = 0.99;

[[nodiscard]] inline MemoryGrid memory_grid(bool full) {
  MemoryGrid grid;
  grid.rates = {1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1};
  if (!full) {
    grid.budgets = {{.rank = 4, .pairs = {8, 32, 64, 128, 192}, .search_pairs = 128}};
    return grid;
  }
  grid.training.passes = 500;
  grid.training.min_steps = 1000;
  grid.training.curve_points = 50;
  grid.seeds = 5;
  grid.budgets = {{.rank = 4, .pairs = {16, 32, 64, 96, 128, 192, 256}},
                  {.rank = 8, .pairs = {32, 64, 128, 192, 256, 384, 512}}};
  return grid;
}

}  // namespace capacity
