// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <vector>

namespace experiment {

/// Mean and sample standard deviation (n - 1) of what several seeds gave.
struct Sample {
  double mean = 0;
  double deviation = 0;
};

[[nodiscard]] inline Sample sample_of(const std::vector<double>& values) {
  Sample sample;
  const auto n = static_cast<double>(values.size());
  for (const double value : values) sample.mean += value / n;
  if (values.size() < 2) return sample;
  for (const double value : values) {
    sample.deviation += (value - sample.mean) * (value - sample.mean) / (n - 1.0);
  }
  sample.deviation = std::sqrt(sample.deviation);
  return sample;
}

/// The sample of `get(item)`.
template <class Range, class Get>
[[nodiscard]] Sample sample_of(const Range& items, const Get& get) {
  std::vector<double> values;
  for (const auto& item : items) values.push_back(get(item));
  return sample_of(values);
}

}  // namespace experiment
