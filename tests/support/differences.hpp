// SPDX-License-Identifier: MIT
#pragma once

#include <mora/core/matrix.hpp>

#include "support/tolerance.hpp"

namespace mora_tests {

/// d loss / d numbers by central differences.
template <class F>
mora::Matrix<double> differences(mora::Matrix<double>& numbers, const F& loss) {
  mora::Matrix<double> result(numbers.rows(), numbers.cols());
  for (mora::Index i = 0; i < numbers.size(); ++i) {
    double& number = numbers.data()[i];
    const double there = number;
    number = there + difference_step;
    const double above = loss();
    number = there - difference_step;
    const double below = loss();
    number = there;
    result.data()[i] = (above - below) / (2.0 * difference_step);
  }
  return result;
}

}  // namespace mora_tests
