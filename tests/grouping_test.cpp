// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <mora/operators/sharing.hpp>
#include <vector>

#include "support/compare.hpp"
#include "support/random.hpp"

/// \file
/// Groupings of features: that they are partitions into even groups, that sum and add_spread go by
/// the groups that group_of tells, and that a seed means the same groups for ever.

namespace mora_tests {
namespace {

using mora::AdjacentGroups;
using mora::RandomGroups;
using mora::RowVector;
using mora::StridedGroups;

struct Sizes {
  Index features;
  Index groups;
};
constexpr Sizes all_sizes[] = {{1, 1}, {1, 4}, {4, 1},   {6, 3},   {7, 3},
                               {3, 7}, {8, 8}, {97, 11}, {100, 9}, {1000, 31}};

template <class Groups>
std::vector<Index> table_of(const Groups& groups) {
  std::vector<Index> table;
  for (Index i = 0; i < groups.features(); ++i) table.push_back(groups.group_of(i));
  return table;
}

template <class T, class Groups>
void expect_sums_by_group(const Groups& groups) {
  Random random(1);
  const auto x = random.vector<T>(groups.features());
  const auto there = random.vector<T>(groups.features());
  RowVector<T> sums = RowVector<T>::Zero(groups.groups());
  for (Index i = 0; i < x.size(); ++i) sums[groups.group_of(i)] += x[i];
  RowVector<T> spread = there;
  for (Index i = 0; i < x.size(); ++i) spread[i] += sums[groups.group_of(i)];

  const auto size = [](const RowVector<T>& v) { return static_cast<std::size_t>(v.size()); };
  RowVector<T> found = RowVector<T>::Constant(groups.groups(), T(std::nan("")));
  groups.sum(std::span<const T>(x.data(), size(x)), std::span<T>(found.data(), size(found)));
  EXPECT_TRUE(near(found, sums));
  found = there;
  groups.add_spread(std::span<const T>(sums.data(), size(sums)),
                    std::span<T>(found.data(), size(found)));
  EXPECT_TRUE(near(found, spread));
}

template <class Groups>
void expect_even_partition(const Groups& groups, const Sizes& sizes) {
  SCOPED_TRACE(testing::Message() << sizes.features << " in " << sizes.groups);
  ASSERT_EQ(groups.features(), sizes.features);
  ASSERT_EQ(groups.groups(), sizes.groups);
  std::vector<Index> members(static_cast<std::size_t>(sizes.groups), 0);
  for (const Index group : table_of(groups)) {
    ASSERT_GE(group, 0);
    ASSERT_LT(group, sizes.groups);
    ++members[static_cast<std::size_t>(group)];
  }
  const auto [fewest, most] = std::minmax_element(members.begin(), members.end());
  EXPECT_LE(*most - *fewest, 1);
  EXPECT_TRUE(std::is_sorted(members.rbegin(), members.rend()));  // the first ones are larger
  expect_sums_by_group<float>(groups);
  expect_sums_by_group<double>(groups);
}

TEST(Groups, AreEvenPartitions) {
  for (const Sizes& sizes : all_sizes) {
    expect_even_partition(StridedGroups(sizes.features, sizes.groups), sizes);
    expect_even_partition(AdjacentGroups(sizes.features, sizes.groups), sizes);
    for (const std::uint64_t seed : {0u, 1u, 12345u}) {
      expect_even_partition(RandomGroups(sizes.features, sizes.groups, seed), sizes);
    }
  }
}

TEST(Groups, AdjacentOnesAreNeighbours) {
  EXPECT_EQ(table_of(AdjacentGroups(7, 3)), (std::vector<Index>{0, 0, 0, 1, 1, 2, 2}));
  EXPECT_EQ(table_of(AdjacentGroups(2, 3)), (std::vector<Index>{0, 1}));
  EXPECT_EQ(table_of(StridedGroups(7, 3)), (std::vector<Index>{0, 1, 2, 0, 1, 2, 0}));
}

TEST(RandomGroups, AreWhatTheirSeedSays) {
  EXPECT_EQ(table_of(RandomGroups(500, 20, 7)), table_of(RandomGroups(500, 20, 7)));
  EXPECT_NE(table_of(RandomGroups(500, 20, 7)), table_of(RandomGroups(500, 20, 8)));
}

// Adapters are stored as M and a seed: if these change, nobody's file means the same any more. The
// numbers are from another implementation, written in Python.
TEST(RandomGroups, AreTheSameInEveryVersion) {
  EXPECT_EQ(table_of(RandomGroups(10, 3, 42)), (std::vector<Index>{0, 2, 1, 0, 2, 2, 1, 0, 0, 1}));
  EXPECT_EQ(table_of(RandomGroups(7, 3, 0)), (std::vector<Index>{2, 2, 0, 1, 1, 0, 0}));
}

TEST(RandomSharing, IsTheSameInEveryVersion) {
  const auto [c, d] = mora::RandomSharing{.seed = 2024}.make(10, 7, 4);
  const std::vector<Index> inputs = {1, 3, 1, 0, 2, 2, 0, 3, 1, 0};
  const std::vector<Index> outputs = {2, 0, 0, 2, 3, 1, 1};
  for (std::size_t j = 0; j < inputs.size(); ++j) {
    std::vector<double> x(10, 0.0);
    std::vector<double> z(4, 0.0);
    x[j] = 1.0;
    c.apply(std::span<const double>(x), std::span<double>(z));
    EXPECT_EQ(z[static_cast<std::size_t>(inputs[j])], 1.0) << "input " << j;
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    d.for_each_source(static_cast<Index>(i), [&](Index p) { EXPECT_EQ(p, outputs[i]); });
  }
}

// It was not: Eigen's sum() starts with the numbers before the first aligned address.
TEST(AdjacentGroups, SumIsTheSameAtEveryAddress) {
  Random random(1);
  const auto x = random.vector<float>(301);
  const AdjacentGroups groups(301, 7);
  RowVector<float> first;
  for (Index offset = 0; offset < 8; ++offset) {
    RowVector<float> memory(301 + 8);
    memory.segment(offset, 301) = x;
    RowVector<float> sums(7);
    groups.sum(std::span<const float>(memory.data() + offset, 301),
               std::span<float>(sums.data(), 7));
    if (offset == 0) first = sums;
    EXPECT_TRUE(same_bits(sums, first)) << "offset " << offset;
  }
}

}  // namespace
}  // namespace mora_tests
