// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <vector>

#include "capacity/memory_result.hpp"

namespace capacity {

/// What is trained at one budget.
struct MemoryBudget {
  Index rank = 0;            ///< LoRA's, which sets the budget of all.
  std::vector<Index> pairs;  ///< Set sizes, up to where methods fail.
  /// Learning rates are searched at each set size from this one on; smaller sets take its rate.
  Index least_search = 0;

  [[nodiscard]] Index search_size(Index size) const { return std::max(size, least_search); }

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
  grid.rates = {3e-3, 1e-2, 3e-2, 1e-1, 3e-1};
  if (!full) {
    grid.budgets = {{.rank = 4, .pairs = {4, 16, 64, 128, 256}, .least_search = 64}};
    return grid;
  }
  grid.training.passes = 200;
  grid.training.least_seen = 64000;
  grid.training.most_for_least = 4000;
  grid.training.curve_points = 24;
  grid.budgets = {
      {.rank = 4, .pairs = {4, 16, 64, 128, 192, 256, 384, 512, 768}, .least_search = 16},
      {.rank = 8, .pairs = {16, 64, 128, 256, 384, 512, 768, 1024}, .least_search = 16}};
  return grid;
}

}  // namespace capacity
