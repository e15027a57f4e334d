// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <mora/adapters/arithmetic.hpp>
#include <mora/adapters/linear.hpp>
#include <vector>

#include "support/compare.hpp"
#include "support/misuse.hpp"
#include "support/not_finite.hpp"
#include "support/updates.hpp"

/// \file
/// Sums of adapters against sums of their updates.

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::LoraAdapter;
using mora::Matrix;
using mora::MoraAdapter;
using mora::NumericError;
using mora::ShapeError;

template <class A>
using Summands = std::vector<mora::Summand<A>>;

TEST(WeightedSum, OfMoraIsThatOfTheUpdates) {
  for_each_mora([]<class Settings>(const Shape& shape, Settings settings) {
    using Adapter = MoraOf<Settings>;
    Random random(1);
    const Adapter first = filled(Adapter(shape.in, shape.out, settings), random);
    const Adapter second = filled(Adapter(shape.in, shape.out, settings), random);
    settings.scale = 3.0;
    const Adapter third = filled(Adapter(shape.in, shape.out, settings), random);
    const Adapter equal = mora::weighted_sum(Summands<Adapter>{{&first, 0.5}, {&second, -2.0}});
    EXPECT_EQ(equal.settings().scale, -0.75);
    EXPECT_TRUE(near(update_of(equal), 0.5 * update_of(first) - 2.0 * update_of(second)));
    const Adapter mixed = mora::weighted_sum(Summands<Adapter>{{&first, 0.5}, {&third, 2.0}});
    EXPECT_EQ(mixed.settings().scale, 1.0);
    EXPECT_TRUE(near(update_of(mixed), 0.5 * update_of(first) + 2.0 * update_of(third)));
    const Adapter minus = mora::negated(first);
    EXPECT_TRUE(same_bits(minus.matrix().value, Matrix<double>(-first.matrix().value)));
    const Adapter mean = mora::average<Adapter>({&first, &second, &third});
    EXPECT_TRUE(
        near(update_of(mean), (update_of(first) + update_of(second) + update_of(third)) / 3.0));
  });
}

TEST(WeightedSum, OfLoraIsThatOfTheUpdates) {
  for (const Shape& shape : awkward_shapes) {
    SCOPED_TRACE(shape);
    Random random(1);
    const auto adapter = [&](mora::Index rank, double alpha) {
      return filled(LoraAdapter<double>(shape.in, shape.out, {.rank = rank, .alpha = alpha},
                                        random.generator()),
                    random);
    };
    const auto first = adapter(shape.rank, 3.0);
    const auto second = adapter(shape.rank + 2, -1.0);
    const auto sum =
        mora::weighted_sum(Summands<LoraAdapter<double>>{{&first, 0.5}, {&second, -2.0}});
    EXPECT_EQ(sum.settings().rank, 2 * shape.rank + 2);
    EXPECT_TRUE(near(update_of(sum), 0.5 * update_of(first) - 2.0 * update_of(second)));
    EXPECT_TRUE(near(update_of(mora::negated(first)), -update_of(first)));
    EXPECT_TRUE(near(update_of(mora::average<LoraAdapter<double>>({&first, &second})),
                     (update_of(first) + update_of(second)) / 2.0));
  }
}

// A scale that B has no room for: a third.
TEST(Negated, ChangesNoBitOfLoraButSigns) {
  Random random(3);
  for (const auto scaling : {mora::LoraScaling::standard, mora::LoraScaling::rank_stabilized}) {
    const LoraAdapter<float> adapter =
        filled(LoraAdapter<float>(29, 23, {.rank = 3, .alpha = 1.0, .scaling = scaling},
                                  random.generator()),
               random);
    const LoraAdapter<float> minus = mora::negated(adapter);
    EXPECT_EQ(minus.settings().scale(), adapter.settings().scale());
    EXPECT_TRUE(same_bits(minus.a().value, adapter.a().value));
    EXPECT_TRUE(same_bits(minus.b().value, Matrix<float>(-adapter.b().value)));
    EXPECT_TRUE(equal(update_of(minus), Matrix<double>(-update_of(adapter))));
  }
}

TEST(WeightedSum, RefusesWhatHasNone) {
  using Sharing = MoraAdapter<double, mora::RandomSharing>;
  const Sharing one(12, 10, {.rank = 2, .op = {.seed = 1}});
  const Sharing other_seed(12, 10, {.rank = 2, .op = {.seed = 2}});
  const Sharing other_side(12, 10, {.rank = 4, .op = {.seed = 1}});
  const Sharing other_shape(13, 9, {.rank = 2, .op = {.seed = 1}});
  const Sharing other_outputs(12, 11, {.rank = 2, .op = {.seed = 1}});
  const auto sum = [&](const Sharing* second, double weight = 1.0) {
    return [=, &one] {
      (void)mora::weighted_sum(Summands<Sharing>{{&one, 1.0}, {second, weight}});
    };
  };
  EXPECT_NO_THROW(sum(&one)());
  EXPECT_TRUE(throws<ArgumentError>({"operators"}, sum(&other_seed)));
  EXPECT_TRUE(throws<ShapeError>({"side of M", "found"}, sum(&other_side)));
  EXPECT_TRUE(throws<ShapeError>({"in_features", "12", "13"}, sum(&other_shape)));
  EXPECT_TRUE(throws<ShapeError>({"out_features", "10", "11"}, sum(&other_outputs)));
  EXPECT_TRUE(throws<ArgumentError>({"adapter 1", "null"}, sum(nullptr)));
  EXPECT_TRUE(throws<ArgumentError>({"weight 1", "inf"}, sum(&one, infinity<double>)));
  EXPECT_TRUE(
      throws<ArgumentError>({"found 0"}, [] { (void)mora::weighted_sum(Summands<Sharing>{}); }));
  EXPECT_TRUE(throws<ArgumentError>({"found 0"},
                                    [] { (void)mora::average(std::vector<const Sharing*>{}); }));

  Sharing bent = one;
  bent.matrix().value.setOnes(3, 3);
  EXPECT_TRUE(throws<ShapeError>({"M, rows", "found 3"}, sum(&bent)));

  Sharing large = one;
  large.matrix().value.setConstant(std::numeric_limits<double>::max());
  EXPECT_TRUE(throws<NumericError>({"not finite"}, [&] {
    (void)mora::weighted_sum(Summands<Sharing>{{&large, 1.0}, {&large, 1.0}});
  }));
  Random random(1);
  LoraAdapter<float> lora(12, 10, {.rank = 2}, random.generator());
  lora.b().value.setConstant(std::numeric_limits<float>::max());
  EXPECT_TRUE(throws<NumericError>({"not finite"}, [&] {
    (void)mora::weighted_sum(Summands<LoraAdapter<float>>{{&lora, 8.0}});
  }));
}

TEST(WeightedSum, OfLoraRefusesWhatHasNone) {
  Random random(1);
  using Lora = LoraAdapter<float>;
  const Lora one(12, 10, {.rank = 2}, random.generator());
  const Lora other_shape(13, 10, {.rank = 2}, random.generator());
  const auto sum = [&](const Lora* second, double weight = 1.0) {
    return [=, &one] { (void)mora::weighted_sum(Summands<Lora>{{&one, 1.0}, {second, weight}}); };
  };
  EXPECT_NO_THROW(sum(&one)());
  EXPECT_TRUE(throws<ArgumentError>({"weight 1", "inf"}, sum(&one, infinity<double>)));
  EXPECT_TRUE(throws<ShapeError>({"in_features", "12", "13"}, sum(&other_shape)));
  EXPECT_TRUE(throws<ArgumentError>({"adapter 1", "null"}, sum(nullptr)));

  Lora large = one;
  large.a().value(1, 2) = infinity<float>;
  EXPECT_TRUE(throws<NumericError>({"weighted_sum", "not finite"}, sum(&large)));

  const Lora wide(1, 1, {.rank = 600'000}, random.generator());
  EXPECT_TRUE(throws<ArgumentError>({"rank", "1 to 1000000", "found 1200000"}, [&] {
    (void)mora::weighted_sum(Summands<Lora>{{&wide, 1.0}, {&wide, 1.0}});
  }));
}

TEST(LoraAdapter, OfGivenFactorsNeedsThoseOfItsRank) {
  const auto make = [](Index a_rows, Index in, Index out, Index b_cols) {
    return [=] {
      (void)LoraAdapter<double>(Matrix<double>(Matrix<double>::Ones(a_rows, in)),
                                Matrix<double>(Matrix<double>::Ones(out, b_cols)), {.rank = 2});
    };
  };
  EXPECT_NO_THROW(make(2, 5, 7, 2)());
  EXPECT_TRUE(throws<ShapeError>({"A, rows", "2", "3"}, make(3, 5, 7, 2)));
  EXPECT_TRUE(throws<ShapeError>({"B, columns", "2", "1"}, make(2, 5, 7, 1)));
  EXPECT_TRUE(throws<ShapeError>({"found 0"}, make(2, 0, 7, 2)));
  EXPECT_TRUE(throws<ShapeError>({"found 0"}, make(2, 5, 0, 2)));
}

}  // namespace
}  // namespace mora_tests
