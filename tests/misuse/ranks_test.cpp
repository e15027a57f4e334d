// SPDX-License-Identifier: MIT
#include <cmath>
#include <limits>

#include "support/layer_types.hpp"
#include "support/misuse.hpp"
#include "support/not_finite.hpp"

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::SideRounding;

template <class Op>
[[nodiscard]] mora::MoraLinear<double, Op> make_reference(Index in, Index out, Index rank) {
  using Layer = mora::MoraLinear<double, Op>;
  Layer layer(random_numbers<double>(out, in), {.rank = rank, .rounding = SideRounding::reference});
  layer.adapter().matrix().value =
      random_numbers<double>(layer.adapter().side(), layer.adapter().side(), 2);
  return layer;
}

/// `check(layer)` for the reference's types 1, 2, 3, 4 and 6.
template <class F>
void for_every_type(Index in, Index out, Index rank, const F& check) {
  for (const int type : {1, 2, 3, 4, 6}) {
    SCOPED_TRACE(testing::Message() << "type " << type << ", " << in << " to " << out);
    mora::with_mora_type(type,
                         [&](auto op) { check(make_reference<decltype(op)>(in, out, rank)); });
  }
}

TEST(Rank, MustBeAtLeastOneAndOfReasonableSize) {
  Random random(1);
  const mora::FrozenLinear<float> base(random_numbers<float>(6, 4));
  for (const Index rank :
       {Index{0}, Index{-1}, Index{-8}, Index{1'000'001}, Index{std::numeric_limits<int>::max()},
        std::numeric_limits<Index>::max(), std::numeric_limits<Index>::min()}) {
    const std::string found = "found " + std::to_string(rank);
    EXPECT_TRUE(throws<ArgumentError>({"rank", "1 to 1000000", found}, [&] {
      mora::LoraLinear<float>(base, {.rank = rank}, random.generator());
    }));
    EXPECT_TRUE(throws<ArgumentError>({"rank", "1 to 1000000", found},
                                      [&] { mora::MoraLinear<float>(base, {.rank = rank}); }));
    EXPECT_TRUE(throws<ArgumentError>({"rank", found}, [&] { (void)mora::mora_side(4, 6, rank); }));
    EXPECT_TRUE(
        throws<ArgumentError>({"rank", found}, [&] { (void)mora::lora_budget(4, 6, rank); }));
  }
}

TEST(Rank, MayExceedTheLayerWithAWarning) {
  const auto lora = make_layer<mora::LoraLinear<double>>(4, 6, 5);
  expect_works(lora);
  ASSERT_EQ(lora.warnings().size(), 1u);
  EXPECT_EQ(lora.warnings()[0],
            "rank 5 exceeds min(in_features, out_features) = 4: the update cannot have that rank");
  EXPECT_TRUE(make_layer<mora::LoraLinear<double>>(4, 6, 4).warnings().empty());

  const auto mora_layer = make_layer<mora::MoraLinear<double>>(4, 6, 5);  // a side of 6
  expect_works(mora_layer);
  ASSERT_EQ(mora_layer.warnings().size(), 1u);
  EXPECT_EQ(mora_layer.warnings()[0],
            "the side of M, 6, exceeds in_features = 4: a smaller rank has the same effect");
  EXPECT_EQ((make_layer<mora::MoraLinear<double>>(4, 6, 16).warnings().size()), 2u);
  EXPECT_TRUE((make_layer<mora::MoraLinear<double>>(4, 6, 1).warnings().empty()));
}

TEST(Side, OfOneWorksForAllTypesButRotation) {
  for (const int type : {1, 2, 3, 4}) {
    mora::with_mora_type(type,
                         [](auto op) { expect_works(make_reference<decltype(op)>(1, 1, 1)); });
  }
  EXPECT_TRUE(throws<ArgumentError>({"rotation", "at least 2", "found 1", "raise the rank"},
                                    [] { (void)make_reference<mora::Rotation>(1, 1, 1); }));
  EXPECT_TRUE(throws<ArgumentError>({"rotation", "at least 2", "found 1"}, [] {
    mora::MoraAdapter<float, mora::CoveringRotation>(1, 2, {.rank = 1});
  }));
}

TEST(Side, EqualToTheLayerWorks) {
  for_every_type(16, 16, 8, [](const auto& layer) {
    EXPECT_EQ(layer.adapter().side(), 16);
    expect_works(layer);
  });
}

TEST(Side, BetweenOneAndTwoInputsWorks) {
  for_every_type(8, 8, 8, [](const auto& layer) {
    EXPECT_GE(layer.adapter().side(), 10);
    expect_works(layer);
  });
}

TEST(Side, OfMoreThanTwiceTheInputsWorks) {
  for_every_type(4, 64, 8, [](const auto& layer) {
    EXPECT_GE(layer.adapter().side(), 22);
    expect_works(layer);
  });
}

TEST(Side, BeyondTheOutputsLeavesRowsOfTheMatrixAlone) {
  for_every_type(64, 4, 8, [](auto layer) {
    const Index side = layer.adapter().side();
    ASSERT_GT(side, 4);
    expect_works(layer);
    typename std::decay_t<decltype(layer)>::Saved saved;
    (void)layer.forward(random_numbers<double>(3, 64), saved);
    (void)layer.backward(random_numbers<double>(3, 4), saved);
    const auto& gradient = layer.adapter().matrix().gradient;
    EXPECT_EQ((gradient.rowwise().norm().array() > 0).count(), 4);
  });
}

TEST(Side, ThatIsOddIsRoundedDownForRotation) {
  EXPECT_EQ(mora::mora_side(4, 4, 1, SideRounding::reference), 3);
  EXPECT_EQ(make_reference<mora::Rotation>(4, 4, 1).adapter().side(), 2);
  EXPECT_EQ(make_reference<mora::Sharing>(4, 4, 1).adapter().side(), 3);
  expect_works(make_reference<mora::Rotation>(4, 4, 1));
}

TEST(Side, OfTwoIsTheSmallestRotation) {
  expect_works(make_reference<mora::Rotation>(2, 1, 1));
  expect_works(make_reference<mora::Rotation>(9, 7, 1));
  const auto smallest = make_reference<mora::Rotation>(3, 3, 1);
  EXPECT_EQ(smallest.adapter().side(), 2);
  expect_works(smallest);
}

TEST(Side, MayDivideInputsAndOutputsOrNot) {
  // 48 + 48, rank 6: side 24 divides both; the others divide one or none.
  for_every_type(48, 48, 6, [](const auto& layer) { expect_works(layer); });
  for_every_type(48, 53, 6, [](const auto& layer) { expect_works(layer); });
  for_every_type(53, 48, 6, [](const auto& layer) { expect_works(layer); });
  for_every_type(53, 47, 6, [](const auto& layer) { expect_works(layer); });
}

TEST(Side, AndParameterCountAreTheSameForFloatAndDouble) {
  for (const Index rank : {1, 2, 3, 8, 16}) {
    const mora::MoraAdapter<float> single(100, 60, {.rank = rank});
    const mora::MoraAdapter<double> exact(100, 60, {.rank = rank});
    EXPECT_EQ(single.side(), exact.side());
    EXPECT_EQ(mora::parameter_count(single), single.side() * single.side());
    EXPECT_EQ(mora::parameter_count(exact), exact.side() * exact.side());
  }
}

TEST(MoraType, MustBeOneOfTheReferences) {
  for (const int type : {0, 5, 7, -1, 99, std::numeric_limits<int>::min()}) {
    bool called = false;
    EXPECT_TRUE(
        throws<ArgumentError>({"mora_type", "1, 2, 3, 4 or 6", "found " + std::to_string(type)},
                              [&] { mora::with_mora_type(type, [&](auto) { called = true; }); }));
    EXPECT_FALSE(called);
  }
}

TEST(Rotation, OfTwoSizesOverOneWeightKeepTheirOwnTables) {
  const mora::FrozenLinear<double> base(random_numbers<double>(40, 40));
  using Layer = mora::MoraLinear<double>;
  const auto with_rank = [&](Index rank) {
    Layer layer(base, {.rank = rank});
    layer.adapter().matrix().value =
        random_numbers<double>(layer.adapter().side(), layer.adapter().side());
    return layer;
  };
  const auto x = random_numbers<double>(3, 40);
  const mora::Matrix<double> small_alone = with_rank(2).forward(x);
  const mora::Matrix<double> large_alone = with_rank(5).forward(x);
  const Layer small = with_rank(2);
  const Layer large = with_rank(5);
  EXPECT_NE(small.adapter().side(), large.adapter().side());
  for (int turn = 0; turn < 2; ++turn) {
    EXPECT_TRUE(same_bits(small.forward(x), small_alone));
    EXPECT_TRUE(same_bits(large.forward(x), large_alone));
  }
  expect_works(small);
  expect_works(large);
}

TEST(Rotation, RefusesABaseThatMakesNoAngles) {
  for (const double wrong : {0.0, -10000.0, infinity<double>, nan<double>}) {
    EXPECT_TRUE(throws<ArgumentError>(
        {"base", "positive"}, [&] { mora::MoraAdapter<float>(40, 40, {.op = {.base = wrong}}); }));
    EXPECT_TRUE(throws<ArgumentError>({"base", "positive"}, [&] {
      mora::MoraAdapter<float, mora::CoveringRotation>(40, 40, {.op = {.base = wrong}});
    }));
  }
  EXPECT_TRUE(throws<ArgumentError>({"base", "finite angles"}, [] {
    mora::MoraAdapter<float>(400, 400, {.rank = 13, .op = {.base = 5e-324}});
  }));
}

// Pair hands on the side as it comes, odd ones too.
TEST(Rotation, RefusesAnOddSideInAUsersPair) {
  using Folded = mora::Pair<mora::RotatedBlocks, mora::FoldedBlocks>;
  EXPECT_EQ(mora::mora_side(20, 29, 1), 7);
  EXPECT_TRUE(throws<ArgumentError>({"rotation", "even", "found 7"},
                                    [] { mora::MoraAdapter<float, Folded>(20, 29, {.rank = 1}); }));
  expect_works(make_layer<mora::MoraLinear<double, Folded>>(20, 29, 4));
}

/// Rotation, with one part made for another shape.
struct Lying {
  Index more_in = 0;
  Index more_out = 0;
  Index more_side = 0;
  Index more_blocks = 0;
  [[nodiscard]] Index fit_side(Index side) const { return mora::Rotation{}.fit_side(side); }
  [[nodiscard]] auto make(Index in, Index out, Index side) const {
    const mora::RotatedBlocks compress(in + more_in, side);
    return mora::OperatorPair<mora::RotatedBlocks, mora::FoldedBlocks>{
        compress,
        mora::FoldedBlocks(out + more_out, side + more_side, compress.blocks() + more_blocks)};
  }
};

TEST(Operators, MustHavePartsThatFit) {
  const auto refused = [](const Lying& op, std::string_view what, std::string_view expected,
                          std::string_view found) {
    EXPECT_TRUE(throws<mora::ShapeError>({what, expected, found}, [&] {
      mora::MoraAdapter<float, Lying>(40, 30, {.rank = 1, .op = op});  // side 8
    }));
  };
  refused({.more_in = 1}, "compressor, in_features", "expected 40", "found 41");
  refused({.more_out = 1}, "decompressor, out_features", "expected 30", "found 31");
  refused({.more_side = 2}, "decompressor, side", "expected 8", "found 10");
  refused({.more_blocks = 1}, "decompressor, blocks", "expected 5", "found 6");
}

TEST(RandomGroups, AreAtMostWhatTheirTablesCanNumber) {
  EXPECT_TRUE(throws<ArgumentError>({"at most 2147483647 features", "found 2147483648 in 8"},
                                    [] { mora::RandomGroups(Index{1} << 31, 8, 0); }));
  EXPECT_TRUE(throws<ArgumentError>({"in 65536 groups", "found 65537 in 65537"},
                                    [] { mora::RandomGroups(65'537, 65'537, 0); }));
  const mora::RandomGroups most(65'537, 65'536, 0);
  Index largest = 0;
  for (Index i = 0; i < most.features(); ++i) largest = std::max(largest, most.group_of(i));
  EXPECT_EQ(largest, 65'535);
}

TEST(LoraScale, IsThatOfTheRank) {
  using Settings = mora::LoraSettings;
  constexpr auto stabilized = mora::LoraScaling::rank_stabilized;
  EXPECT_EQ((Settings{.rank = 1, .alpha = 3.0}.scale()), 3.0);
  EXPECT_EQ((Settings{.rank = 1, .alpha = 3.0, .scaling = stabilized}.scale()), 3.0);
  EXPECT_EQ((Settings{.rank = 16, .alpha = 8.0}.scale()), 0.5);
  EXPECT_EQ((Settings{.rank = 16, .alpha = 8.0, .scaling = stabilized}.scale()), 2.0);
}

TEST(LoraScale, MayBeZeroOrNegative) {
  using Layer = mora::LoraLinear<double>;
  Layer layer = make_layer<Layer>(5, 4);
  const auto x = random_numbers<double>(3, 5);
  const mora::Matrix<double> base = layer.base().forward(x);
  layer.adapter().set_alpha(2.0);
  const mora::Matrix<double> plus = layer.forward(x) - base;
  layer.adapter().set_alpha(-2.0);
  expect_works(layer);
  EXPECT_LE((layer.forward(x) - base + plus).norm(), 1e-12);
  layer.adapter().set_alpha(0.0);
  expect_works(layer);
  EXPECT_TRUE(same_bits(layer.forward(x), base));
}

TEST(Scale, MustBeFinite) {
  Random random(1);
  const mora::FrozenLinear<float> base(random_numbers<float>(6, 4));
  auto lora = make_layer<mora::LoraLinear<float>>(4, 6);
  auto square = make_layer<mora::MoraLinear<float>>(4, 6);
  for (const double wrong : {nan<double>, infinity<double>, -infinity<double>, 1e300}) {
    EXPECT_TRUE(throws<ArgumentError>({"alpha", "finite"}, [&] {
      mora::LoraLinear<float>(base, {.alpha = wrong}, random.generator());
    }));
    EXPECT_TRUE(throws<ArgumentError>({"scale", "finite"},
                                      [&] { mora::MoraLinear<float>(base, {.scale = wrong}); }));
    EXPECT_TRUE(refuses<ArgumentError>(lora, {"alpha", "finite"},
                                       [&] { lora.adapter().set_alpha(wrong); }));
    EXPECT_TRUE(refuses<ArgumentError>(square, {"scale", "finite"},
                                       [&] { square.adapter().set_scale(wrong); }));
  }
}

// Also where no layer is made of the settings.
TEST(Settings, ValidateTheirRank) {
  const auto refused = [](const auto& settings) {
    EXPECT_TRUE(
        throws<ArgumentError>({"rank", "1 to 1000000", "found 0"}, [&] { settings.validate(); }));
  };
  refused(mora::LoraSettings{.rank = 0});
  refused(mora::MoraSettings<>{.rank = 0});
  refused(mora::HiraSettings{.rank = 0});
  refused(mora::MissSettings{.rank = 0});
  refused(mora::LokrSettings{.rank = 0});
  refused(mora::DoraSettings<mora::LoraSettings>{.direction = {.rank = 0}});
}

TEST(Settings, ValidateTheirScale) {
  for (const double wrong : {nan<double>, infinity<double>, -infinity<double>}) {
    EXPECT_TRUE(throws<ArgumentError>({"alpha", "finite", "found"},
                                      [&] { mora::LoraSettings{.alpha = wrong}.validate(); }));
    EXPECT_TRUE(throws<ArgumentError>({"scale", "finite", "found"},
                                      [&] { mora::MoraSettings<>{.scale = wrong}.validate(); }));
  }
}

// It would be zero in float, and nothing could be learnt.
TEST(Scale, MustNotVanishInTheScalar) {
  Random random(1);
  const mora::FrozenLinear<float> base(random_numbers<float>(6, 4));
  auto square = make_layer<mora::MoraLinear<float>>(4, 6);
  for (const double wrong : {1e-60, -1e-60}) {
    EXPECT_TRUE(throws<ArgumentError>({"alpha", "at least", "1e-60"}, [&] {
      mora::LoraLinear<float>(base, {.rank = 1, .alpha = wrong}, random.generator());
    }));
    EXPECT_TRUE(refuses<ArgumentError>(square, {"scale", "at least", "1e-60"},
                                       [&] { square.adapter().set_scale(wrong); }));
  }
  square.adapter().set_scale(1e-44);
  square.adapter().set_scale(0.0);
}

}  // namespace
}  // namespace mora_tests
