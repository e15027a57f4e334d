// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <mora/operators/reference_types.hpp>
#include <mora/operators/truncation.hpp>
#include <numbers>
#include <optional>
#include <span>

#include "support/shapes.hpp"

/// \file
/// The operators that the law suites run over. A new one joins all of them by a line in
/// `for_each_operator`.

namespace mora_tests {

/// C of an operator that the library does not have: with a and b the first two blocks of x (zeros
/// after its end), a step of a Walsh-Hadamard transform, z = (a + b, b - a) / sqrt(2). None of its
/// entries is 1, and it has no optional member.
class HadamardHalves {
 public:
  HadamardHalves(Index in, Index side) : in_(in), side_(side) {}
  [[nodiscard]] Index in_features() const { return in_; }
  [[nodiscard]] Index side() const { return side_; }
  [[nodiscard]] Index blocks() const { return 2; }

  template <class T>
  void apply(std::span<const T> x, std::span<T> z) const {
    for (Index i = 0; i < side_; ++i) {
      const T a = i < in_ ? x[i] : T(0);
      const T b = i + side_ < in_ ? x[i + side_] : T(0);
      z[i] = (a + b) * T(root_half);
      z[i + side_] = (b - a) * T(root_half);
    }
  }
  template <class T>
  void add_adjoint(std::span<const T> z, std::span<T> x) const {
    for (Index i = 0; i < side_; ++i) {
      if (i < in_) x[i] += (z[i] - z[i + side_]) * T(root_half);
      if (i + side_ < in_) x[i + side_] += (z[i] + z[i + side_]) * T(root_half);
    }
  }

 private:
  static constexpr double root_half = std::numbers::sqrt2 / 2.0;
  Index in_;
  Index side_;
};

/// D of that operator: every output is the sum of two entries, each with a weight of its own.
class WeightedPairs {
 public:
  WeightedPairs(Index out, Index side, Index blocks) : out_(out), side_(side), blocks_(blocks) {}
  [[nodiscard]] Index out_features() const { return out_; }
  [[nodiscard]] Index side() const { return side_; }
  [[nodiscard]] Index blocks() const { return blocks_; }

  template <class T>
  void add(std::span<const T> z, std::span<T> y) const {
    for_each_entry([&](Index i, Index p, double weight) { y[i] += T(weight) * z[p]; });
  }
  template <class T>
  void apply_adjoint(std::span<const T> y, std::span<T> z) const {
    for (T& entry : z) entry = T(0);
    for_each_entry([&](Index i, Index p, double weight) { z[p] += T(weight) * y[i]; });
  }

 private:
  template <class F>
  void for_each_entry(const F& f) const {
    const Index width = side_ * blocks_;
    for (Index i = 0; i < out_; ++i) {
      f(i, i % width, 0.5);
      f(i, (3 * i + 1) % width, -1.5);
    }
  }
  Index out_;
  Index side_;
  Index blocks_;
};

/// As somebody who uses the library would write it.
using UsersOperator = mora::Pair<HadamardHalves, WeightedPairs>;

/// Calls `f(name, operator)` for every operator.
template <class F>
void for_each_operator(const F& f) {
  f("Truncation", mora::Truncation());
  f("Sharing", mora::Sharing());
  f("AdjacentSharing", mora::AdjacentSharing());
  f("AdjacentStridedSharing", mora::AdjacentStridedSharing());
  f("StridedAdjacentSharing", mora::StridedAdjacentSharing());
  f("RandomSharing", mora::RandomSharing());
  f("Decoupling", mora::Decoupling());
  f("Rotation", mora::Rotation());
  f("CoveringRotation", mora::CoveringRotation());
  f("UsersOperator", UsersOperator());
}

/// The side that an operator uses at a shape; none where it refuses, which only a side of 1 may
/// cause.
template <class Op>
[[nodiscard]] std::optional<Index> side_for(const Op& op, const Shape& shape) {
  try {
    return op.fit_side(shape.side());
  } catch (const mora::ArgumentError&) {
    EXPECT_EQ(shape.side(), 1);
    return std::nullopt;
  }
}

}  // namespace mora_tests
