// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <memory>
#include <mora/train/dataset.hpp>
#include <utility>

namespace programs {

/// A data set of any kind.
struct TrainingData {
  mora::Index examples = 0;
  std::function<void(mora::Index, mora::Batch&)> add = {};

  [[nodiscard]] mora::Index size() const { return examples; }
  void add_to(mora::Index example, mora::Batch& batch) const { add(example, batch); }
};

template <mora::Dataset D>
[[nodiscard]] TrainingData any_data(D dataset) {
  const auto kept = std::make_shared<const D>(std::move(dataset));
  return {kept->size(), [kept](mora::Index i, mora::Batch& batch) { kept->add_to(i, batch); }};
}

}  // namespace programs
