// SPDX-License-Identifier: MIT
#pragma once

#include "mora/core/matrix.hpp"

namespace mora::inline MORA_ABI {

/// A loss over the targets of one batch or of many: the sum and not the mean, so that batches with
/// different numbers of targets add up to what one large batch would give.
struct LossSum {
  double sum = 0.0;
  Index count = 0;

  /// NaN without targets.
  [[nodiscard]] double mean() const { return sum / static_cast<double>(count); }
  LossSum& operator+=(const LossSum& other) {
    sum += other.sum;
    count += other.count;
    return *this;
  }
};

}  // namespace mora::inline MORA_ABI
