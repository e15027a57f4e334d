// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "mora/core/random.hpp"

namespace capacity {

using mora::Index;

/// Goes through the numbers 0 ... size - 1 in batches, pass after pass, each in another order. The
/// last batch of a pass is smaller where the size is no multiple.
class Batches {
 public:
  Batches(Index size, Index batch, std::uint64_t seed)
      : generator_(seed),
        order_(static_cast<std::size_t>(size)),
        batch_(static_cast<std::size_t>(batch)),
        next_(order_.size()) {
    std::iota(order_.begin(), order_.end(), Index{0});
  }

  /// Valid until the next call.
  [[nodiscard]] std::span<const Index> next() {
    if (next_ == order_.size()) {
      mora::shuffle(order_, generator_);
      next_ = 0;
    }
    const std::size_t first = next_;
    next_ = std::min(order_.size(), first + batch_);
    return {order_.data() + first, next_ - first};
  }

 private:
  mora::SplitMix64 generator_;
  std::vector<Index> order_;
  std::size_t batch_;
  std::size_t next_;
};

}  // namespace capacity
