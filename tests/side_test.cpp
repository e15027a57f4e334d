// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <mora/mora.hpp>

#include "support/random.hpp"
#include "support/shapes.hpp"

/// \file
/// The side of M, and numbers of parameters beside LoRA's.

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::lora_budget;
using mora::mora_side;

struct Row {
  Index in;
  Index out;
  Index rank;
  Index paper;      // floor(sqrt((in + out) rank))
  Index reference;  // int(sqrt((in + out) rank) + 0.5)
};
constexpr Row table[] = {
    // LLaMA-2 7B and 13B, BERT and others
    {4096, 4096, 8, 256, 256},
    {4096, 11008, 8, 347, 348},
    {11008, 4096, 8, 347, 348},
    {4096, 4096, 256, 1448, 1448},
    {11008, 4096, 256, 1966, 1966},
    {4096, 1024, 8, 202, 202},
    {5120, 13824, 64, 1101, 1101},
    {768, 3072, 16, 247, 248},
    // small
    {1, 1, 1, 1, 1},
    {1, 1, 2, 2, 2},
    {1, 2, 1, 1, 2},
    {4, 4, 1, 2, 3},
    {16, 16, 8, 16, 16},
    {8, 8, 8, 11, 11},
    {4, 64, 8, 23, 23},
    {3, 2, 5, 5, 5},
    {64, 16, 4, 17, 18},
    // the largest
    {Index{1} << 31, Index{1} << 27, 1'000'000, 47'767'157, 47'767'158},
    {Index{1} << 31, 1, 1'000'000, 46'340'950, 46'340'950},
};

TEST(Side, IsThatOfTheTable) {
  for (const Row& row : table) {
    SCOPED_TRACE(testing::Message() << row.in << " -> " << row.out << ", rank " << row.rank);
    EXPECT_EQ(mora_side(row.in, row.out, row.rank), row.paper);
    EXPECT_EQ(mora_side(row.in, row.out, row.rank, SideRounding::reference), row.reference);
    EXPECT_EQ(lora_budget(row.in, row.out, row.rank), (row.in + row.out) * row.rank);
  }
}

void expect_floor(Index features, Index rank) {
  const Index side = mora_side(features - 1, 1, rank);
  EXPECT_LE(side * side, features * rank);
  EXPECT_GT((side + 1) * (side + 1), features * rank);
  EXPECT_EQ(mora_side(features - 1, 1, rank, SideRounding::reference),
            Index(std::sqrt(double(features * rank)) + 0.5));
}

TEST(Side, IsTheLargestWithinTheBudgetAndTheReferencesTheNearest) {
  for (Index features = 2; features < 3000; ++features) {
    expect_floor(features, 3);
    expect_floor((Index{1} << 31) - features, 1);
    expect_floor((Index{1} << 31) - features, 1'000'000);
  }
  for (Index root = 1000; root < 40'000; root += 1000) {
    expect_floor(root * root - 1, 1);
    expect_floor(root * root, 1);
    expect_floor(root * root - 1, 1'000'000);
    expect_floor(root * root, 1'000'000);
  }
}

TEST(Side, OfHugeSizesIsRefusedWithoutOverflow) {
  const Index most = std::numeric_limits<Index>::max();
  EXPECT_THROW((void)mora_side(Index{1} << 32, 1, 1), ArgumentError);
  EXPECT_THROW((void)mora_side(1, most / 16, 1'000'000), ArgumentError);
  EXPECT_THROW((void)mora_side(most, most, 1), mora::ShapeError);
  EXPECT_THROW((void)lora_budget(most, 2, 1), mora::ShapeError);
  EXPECT_THROW((void)lora_budget(most / 16, 1, 1'000'000), ArgumentError);
  EXPECT_EQ(lora_budget(most / 16, 1, 8), (most / 16 + 1) * 8);
}

TEST(Rank, ZeroAndNegativeAndHugeAreRefused) {
  constexpr Index huge = std::numeric_limits<int>::max();
  for (const Index rank : {Index{0}, Index{-1}, huge, -huge, std::numeric_limits<Index>::max(),
                           std::numeric_limits<Index>::min(), mora::max_rank + 1}) {
    EXPECT_THROW((void)mora_side(8, 8, rank), ArgumentError) << rank;
    EXPECT_THROW((void)lora_budget(8, 8, rank), ArgumentError) << rank;
    EXPECT_THROW(mora::MoraSettings<>{.rank = rank}.validate(), ArgumentError) << rank;
    EXPECT_THROW(mora::LoraSettings{.rank = rank}.validate(), ArgumentError) << rank;
  }
}

// 4 -> 4 at rank 1: the reference rounds sqrt(8) up to 3, which rotation makes 2.
TEST(Side, OfRotationIsTheNextLowerEvenNumber) {
  mora::MoraSettings<mora::Rotation> settings{.rank = 1, .rounding = SideRounding::reference};
  EXPECT_EQ(mora::MoraAdapter<double>(4, 4, settings).side(), 2);
  EXPECT_EQ((mora::MoraAdapter<double, mora::Sharing>(
                 4, 4, {.rank = 1, .rounding = SideRounding::reference})
                 .side()),
            3);
  EXPECT_THROW(mora::MoraAdapter<double>(1, 1, settings), ArgumentError);
  EXPECT_THROW((mora::MoraAdapter<float, mora::CoveringRotation>(1, 1, {.rank = 1})),
               ArgumentError);
  EXPECT_EQ((mora::MoraAdapter<float, mora::Sharing>(1, 1, {.rank = 1}).side()), 1);
}

TEST(Budget, OfMoraStaysWithinLorasBudgetUnlessRoundedUp) {
  const mora::MoraAdapter<float> paper(4096, 11008, {.rank = 8});
  EXPECT_EQ(mora::budget_of(paper, 8).parameters, 346 * 346);  // 347, made even
  EXPECT_EQ(mora::budget_of(paper, 8).budget, 120'832);
  const mora::MoraAdapter<float> reference(4096, 11008,
                                           {.rank = 8, .rounding = SideRounding::reference});
  EXPECT_EQ(mora::budget_of(reference, 8).parameters, 121'104);
  EXPECT_GT(mora::budget_of(reference, 8).used(), 1.0);
  for (const Shape& shape : awkward_shapes) {
    const mora::MoraAdapter<float, mora::Sharing> adapter(shape.in, shape.out,
                                                          {.rank = shape.rank});
    EXPECT_LE(mora::budget_of(adapter, shape.rank).used(), 1.0) << shape;
  }
}

TEST(Budget, OfLoraIsUsedUpAndOfFullIsTheWholeLayer) {
  Random random(1);
  const mora::LoraAdapter<float> lora(30, 20, {.rank = 3}, random.generator());
  EXPECT_EQ(mora::budget_of(lora, 3).parameters, 150);
  EXPECT_EQ(mora::budget_of(lora, 3).used(), 1.0);
  const mora::FullLinear<float> full({random.matrix<float>(20, 30), random.vector<float>(20)});
  EXPECT_EQ(mora::budget_of(full, 3).parameters, 20 * 30 + 20);
  EXPECT_EQ(mora::budget_of(full, 3).budget, 150);
}

}  // namespace
}  // namespace mora_tests
