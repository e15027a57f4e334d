// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace experiment {

/// The outcome of a search of learning rates.
struct ChosenRate {
  double rate = 0;
  bool at_edge = false;  ///< Of the grid, so that a better one may lie beyond.
};

/// `score(run)` at a rate, on average over the seeds. A run has `settings.learning_rate`.
template <class Run, class Score>
[[nodiscard]] double mean_score(const std::vector<Run>& search, double rate, const Score& score) {
  double sum = 0;
  int count = 0;
  for (const Run& run : search) {
    if (run.settings.learning_rate != rate) continue;
    sum += score(run);
    ++count;
  }
  return count == 0 ? 0.0 : sum / count;
}

/// The rate with the highest score. Rates within 0.1 % of it are as good (all that is there to
/// remember may be remembered at several); of these the middle one is taken, the lower of two.
template <class Run, class Score>
[[nodiscard]] ChosenRate choose_rate(const std::vector<Run>& search,
                                     const std::vector<double>& rates, const Score& score) {
  double most = -std::numeric_limits<double>::infinity();
  for (const double rate : rates) most = std::max(most, mean_score(search, rate, score));
  std::vector<double> best;
  for (const double rate : rates) {
    const double mean = mean_score(search, rate, score);
    if (std::isinf(most) || mean >= most - 0.001 * std::abs(most)) best.push_back(rate);
  }
  const double chosen = best[(best.size() - 1) / 2];
  return {chosen, chosen == rates.front() || chosen == rates.back()};
}

/// What experiments on memory choose by.
inline constexpr auto bits_per_parameter = [](const auto& run) { return run.bits_per_parameter(); };

template <class Run>
[[nodiscard]] double mean_bits_per_parameter(const std::vector<Run>& search, double rate) {
  return mean_score(search, rate, bits_per_parameter);
}

}  // namespace experiment
