// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "mora/core/matrix.hpp"

namespace mora::inline MORA_ABI {

/// The singular values of a matrix [rows, cols], descending, non-negative. Those that are zero by
/// the matrix's structure may be missing from the end.
struct Spectrum {
  Index rows = 0;
  Index cols = 0;
  Eigen::VectorXd values;

  /// The number of values above `tolerance` >= 0 times the largest; by default, and for any other
  /// tolerance, max(rows, cols) epsilon, as NumPy's matrix_rank. 0 for a zero matrix.
  [[nodiscard]] Index numerical_rank(double tolerance = -1.0) const {
    if (values.size() == 0) return 0;
    const double relative =
        tolerance >= 0.0 ? tolerance
                         : double(std::max(rows, cols)) * std::numeric_limits<double>::epsilon();
    return count_above(relative * values.maxCoeff());
  }

  /// exp(entropy of p), p_i = sigma_i / sum of sigma: between 1 and the rank, 0 for a zero matrix.
  /// Roy and Vetterli, "The effective rank", 2007.
  [[nodiscard]] double effective_rank() const {
    const double largest = values.size() == 0 ? 0.0 : values.maxCoeff();
    if (!(largest > 0.0)) return 0.0;
    const Eigen::VectorXd relative = values / largest;  // whose sum is finite
    const double sum = relative.sum();
    double entropy = 0.0;
    for (const double value : relative) {
      const double p = value / sum;
      if (p > 0.0) entropy -= p * std::log(p);
    }
    return std::exp(entropy);
  }

  /// ||.||_F^2 / ||.||_2^2: at most the rank, 0 for a zero matrix.
  [[nodiscard]] double stable_rank() const {
    const double largest = values.size() == 0 ? 0.0 : values.maxCoeff();
    return largest > 0.0 ? (values / largest).squaredNorm() : 0.0;
  }

  /// The number of values above a threshold; the paper's figure 5 counts those above 0.1.
  [[nodiscard]] Index count_above(double threshold) const {
    return (values.array() > threshold).count();
  }
};

}  // namespace mora::inline MORA_ABI
