// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/QR>
#include <cstdint>
#include <string>
#include <vector>

#include "mora/core/matrix.hpp"
#include "mora/core/random.hpp"

namespace capacity {

using mora::Index;

/// A kind of random square matrix that adapters are asked to come close to.
struct Target {
  enum class Kind { gaussian, low_rank, orthogonal };
  Kind kind = Kind::gaussian;
  Index rank = 0;  ///< Of low_rank.

  [[nodiscard]] std::string name() const {
    switch (kind) {
      case Kind::gaussian: return "gaussian";
      case Kind::low_rank: return "low_rank:" + std::to_string(rank);
      case Kind::orthogonal: break;
    }
    return "orthogonal";
  }

  /// The product of two Gaussian factors for low_rank; for orthogonal, whose singular values are
  /// all 1, the Q of a Gaussian matrix.
  [[nodiscard]] mora::Matrix<double> draw(Index size, std::uint64_t seed) const {
    mora::SplitMix64 generator(seed);
    const auto gaussian = [&](Index rows, Index cols) {
      mora::Matrix<double> matrix(rows, cols);
      mora::fill_normal(matrix, 1.0, generator);
      return matrix;
    };
    switch (kind) {
      case Kind::gaussian: break;
      case Kind::low_rank: {
        const mora::Matrix<double> left = gaussian(size, rank);
        return left * gaussian(rank, size);
      }
      case Kind::orthogonal:
        return Eigen::HouseholderQR<mora::Matrix<double>>(gaussian(size, size)).householderQ();
    }
    return gaussian(size, size);
  }
};

/// Both ends of what a spectrum can be, and the middle: a few singular values, all of them falling
/// off slowly, all of them equal.
[[nodiscard]] inline std::vector<Target> targets() {
  using Kind = Target::Kind;
  return {{Kind::low_rank, 1},  {Kind::low_rank, 4}, {Kind::low_rank, 16},
          {Kind::low_rank, 64}, {Kind::gaussian, 0}, {Kind::orthogonal, 0}};
}

}  // namespace capacity
