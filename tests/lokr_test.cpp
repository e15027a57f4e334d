// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>
#include <mora/mora.hpp>

#include "support/compare.hpp"
#include "support/misuse.hpp"
#include "support/not_finite.hpp"
#include "support/random.hpp"
#include "support/throws.hpp"

/// \file
/// What only LoKr has; it is in the suites of laws too, and reference_test has PEFT's numbers.

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::Index;
using mora::KroneckerShape;
using mora::LokrSettings;
using mora::Matrix;
using mora::ShapeError;
using Lokr = mora::LokrAdapter<double>;
using Layer = mora::LokrLinear<double>;

// What PEFT's factorization() returns.
TEST(Lokr, HasFactorsOfPeftsSizes) {
  struct Case {
    Index features;
    Index wanted;
    Index first;
  };
  for (const auto& [features, wanted, first] :
       {Case{1, -1, 1}, Case{127, -1, 1}, Case{128, -1, 8}, Case{128, 4, 4}, Case{128, 64, 64},
        Case{128, 128, 128}, Case{128, 5, 4}, Case{128, 100, 8}, Case{250, -1, 10},
        Case{256, -1, 16}, Case{360, -1, 18}, Case{360, 7, 6}, Case{360, 36, 36}, Case{512, 1, 1},
        Case{1024, -1, 32}, Case{4096, -1, 64}, Case{11008, -1, 86}}) {
    EXPECT_EQ(mora::detail::first_factor(features, wanted), first) << features << ' ' << wanted;
  }
  EXPECT_EQ(mora::lokr_shape(11008, 4096, {.rank = 8}), (KroneckerShape{.rows1 = 64,
                                                                        .cols1 = 86,
                                                                        .rows2 = 64,
                                                                        .cols2 = 128,
                                                                        .rank = 8,
                                                                        .thin1 = false,
                                                                        .thin2 = true}));
  // A factor is thin below half of its larger side.
  EXPECT_TRUE(mora::lokr_shape(256, 256, {.rank = 7}).thin2);
  EXPECT_FALSE(mora::lokr_shape(256, 256, {.rank = 8}).thin2);
  EXPECT_FALSE(mora::lokr_shape(256, 256, {.rank = 7}).thin1);
  EXPECT_TRUE(mora::lokr_shape(256, 256, {.rank = 7, .decompose_both = true}).thin1);
  EXPECT_FALSE(mora::lokr_shape(256, 256, {.rank = 8, .decompose_both = true}).thin1);
}

TEST(Lokr, TakesTheCheapestOrder) {
  const auto cost = [](Index in, Index out, const LokrSettings& settings) {
    return mora::detail::cheapest_path(mora::lokr_shape(in, out, settings)).cost;
  };
  EXPECT_EQ(cost(4096, 4096, {.rank = 8}), 8.0 * (4096 + 64 * 64 + 4096));
  // Full factors: either first, so that the less is left for the other.
  EXPECT_EQ(cost(4096, 4096, {.rank = 32}), 64.0 * 4096 + 64.0 * 4096);
  EXPECT_EQ(cost(16, 24, {.rank = 3}), 4.0 * 4 * 4 + 4.0 * 4 * 6);
  EXPECT_EQ(cost(24, 16, {.rank = 3}), 4.0 * 6 * 4 + 4.0 * 4 * 4);
  for (const bool both : {false, true}) {
    for (const auto& [in, out, factor] :
         {std::tuple<Index, Index, Index>{24, 36, -1}, {36, 24, 12}, {60, 128, 30}, {64, 4, -1}}) {
      const KroneckerShape shape = mora::lokr_shape(
          in, out, {.rank = 2, .decompose_factor = factor, .decompose_both = both});
      const Index firsts = shape.thin1 ? 2 : 1;
      const Index count = firsts + (shape.thin2 ? 2 : 1);
      const double best = mora::detail::cheapest_path(shape).cost;
      bool found = false;
      for (unsigned bits = 0; bits < 1u << count; ++bits) {
        std::array<bool, 4> first = {};
        for (Index i = 0; i < count; ++i)
          first[static_cast<std::size_t>(i)] = (bits >> i & 1u) != 0;
        if (std::count(first.begin(), first.end(), true) != firsts) continue;
        const auto path = mora::detail::path_along(shape, first, count);
        EXPECT_GE(path.cost, best);
        found = found || path.cost == best;
      }
      EXPECT_TRUE(found);
    }
  }
}

// W would have 2^36 numbers.
TEST(Lokr, NeverMakesItsUpdate) {
  Random random(1);
  const Index size = Index{1} << 18;
  mora::LokrAdapter<float> adapter(size, size, {.rank = 3, .alpha = 6.0}, random.generator());
  adapter.visit_parameters(
      [&](std::string_view, auto& p) { mora::fill_normal(p.value, 0.5, random.generator()); });
  const auto& shape = adapter.shape();
  const auto x = random.matrix<float>(1, size);
  const auto dy = random.matrix<float>(1, size);
  Matrix<float> y = Matrix<float>::Zero(1, size);
  Matrix<float> dx = Matrix<float>::Zero(1, size);
  mora::LokrAdapter<float>::Saved saved;
  using mora::detail::map_of;
  adapter.add_forward(map_of(x), map_of(y), &saved);
  mora::MutableMap<float> dx_map = map_of(dx);
  adapter.add_backward(map_of(x), map_of(dy), saved, &dx_map);

  using Wide = Matrix<double>;
  const auto token = [&](const Matrix<float>& row) {
    return Wide(
        Eigen::Map<const Matrix<float>>(row.data(), shape.rows1, shape.rows2).cast<double>());
  };
  const Wide w1 = adapter.w1().a.value.cast<double>();
  const Wide w2 = (adapter.w2().a.value * adapter.w2().b.value).cast<double>();
  EXPECT_TRUE(near(token(y).cast<float>(), 2.0 * w1 * token(x) * w2.transpose()));
  EXPECT_TRUE(near(token(dx).cast<float>(), 2.0 * w1.transpose() * token(dy) * w2));
  EXPECT_TRUE(near(adapter.w1().a.gradient, Wide(2.0 * token(dy) * w2 * token(x).transpose())));
}

TEST(Lokr, MergesAnyNumberOfRowsAtATime) {
  Random random(2);
  // Chunks are of 163 rows, W2 of 17 and of 425.
  for (const Index factor : {25, 1}) {
    Layer layer(random.matrix<double>(425, 400), {.rank = 3, .decompose_factor = factor},
                random.generator());
    layer.visit_parameters(
        [&](std::string_view, auto& p) { mora::fill_normal(p.value, 0.5, random.generator()); });
    const Lokr& adapter = layer.adapter();
    const Matrix<double> all = layer.base().weight() + layer.update();
    const auto plan = adapter.plan_merge();
    for (const Index count : {1, 7, 170, 425}) {
      Matrix<double> merged = layer.base().weight();
      for (Index first = 0; first < 425; first += count) {
        adapter.merge_rows(plan, first,
                           mora::detail::rows_of(mora::detail::map_of(merged), first,
                                                 std::min(count, 425 - first)));
      }
      EXPECT_TRUE(near(merged, all)) << count;
    }
  }
}

TEST(Lokr, LeavesBlocksAloneThatItDoesNotChange) {
  Random random(3);
  Matrix<double> w = Matrix<double>::Constant(36, 24, -0.0);
  Layer layer(w, {.rank = 8}, random.generator());  // W1 [6, 4], W2 [6, 6]
  layer.visit_parameters([](std::string_view, auto& p) { p.value.setOnes(); });
  layer.adapter().w1().a.value(2, 3) = 0.0;
  layer.adapter().w2().a.value.row(1).setZero();
  layer.merge_into(w);
  EXPECT_TRUE(same_bits(w.block(12, 18, 6, 6), Matrix<double>::Constant(6, 6, -0.0)));
  EXPECT_TRUE(same_bits(w.row(7), Matrix<double>::Constant(1, 24, -0.0)));
  EXPECT_EQ((w.array() == 1.0).count(), (36 - 6) * 24 - 5 * 6);
}

TEST(Lokr, RefusesSettingsOutOfRange) {
  Random random(4);
  const mora::FrozenLinear<float> base(random.matrix<float>(6, 4));
  const auto refused = [&](const LokrSettings& settings,
                           std::initializer_list<std::string_view> parts) {
    EXPECT_TRUE(throws<ArgumentError>(
        parts, [&] { mora::LokrLinear<float>(base, settings, random.generator()); }));
    if (settings.alpha == 1e300) return;  // a double has that
    EXPECT_TRUE(throws<ArgumentError>(parts, [&] { (void)mora::lokr_shape(4, 6, settings); }));
  };
  refused({.rank = 0}, {"rank", "1 to 1000000", "found 0"});
  refused({.rank = -3}, {"rank", "found -3"});
  refused({.rank = 1'000'001}, {"rank", "found 1000001"});
  refused({.alpha = nan<double>}, {"alpha", "finite"});
  refused({.alpha = infinity<double>}, {"alpha", "finite"});
  refused({.alpha = 1e300}, {"alpha", "finite"});
  refused({.decompose_factor = 0}, {"decompose_factor", "-1 or at least 1", "found 0"});
  refused({.decompose_factor = -2}, {"decompose_factor", "-1 or at least 1", "found -2"});
  EXPECT_TRUE(throws<ShapeError>({"in_features", "at least 1", "found 0"},
                                 [] { (void)mora::lokr_shape(0, 6, {}); }));
  EXPECT_TRUE(throws<ShapeError>(
      {"weight", "memory"}, [] { (void)mora::lokr_shape(Index{1} << 31, Index{1} << 40, {}); }));
  // Primes, and thin halves that are longer than any weight.
  EXPECT_TRUE(throws<ShapeError>({"weight", "memory"}, [] {
    (void)mora::lokr_shape(2305843009213693951 / 64, 1, {.rank = 1'000'000, .decompose_factor = 1});
  }));
  EXPECT_TRUE(throws<ShapeError>({"weight", "memory"}, [] {
    constexpr Index many = Index{1} << 40;
    (void)mora::lokr_shape(1, many,
                           {.rank = 1'000'000, .decompose_factor = many, .decompose_both = true});
  }));
}

TEST(Lokr, RefusesFactorsOfOtherShapes) {
  Random random(5);
  const auto made = [&](Index rows1, Index cols1, Index rows2, Index rank, Index cols2) {
    return [=, &random] {
      Lokr(24, 36, {.rank = 2}, {.a = {random.matrix<double>(rows1, cols1), {}}, .b = {}},
           {.a = {random.matrix<double>(rows2, rank), {}},
            .b = {random.matrix<double>(rank, cols2), {}}});
    };
  };
  EXPECT_NO_THROW(made(6, 4, 6, 2, 6)());
  EXPECT_TRUE(throws<ShapeError>({"W1, rows", "expected 6", "found 5"}, made(5, 4, 6, 2, 6)));
  EXPECT_TRUE(throws<ShapeError>({"W1, columns", "expected 4", "found 6"}, made(6, 6, 6, 2, 6)));
  EXPECT_TRUE(throws<ShapeError>({"W2a, columns", "expected 2", "found 3"}, made(6, 4, 6, 3, 6)));
  EXPECT_TRUE(throws<ShapeError>({"W2b, columns", "expected 6", "found 7"}, made(6, 4, 6, 2, 7)));
}

TEST(Lokr, RefusesWhatALayerOfOtherFactorsSaved) {
  Layer thin = make_layer<Layer>(24, 36, 2);
  Layer full = make_layer<Layer>(24, 36, 3);
  const auto x = random_numbers<double>(3, 24);
  const auto dy = random_numbers<double>(3, 36);
  Layer::Saved saved;
  (void)thin.forward(x, saved);
  EXPECT_TRUE(refuses<ShapeError>(full, {"between products", "expected 24", "found 20"},
                                  [&] { (void)full.backward(dy, saved); }));
  (void)full.forward(x, saved);
  EXPECT_TRUE(refuses<ShapeError>(thin, {"between products", "expected 20", "found 24"},
                                  [&] { (void)thin.backward(dy, saved); }));
}

// W1 is zero, yet the unmerged layer computes 0 * NaN.
TEST(Lokr, RefusesToMergeANaNInAFactorBesideAZeroOne) {
  const auto refused = [](Layer& layer) {
    EXPECT_TRUE(refuses<mora::NumericError>(layer, {"merge", "entry"}, [&] { layer.merge(); }));
    Matrix<double> target = layer.base().weight();
    EXPECT_TRUE(
        refuses<mora::NumericError>(layer, {"merge", "entry"}, [&] { layer.merge_into(target); }));
    EXPECT_TRUE(same_bits(target, layer.base().weight()));
  };
  Layer layer = make_layer<Layer>(24, 36);
  layer.adapter().w1().a.value.setZero();
  layer.adapter().w2().b.value(1, 4) = nan<double>;
  refused(layer);
  layer.adapter().w2().b.value.setZero();
  layer.adapter().w1().a.value(5, 2) = nan<double>;
  refused(layer);
}

// The scale would make a small update of it, but W2a W2b comes first.
TEST(Lokr, RefusesToMergeAnUpdateThatOverflowsOnTheWay) {
  Random random(6);
  mora::LokrLinear<float> layer(random.matrix<float>(36, 24), {.rank = 2, .alpha = 1e-38},
                                random.generator());
  layer.visit_parameters([](std::string_view, auto& p) { p.value.setConstant(1e20f); });
  Matrix<float> target = layer.base().weight();
  EXPECT_TRUE(
      refuses<mora::NumericError>(layer, {"merge", "entry"}, [&] { layer.merge_into(target); }));
}

TEST(Lokr, SaysWhereItsRankHasNoEffect) {
  const auto warnings = [](Index rank) { return make_layer<Layer>(24, 36, rank).warnings(); };
  EXPECT_TRUE(warnings(2).empty());
  ASSERT_EQ(warnings(3).size(), 1u);
  EXPECT_EQ(warnings(3)[0],
            "rank 3 is not below half of 6, the larger side of W2: that is full, and the rank "
            "divides alpha alone");
}

TEST(Lokr, StartsWithinTheBoundsOfPeft) {
  Random random(7);
  const Lokr adapter(64 * 64, 48 * 48, {.rank = 4, .decompose_both = true}, random.generator());
  EXPECT_EQ(adapter.w1().a.value.norm(), 0.0);
  const auto within = [](const Matrix<double>& matrix) {
    const double bound = 1.0 / std::sqrt(static_cast<double>(matrix.cols()));
    EXPECT_LE(matrix.cwiseAbs().maxCoeff(), bound);
    EXPECT_GE(matrix.cwiseAbs().maxCoeff(), 0.9 * bound);
  };
  within(adapter.w1().b.value);
  within(adapter.w2().a.value);
  within(adapter.w2().b.value);
}

}  // namespace
}  // namespace mora_tests
