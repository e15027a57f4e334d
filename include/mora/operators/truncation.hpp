// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <span>

#include "mora/operators/concepts.hpp"

namespace mora::inline MORA_ABI {

/// Paper, Eq. 4: C(x) = x[0 : side], with zeros after the end of a shorter x. One block.
class LeadingEntries {
 public:
  /// Throws ArgumentError for sizes below 1.
  LeadingEntries(Index in, Index side) : in_(detail::checked_features(in, side)), side_(side) {}
  [[nodiscard]] Index in_features() const { return in_; }
  [[nodiscard]] Index side() const { return side_; }
  [[nodiscard]] Index blocks() const { return 1; }

  template <class T>
  void apply(std::span<const T> x, std::span<T> z) const {
    const auto end = std::copy_n(x.begin(), std::min(in_, side_), z.begin());
    std::fill(end, z.end(), T(0));
  }
  template <class T>
  void add_adjoint(std::span<const T> z, std::span<T> x) const {
    for (Index i = 0; i < std::min(in_, side_); ++i) x[i] += z[i];
  }
  /// What is not in M's corner stays as it is.
  template <class T>
  void add_block_adjoint(Index /*block*/, std::span<const T> z, std::span<T> x) const {
    add_adjoint(z, x);
  }
  [[nodiscard]] double gain() const { return 1.0; }

 private:
  Index in_;
  Index side_;
};

/// Paper, Eq. 4: D(z) = z, then zeros; what is longer than the output is dropped.
class ZeroPadding {
 public:
  /// Throws ArgumentError for sizes below 1, or blocks whose numbers cannot be counted.
  ZeroPadding(Index out, Index side, Index blocks)
      : out_(detail::checked_features(out, side, blocks)), side_(side), blocks_(blocks) {}
  [[nodiscard]] Index out_features() const { return out_; }
  [[nodiscard]] Index side() const { return side_; }
  [[nodiscard]] Index blocks() const { return blocks_; }

  template <class T>
  void add(std::span<const T> z, std::span<T> y) const {
    const Index count = std::min(out_, side_ * blocks_);
    for (Index i = 0; i < count; ++i) y[i] += z[i];
  }
  template <class T>
  void apply_adjoint(std::span<const T> y, std::span<T> z) const {
    const auto end = std::copy_n(y.begin(), std::min(out_, side_ * blocks_), z.begin());
    std::fill(end, z.end(), T(0));
  }
  template <class F>
  void for_each_source(Index output, const F& f) const {
    if (output < side_ * blocks_) f(output);
  }
  [[nodiscard]] double gain() const { return 1.0; }

 private:
  Index out_;
  Index side_;
  Index blocks_;
};

/// Truncation (paper, Eqs. 4 and 5): Delta W = [[M, 0], [0, 0]]. The rest of the input and of the
/// output takes no part; the weakest operator of the paper (Table 4), here as its yardstick.
using Truncation = Pair<LeadingEntries, ZeroPadding>;

}  // namespace mora::inline MORA_ABI
