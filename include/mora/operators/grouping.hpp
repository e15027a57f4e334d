// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "mora/core/random.hpp"
#include "mora/core/vectors.hpp"
#include "mora/operators/concepts.hpp"

namespace mora::inline MORA_ABI {

/// A way to put `features()` indices into `groups()` groups, each index into one. It can sum a
/// vector over each group and give every index its group's number; the two are adjoint.
template <class G, class T>
concept Grouping = std::copyable<G> &&
    requires(const G g, std::span<const T> in, std::span<T> out) {
  { g.features() } -> std::same_as<Index>;
  { g.groups() } -> std::same_as<Index>;
  { g.group_of(Index{0}) } -> std::same_as<Index>;
  g.sum(in, out);         // sums[g] = sum of x over group g, every entry written
  g.add_spread(in, out);  // x[i] += sums[group of i]
};

/// Index i belongs to group i mod groups.
class StridedGroups {
 public:
  /// Throws ArgumentError for sizes below 1.
  StridedGroups(Index features, Index groups)
      : features_(detail::checked_features(features, groups)), groups_(groups) {}
  [[nodiscard]] Index features() const { return features_; }
  [[nodiscard]] Index groups() const { return groups_; }
  [[nodiscard]] Index group_of(Index feature) const { return feature % groups_; }

  template <class T>
  void sum(std::span<const T> x, std::span<T> sums) const {
    const Index larger = features_ % groups_;  // groups have a member more
    sum_groups<detail::vector_bytes>(x.data(), sums.data(), larger, features_ / groups_ + 1);
    sum_groups<detail::vector_bytes>(x.data() + larger, sums.data() + larger, groups_ - larger,
                                     features_ / groups_);
  }
  template <class T>
  void add_spread(std::span<const T> sums, std::span<T> x) const {
    for (Index start = 0; start < features_; start += groups_) {
      const Index count = std::min(groups_, features_ - start);
      const T* const from = sums.data();
      T* const to = x.data() + start;
      for (Index i = 0; i < count; ++i) to[i] += from[i];
    }
  }

 private:
  /// The sums of `count` groups that follow one another, each of so many members. Vectors of them,
  /// of which the last overlaps the one before, or narrower ones, as rows are short.
  template <int bytes, class T>
  void sum_groups(const T* x, T* sums, Index count, Index members) const {
    constexpr Index lanes = bytes / Index{sizeof(T)};
    if constexpr (lanes > 1) {
      if (count < lanes) return sum_groups<bytes / 2>(x, sums, count, members);
    }
    using Vector = typename detail::VectorOf<T, bytes>::type;
    for (Index done = 0; done < count; done += lanes) {
      const Index group = std::min(done, count - lanes);
      Vector total = {};
      for (Index i = 0; i < members; ++i) {
        Vector more;
        detail::load(more, x + i * groups_ + group);
        total += more;
      }
      detail::store(sums + group, total);
    }
  }

  Index features_;
  Index groups_;
};

/// Neighbours share a group: with q = features div groups and m = features mod groups, the first m
/// groups have q + 1 members and the others q.
class AdjacentGroups {
 public:
  /// Throws ArgumentError for sizes below 1.
  AdjacentGroups(Index features, Index groups)
      : features_(detail::checked_features(features, groups)), groups_(groups) {}
  [[nodiscard]] Index features() const { return features_; }
  [[nodiscard]] Index groups() const { return groups_; }
  [[nodiscard]] Index group_of(Index feature) const {
    const Index q = features_ / groups_;
    const Index in_larger = features_ % groups_ * (q + 1);
    return feature < in_larger ? feature / (q + 1) : (feature - features_ % groups_) / q;
  }

  template <class T>
  void sum(std::span<const T> x, std::span<T> sums) const {
    for_each_group([&](Index group, Index first, Index count) {
      sums[group] = total(x.data() + first, count);
    });
  }
  template <class T>
  void add_spread(std::span<const T> sums, std::span<T> x) const {
    for_each_group([&](Index group, Index first, Index count) {
      for (Index i = first; i < first + count; ++i) x[i] += sums[group];
    });
  }

 private:
  // In eight lanes; Eigen's sum() rounds differently for each alignment of x.
  template <class T>
  [[nodiscard]] static T total(const T* x, Index count) {
    using Lanes = Eigen::Array<T, 8, 1>;
    T rest = T(0);
    for (Index i = count / 8 * 8; i < count; ++i) rest += x[i];
    if (count < 8) return rest;
    Lanes lanes = Eigen::Map<const Lanes>(x);
    for (Index i = 8; i + 8 <= count; i += 8) lanes += Eigen::Map<const Lanes>(x + i);
    return lanes.sum() + rest;
  }
  template <class F>
  void for_each_group(const F& f) const {
    const Index q = features_ / groups_;
    const Index m = features_ % groups_;
    Index first = 0;
    for (Index group = 0; group < groups_; ++group) {
      const Index count = group < m ? q + 1 : q;
      f(group, first, count);
      first += count;
    }
  }
  Index features_;
  Index groups_;
};

/// Groups drawn at random, of sizes that differ by one at most: index order[p] belongs to group
/// p mod groups, where `order` is a permutation shuffled by SplitMix64(seed), so that the seed
/// alone says which groups they are, on every platform. At most 2^31 - 1 features in 65,536 groups.
/// Copies share the table.
class RandomGroups {
 public:
  /// Throws ArgumentError for sizes below 1, or above those.
  RandomGroups(Index features, Index groups, std::uint64_t seed)
      : features_(detail::checked_features(features, groups)),
        groups_(groups),
        group_of_(std::make_shared<const Table>(draw(features, groups, seed))) {}
  [[nodiscard]] Index features() const { return features_; }
  [[nodiscard]] Index groups() const { return groups_; }
  [[nodiscard]] Index group_of(Index feature) const {
    return (*group_of_)[static_cast<std::size_t>(feature)];
  }

  template <class T>
  void sum(std::span<const T> x, std::span<T> sums) const {
    std::fill_n(sums.data(), groups_, T(0));
    // x in its order, as it is what may have to come from memory.
    const std::uint16_t* const group = group_of_->data();
    const T* const from = x.data();
    T* const to = sums.data();
    for (Index i = 0; i < features_; ++i) to[group[i]] += from[i];
  }
  /// Whole vectors are added, which compilers do not find by themselves: see
  /// docs/results/layer_speed.md.
  template <class T>
  void add_spread(std::span<const T> sums, std::span<T> x) const {
    using Lanes = Eigen::Array<T, 4, 1>;
    const std::uint16_t* group = group_of_->data();
    const T* const from = sums.data();
    T* const to = x.data();
    Index i = 0;
    for (; i + 8 <= features_; i += 8, group += 8) {
      const Lanes a(from[group[0]], from[group[1]], from[group[2]], from[group[3]]);
      const Lanes b(from[group[4]], from[group[5]], from[group[6]], from[group[7]]);
      Eigen::Map<Lanes>(to + i) += a;
      Eigen::Map<Lanes>(to + i + 4) += b;
    }
    for (; i < features_; ++i, ++group) to[i] += from[*group];
  }

 private:
  /// Of two bytes a feature, so that the first cache holds it beside a row of x.
  using Table = std::vector<std::uint16_t>;

  [[nodiscard]] static Table draw(Index features, Index groups, std::uint64_t seed) {
    constexpr Index most_features = std::numeric_limits<std::int32_t>::max();
    constexpr Index most_groups = Index{std::numeric_limits<std::uint16_t>::max()} + 1;
    if (features > most_features || groups > most_groups) {
      throw ArgumentError(detail::concat("random groups: at most ", most_features, " features in ",
                                         most_groups, " groups, found ", features, " in ", groups));
    }
    std::vector<std::int32_t> order(static_cast<std::size_t>(features));
    std::iota(order.begin(), order.end(), 0);
    SplitMix64 generator(seed);
    shuffle(order, generator);
    Table group_of(order.size());
    for (std::size_t p = 0; p < order.size(); ++p) {
      group_of[static_cast<std::size_t>(order[p])] =
          static_cast<std::uint16_t>(p % static_cast<std::size_t>(groups));
    }
    return group_of;
  }

  Index features_;
  Index groups_;
  std::shared_ptr<const Table> group_of_;
};

/// C that sums each group (paper, Eq. 6). One block.
template <class Groups>
class GroupSum {
 public:
  explicit GroupSum(Groups groups) : groups_(std::move(groups)) {}
  /// Throws ArgumentError for sizes below 1.
  GroupSum(Index in, Index side) : groups_(in, side) {}
  [[nodiscard]] Index in_features() const { return groups_.features(); }
  [[nodiscard]] Index side() const { return groups_.groups(); }
  [[nodiscard]] Index blocks() const { return 1; }

  template <class T>
  void apply(std::span<const T> x, std::span<T> z) const {
    groups_.sum(x, z);
  }
  template <class T>
  void add_adjoint(std::span<const T> z, std::span<T> x) const {
    groups_.add_spread(z, x);
  }
  [[nodiscard]] double gain() const { return 1.0; }

 private:
  Groups groups_;
};

/// D that gives every output its group's entry (paper, Eq. 6). The groups run over all
/// blocks * side entries: strided groups lay several blocks one after another, and start again
/// when the output is longer.
template <class Groups>
class GroupSpread {
 public:
  /// Throws ArgumentError unless the number of groups is a multiple of the side.
  GroupSpread(Groups groups, Index side) : side_(side), groups_(std::move(groups)) {
    detail::require_at_least<Index>("side", 1, side);
    if (groups_.groups() % side != 0) {
      throw ArgumentError(detail::concat("groups: expected a multiple of the side ", side,
                                         ", found ", groups_.groups()));
    }
  }
  /// Throws ArgumentError for sizes below 1, or blocks whose numbers cannot be counted.
  GroupSpread(Index out, Index side, Index blocks)
      : side_(side),
        groups_{detail::checked_features(out, side, blocks), side * blocks} {}  // in order
  [[nodiscard]] Index out_features() const { return groups_.features(); }
  [[nodiscard]] Index side() const { return side_; }
  [[nodiscard]] Index blocks() const { return groups_.groups() / side_; }

  template <class T>
  void add(std::span<const T> z, std::span<T> y) const {
    groups_.add_spread(z, y);
  }
  template <class T>
  void apply_adjoint(std::span<const T> y, std::span<T> z) const {
    groups_.sum(y, z);
  }
  template <class F>
  void for_each_source(Index output, const F& f) const {
    f(groups_.group_of(output));
  }
  [[nodiscard]] double gain() const { return 1.0; }

 private:
  Index side_;
  Groups groups_;
};

}  // namespace mora::inline MORA_ABI
