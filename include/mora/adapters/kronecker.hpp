// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include "mora/core/index.hpp"

/// \file
/// The sizes of a Kronecker product of two factors, either of which may be a product of two thin
/// matrices, and the order in which multiplying with it costs least.

namespace mora::inline MORA_ABI {

/// W1 [rows1, cols1] (x) W2 [rows2, cols2] is [rows1 rows2, cols1 cols2].
struct KroneckerShape {
  Index rows1 = 1;
  Index cols1 = 1;
  Index rows2 = 1;
  Index cols2 = 1;
  Index rank = 1;      ///< Of thin factors.
  bool thin1 = false;  ///< W1 = W1a [rows1, rank] W1b [rank, cols1].
  bool thin2 = false;  ///< W2 = W2a [rows2, rank] W2b [rank, cols2].

  [[nodiscard]] Index rows() const { return rows1 * rows2; }
  [[nodiscard]] Index cols() const { return cols1 * cols2; }
  bool operator==(const KroneckerShape&) const = default;
};

namespace detail {

/// A product on the way from x to y. Every token is a matrix, [cols1, cols2] in x and [rows1,
/// rows2] in y; a step multiplies one of its sides, of `from` numbers, and leaves `other`.
struct KroneckerStep {
  bool of_w1 = false;  // else of W2
  bool inner = false;  // W1b or W2b
  Index other = 1;
  Index from = 1;
  Index to = 1;
};

/// All of them.
struct KroneckerPath {
  std::array<KroneckerStep, 4> steps = {};
  Index count = 0;
  Index width = 1;    // the largest number of a token's numbers on the way
  Index kept = 0;     // how many numbers a token has between the steps
  double cost = 0.0;  // multiply-adds a token
};

/// The way on which step i is of W1 where `of_w1[i]`.
[[nodiscard]] inline KroneckerPath path_along(const KroneckerShape& s,
                                              const std::array<bool, 4>& of_w1, Index count) {
  KroneckerPath path;
  path.count = count;
  path.width = std::max(s.rows(), s.cols());
  Index side1 = s.cols1;
  Index side2 = s.cols2;
  bool inner1 = s.thin1;
  bool inner2 = s.thin2;
  for (Index i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    Index& side = of_w1[at] ? side1 : side2;
    bool& inner = of_w1[at] ? inner1 : inner2;
    const Index outputs = of_w1[at] ? s.rows1 : s.rows2;
    KroneckerStep& step = path.steps[at];
    step = {of_w1[at], inner, of_w1[at] ? side2 : side1, side, inner ? s.rank : outputs};
    inner = false;
    side = step.to;
    path.cost += static_cast<double>(step.other) * static_cast<double>(step.from) *
                 static_cast<double>(step.to);
    path.width = std::max(path.width, side1 * side2);
    if (i + 1 < count) path.kept += side1 * side2;
  }
  return path;
}

/// The cheapest of the six orders at most.
[[nodiscard]] inline KroneckerPath cheapest_path(const KroneckerShape& shape) {
  const Index of_first = shape.thin1 ? 2 : 1;
  const Index count = of_first + (shape.thin2 ? 2 : 1);
  std::array<bool, 4> of_w1 = {};
  std::fill(of_w1.begin() + (count - of_first), of_w1.begin() + count, true);
  KroneckerPath best = path_along(shape, of_w1, count);
  while (std::next_permutation(of_w1.begin(), of_w1.begin() + count)) {
    const KroneckerPath path = path_along(shape, of_w1, count);
    if (path.cost < best.cost) best = path;
  }
  return best;
}

}  // namespace detail
}  // namespace mora::inline MORA_ABI
