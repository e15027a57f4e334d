// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <mora/adapters/arithmetic.hpp>
#include <mora/adapters/linear.hpp>
#include <vector>

#include "support/compare.hpp"
#include "support/misuse.hpp"
#include "support/operators.hpp"
#include "support/random.hpp"

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
[[nodiscard]] Matrix<double> update_of(const A& adapter) {
  using T = typename A::Scalar;
  Matrix<T> update = Matrix<T>::Zero(adapter.out_features(), adapter.in_features());
  adapter.merge_rows(adapter.plan_merge(), 0, mora::detail::map_of(update));
  return update.template cast<double>();
}

template <class A>
[[nodiscard]] A filled(A adapter, Random& random) {
  adapter.visit_parameters(
      [&](std::string_view, auto& p) { mora::fill_normal(p.value, 1.0, random.generator()); });
  return adapter;
}

template <class A>
using Summands = std::vector<mora::Summand<A>>;

TEST(WeightedSum, OfMoraIsThatOfTheUpdates) {
  for_each_operator([](const char* name, const auto& op) {
    SCOPED_TRACE(name);
    for (const Shape& shape : awkward_shapes) {
      SCOPED_TRACE(shape);
      if (!side_for(op, shape)) continue;
      Random random(1);
      mora::MoraSettings<std::decay_t<decltype(op)>> settings;
      settings.rank = shape.rank;
      settings.rounding = shape.rounding;
      settings.op = op;
      using Adapter = MoraAdapter<double, std::decay_t<decltype(op)>>;
      settings.scale = -0.75;
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
    }
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

TEST(WeightedSum, RefusesWhatHasNone) {
  using Sharing = MoraAdapter<double, mora::RandomSharing>;
  const Sharing one(12, 10, {.rank = 2, .op = {.seed = 1}});
  const Sharing other_seed(12, 10, {.rank = 2, .op = {.seed = 2}});
  const Sharing other_side(12, 10, {.rank = 4, .op = {.seed = 1}});
  const Sharing other_shape(13, 9, {.rank = 2, .op = {.seed = 1}});
  const auto sum = [&](const Sharing* second, double weight = 1.0) {
    return [=, &one] {
      (void)mora::weighted_sum(Summands<Sharing>{{&one, 1.0}, {second, weight}});
    };
  };
  EXPECT_NO_THROW(sum(&one)());
  EXPECT_TRUE(throws<ArgumentError>({"operators"}, sum(&other_seed)));
  EXPECT_TRUE(throws<ShapeError>({"side of M", "found"}, sum(&other_side)));
  EXPECT_TRUE(throws<ShapeError>({"in_features", "12", "13"}, sum(&other_shape)));
  EXPECT_TRUE(throws<ArgumentError>({"adapter 1", "null"}, sum(nullptr)));
  EXPECT_TRUE(throws<ArgumentError>({"weight 1", "inf"},
                                    sum(&one, std::numeric_limits<double>::infinity())));
  EXPECT_TRUE(
      throws<ArgumentError>({"found 0"}, [] { (void)mora::weighted_sum(Summands<Sharing>{}); }));
  EXPECT_TRUE(throws<ArgumentError>({"found 0"},
                                    [] { (void)mora::average(std::vector<const Sharing*>{}); }));

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

}  // namespace
}  // namespace mora_tests
