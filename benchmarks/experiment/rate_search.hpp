// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <vector>

namespace experiment {

/// The outcome of a search of learning rates.
struct ChosenRate {
  double rate = 0;
  bool at_edge = false;  ///< Of the grid, so that a better one may lie beyond.
};

/// Bits remembered per trainable parameter at a rate, on average over the seeds. A run has
/// `settings.learning_rate` and `bits_per_parameter()`.
template <class Run>
[[nodiscard]] double mean_bits_per_parameter(const std::vector<Run>& search, double rate) {
  double sum = 0;
  int count = 0;
  for (const Run& run : search) {
    if (run.settings.learning_rate != rate) continue;
    sum += run.bits_per_parameter();
    ++count;
  }
  return count == 0 ? 0.0 : sum / count;
}

/// The rate with the most bits remembered. Rates within 0.1 % of it are as good (all that is there
/// to remember may be remembered at several); of these the middle one is taken, the lower of two.
template <class Run>
[[nodiscard]] ChosenRate choose_rate(const std::vector<Run>& search,
                                     const std::vector<double>& rates) {
  double most = 0;
  for (const double rate : rates) most = std::max(most, mean_bits_per_parameter(search, rate));
  std::vector<double> best;
  for (const double rate : rates) {
    if (mean_bits_per_parameter(search, rate) >= 0.999 * most) best.push_back(rate);
  }
  const double chosen = best[(best.size() - 1) / 2];
  return {chosen, chosen == rates.front() || chosen == rates.back()};
}

}  // namespace experiment
