// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "mora/operators/grouping.hpp"

namespace mora::inline MORA_ABI {

/// C of the reference's types 1 and 4: x, continued with its own first entries up to a multiple of
/// the side (x[p mod in], as often as needed), summed over equal indices modulo the side. So where
/// the side does not divide `in`, some inputs count twice. One block.
class WrappedStridedSum {
 public:
  /// Throws ArgumentError for sizes below 1.
  WrappedStridedSum(Index in, Index side) : groups_(in, side) {}
  [[nodiscard]] Index in_features() const { return groups_.features(); }
  [[nodiscard]] Index side() const { return groups_.groups(); }
  [[nodiscard]] Index blocks() const { return 1; }

  template <class T>
  void apply(std::span<const T> x, std::span<T> z) const {
    groups_.sum(x, z);
    for_each_wrapped([&](Index feature, Index entry) { z[entry] += x[feature]; });
  }
  template <class T>
  void add_adjoint(std::span<const T> z, std::span<T> x) const {
    groups_.add_spread(z, x);
    for_each_wrapped([&](Index feature, Index entry) { x[feature] += z[entry]; });
  }
  /// A row of M is read along with the output, so that merging needs no rows of M C.
  template <class T>
  void add_block_adjoint(Index /*block*/, std::span<const T> z, std::span<T> x) const {
    add_adjoint(z, x);
  }
  /// Once, and once more for every turn of the wrapping.
  [[nodiscard]] double gain() const { return 2.0 + double(side()) / double(in_features()); }

 private:
  // The padding after the last input: entries [in mod side, side) of its last row.
  template <class F>
  void for_each_wrapped(const F& f) const {
    const Index in = in_features();
    if (in % side() == 0) return;
    for (Index entry = in % side(); entry < side();) {
      const Index count = std::min(side() - entry, in);
      for (Index feature = 0; feature < count; ++feature) f(feature, entry + feature);
      entry += count;
    }
  }
  StridedGroups groups_;
};

/// Sharing by strided groups, in and out: the reference's type 1, its default. Paper, Eq. 6.
/// Delta W = M[i mod side, j mod side] (where the side divides both): rank at most the side, at
/// side^2 multiply-adds a token, which is what LoRA costs.
using Sharing = Pair<WrappedStridedSum, GroupSpread<StridedGroups>>;

/// Sharing by neighbours, in and out: the reference's type 2.
using AdjacentSharing = Pair<GroupSum<AdjacentGroups>, GroupSpread<AdjacentGroups>>;

/// Neighbours in, strided out: the reference's type 3.
using AdjacentStridedSharing = Pair<GroupSum<AdjacentGroups>, GroupSpread<StridedGroups>>;

/// Strided in, neighbours out: the reference's type 4.
using StridedAdjacentSharing = Pair<WrappedStridedSum, GroupSpread<AdjacentGroups>>;

/// Sharing by groups drawn from a seed, other ones for inputs and outputs. Same cost and rank as
/// the others; fresh groups at every merge let merged updates reach full rank, where the published
/// groupings stop below twice the side.
struct RandomSharing {
  bool operator==(const RandomSharing&) const = default;
  std::uint64_t seed = 0;

  [[nodiscard]] Index fit_side(Index side) const { return side; }
  [[nodiscard]] OperatorPair<GroupSum<RandomGroups>, GroupSpread<RandomGroups>> make(
      Index in, Index out, Index side) const {
    SplitMix64 generator(seed);
    const std::uint64_t input_seed = generator();
    const std::uint64_t output_seed = generator();
    return {GroupSum<RandomGroups>(RandomGroups(in, side, input_seed)),
            GroupSpread<RandomGroups>(RandomGroups(out, side, output_seed), side)};
  }
};

}  // namespace mora::inline MORA_ABI
