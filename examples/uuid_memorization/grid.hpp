// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "uuid_memorization/run.hpp"

namespace uuid_memorization {

/// The experiment: every method at every budget and set size, after the same search of learning
/// rates, in the same number of steps.
struct Grid {
  BaseSettings base;
  Training training;
  std::vector<std::string> methods;  ///< Empty: all there are.
  std::vector<Index> ranks;          ///< LoRA's; each is a budget.
  std::vector<Index> pairs;          ///< Set sizes, ascending.
  Index search_pairs = 0;            ///< The set size that learning rates are searched at.
  std::vector<double> rates;         ///< Ascending.
  int search_seeds = 1;              ///< Other ones than those of the results.
  int seeds = 3;
};

/// Those of the paper, at a small and a large budget.
[[nodiscard]] inline Grid quick_grid() {
  Grid grid;
  grid.methods = {"lora", "sharing", "rotation", "full"};
  grid.ranks = {2, 8};
  grid.pairs = {32, 64};
  grid.search_pairs = 64;
  grid.rates = {1e-3, 3e-3, 1e-2, 3e-2};
  return grid;
}

/// Every method, budgets in steps of two, up to sets that no budget but the largest holds.
[[nodiscard]] inline Grid full_grid() {
  Grid grid = quick_grid();
  grid.methods.clear();
  grid.training.steps = 400;
  grid.ranks = {1, 2, 4, 8};
  grid.pairs = {32, 64, 128, 256};
  grid.search_pairs = 64;
  grid.rates = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2};
  return grid;
}

/// Seconds, to see that it works: a base that knows nothing and a handful of pairs.
[[nodiscard]] inline Grid tiny_grid() {
  Grid grid = quick_grid();
  grid.base.width = 32;
  grid.base.inner = 40;
  grid.base.heads = 2;
  grid.base.steps = 60;
  grid.base.batch = 8;
  grid.base.pairs = 8;
  grid.training = {.batch = 4, .steps = 160, .curve_points = 4};
  grid.methods = {"lora", "rotation", "full"};
  grid.ranks = {8};
  grid.pairs = {4};
  grid.search_pairs = 4;
  grid.rates = {1e-2, 3e-2};
  grid.seeds = 2;
  return grid;
}

}  // namespace uuid_memorization
