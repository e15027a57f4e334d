// SPDX-License-Identifier: MIT
// NaN and infinity: where they may pass they stay where they belong, elsewhere they are refused.
#include <cmath>
#include <limits>

#include "support/layer_types.hpp"
#include "support/misuse.hpp"
#include "support/not_finite.hpp"

namespace mora_tests {
namespace {

using mora::Matrix;
using mora::NumericError;

TYPED_TEST(EveryLayer, ReadsAFrozenWeightWithANaN) {
  using T = typename TypeParam::Scalar;
  Matrix<T> w = random_numbers<T>(6, 4);
  const mora::FrozenLinear<T> clean(w.eval());
  w(2, 1) = nan<T>;
  const mora::FrozenLinear<T> layer(w);
  const auto x = random_numbers<T>(3, 4);
  Matrix<T> y = layer.forward(x);
  EXPECT_TRUE(y.col(2).array().isNaN().all());
  y.col(2).setZero();
  Matrix<T> expected = clean.forward(x);
  expected.col(2).setZero();
  EXPECT_TRUE(same_bits(y, expected));
}

TYPED_TEST(EveryLayer, ComputesANaNInOneTokenIntoThatTokenAlone) {
  using T = typename TypeParam::Scalar;
  const TypeParam layer = make_layer<TypeParam>(40, 30, 4);
  for (const Index tokens : {2, 3, 9, 33}) {
    const auto x = random_numbers<T>(tokens, 40);
    const Matrix<T> y = layer.forward(x);
    for (const Index bad : {Index{0}, tokens / 2, tokens - 1}) {
      for (const T value : {nan<T>, infinity<T>}) {
        Matrix<T> poisoned = x;
        poisoned(bad, 5) = value;
        Matrix<T> z = layer.forward(poisoned);
        EXPECT_FALSE(z.row(bad).allFinite());
        z.row(bad) = y.row(bad);
        EXPECT_TRUE(same_bits(z, y));
      }
    }
  }
}

template <class Layer>
class FreshLayer : public testing::Test {};
using FreshTypes = testing::Types<mora::MoraLinear<float>, mora::MoraLinear<float, mora::Sharing>,
                                  mora::LoraLinear<float>, mora::HiraLinear<float>,
                                  mora::MissLinear<float>, mora::DoraLinear<float>>;
TYPED_TEST_SUITE(FreshLayer, FreshTypes);

// Sums of x overflow before W x does.
TYPED_TEST(FreshLayer, IsTheFrozenOneWhateverTheInput) {
  const mora::FrozenLinear<float> base(random_numbers<float>(6, 40));
  mora::SplitMix64 generator(2);
  TypeParam layer = [&] {
    if constexpr (requires { TypeParam(base, {.rank = 2}); }) {
      return TypeParam(base, {.rank = 2});
    } else {
      return TypeParam(base, {}, generator);
    }
  }();
  for (const float value : {3e38F, -3e38F, infinity<float>, nan<float>}) {
    Matrix<float> x = random_numbers<float>(3, 40);
    x.row(1).head(30).setConstant(value);
    x(2, 7) = value;
    typename TypeParam::Saved saved;
    const Matrix<float> expected = base.forward(x);
    EXPECT_TRUE(same_bits(layer.forward(x), expected));
    EXPECT_TRUE(same_bits(layer.forward(x, saved), expected));
  }
}

/// What merging must refuse, whatever the number and wherever it is.
template <class Layer>
void expect_merging_refused(Layer& layer) {
  using T = typename Layer::Scalar;
  Matrix<T> weight = layer.base().weight();
  EXPECT_TRUE(refuses<NumericError>(layer, {"merge", "entry"}, [&] { layer.merge(); }));
  EXPECT_TRUE(refuses<NumericError>(layer, {"merge", "entry"}, [&] { layer.merge_into(weight); }));
  EXPECT_FALSE(layer.merged());
  EXPECT_TRUE(same_bits(weight, layer.base().weight()));
}

TYPED_TEST(EveryLayer, RefusesToMergeAnAdapterThatIsNotFinite) {
  using T = typename TypeParam::Scalar;
  const TypeParam original = make_layer<TypeParam>(9, 7, 3);
  int parameters = 0;
  original.visit_parameters([&](std::string_view, const auto&) { ++parameters; });
  for (int bad = 0; bad < parameters; ++bad) {
    for (const T value : {nan<T>, infinity<T>, -infinity<T>}) {
      TypeParam layer = original;
      int i = 0;
      layer.visit_parameters([&](std::string_view, auto& p) {
        if (i++ == bad) p.value(0, 0) = value;
      });
      expect_merging_refused(layer);
    }
  }
}

// B is zero, yet the unmerged layer computes 0 * NaN.
TEST(LoraLinear, RefusesToMergeANaNInAFactorBesideAZeroOne) {
  using Layer = mora::LoraLinear<float>;
  Layer layer = make_layer<Layer>(9, 7, 3);
  layer.adapter().b().value.setZero();
  layer.adapter().a().value(1, 4) = nan<float>;
  expect_merging_refused(layer);
  layer.adapter().a().value(1, 4) = 1.0f;
  layer.adapter().a().value.setZero();
  layer.adapter().b().value(6, 2) = nan<float>;
  expect_merging_refused(layer);
}

TYPED_TEST(EveryLayer, RefusesToMergeBeyondTheLargestNumber) {
  using T = typename TypeParam::Scalar;
  if constexpr (TypeParam::AdapterType::additive) {
    constexpr T largest = std::numeric_limits<T>::max();
    const Matrix<T> weight = Matrix<T>::Constant(7, 9, largest);
    TypeParam layer(weight, make_layer<TypeParam>(9, 7, 3).adapter());
    layer.visit_parameters([&](std::string_view, auto& p) { p.value.setConstant(largest); });
    expect_merging_refused(layer);
  }
}

TYPED_TEST(EveryLayer, RefusesToMergeIntoAWeightThatIsNotFinite) {
  using T = typename TypeParam::Scalar;
  if constexpr (TypeParam::AdapterType::additive) {
    Matrix<T> weight = random_numbers<T>(7, 9);
    weight(3, 2) = infinity<T>;
    TypeParam layer(weight, make_layer<TypeParam>(9, 7, 3).adapter());
    expect_merging_refused(layer);
  }
}

// The scale would make a small update of it, but B A comes first.
TEST(LoraLinear, RefusesToMergeAnUpdateThatOverflowsOnTheWay) {
  using Layer = mora::LoraLinear<float>;
  Layer layer = make_layer<Layer>(9, 7, 3);
  layer.visit_parameters([](std::string_view, auto& p) { p.value.setConstant(1e20f); });
  layer.adapter().set_alpha(1e-38);
  expect_merging_refused(layer);
}

TYPED_TEST(EveryLayer, RefusesToMergeWithoutTouchingOtherLayers) {
  using T = typename TypeParam::Scalar;
  std::vector<TypeParam> layers(4, make_layer<TypeParam>(9, 7, 3));
  layers[2].visit_parameters([](std::string_view, auto& p) { p.value.setConstant(nan<T>); });
  std::vector<Bits> before;
  for (const TypeParam& layer : layers) before.push_back(bits_of(layer));
  const auto merge_all = [&] {
    for (TypeParam& layer : layers) layer.merge();
  };
  EXPECT_TRUE(throws<NumericError>({"merge"}, merge_all));
  EXPECT_FALSE(layers[2].merged());
  EXPECT_EQ(bits_of(layers[3]), before[3]);
  for (TypeParam& layer : layers) layer.unmerge();
  for (std::size_t i = 0; i < layers.size(); ++i) EXPECT_EQ(bits_of(layers[i]), before[i]);
}

TYPED_TEST(EveryLayer, ComputesGradientsThatAreNotFiniteForOptimizersToRefuse) {
  using T = typename TypeParam::Scalar;
  const auto x = random_numbers<T>(3, 4);
  const auto dy = random_numbers<T>(3, 6);
  const auto check = [&](auto optimizer, auto twin) {
    TypeParam layer = make_layer<TypeParam>(4, 6);
    TypeParam expected = layer;
    typename TypeParam::Saved saved;
    const auto accumulate = [&](TypeParam& to, T upstream) {
      (void)to.forward(x, saved);
      Matrix<T> changed = dy;
      changed(1, 2) = upstream;
      to.backward_parameters(changed, saved);
    };
    for (TypeParam* const each : {&layer, &expected}) accumulate(*each, T(1));
    optimizer.step(layer);
    twin.step(expected);
    accumulate(layer, infinity<T>);
    EXPECT_TRUE(refuses<NumericError>(layer, {"gradient of ", "not finite"},
                                      [&] { optimizer.step(layer); }));
    // The moments are those of the twin, which never saw an infinity.
    mora::zero_gradients(layer);
    mora::zero_gradients(expected);
    for (TypeParam* const each : {&layer, &expected}) accumulate(*each, T(2));
    optimizer.step(layer);
    twin.step(expected);
    EXPECT_EQ(bits_of(layer), bits_of(expected));
  };
  check(mora::AdamW<T>(), mora::AdamW<T>());
  check(mora::Sgd<T>({.momentum = 0.9}), mora::Sgd<T>({.momentum = 0.9}));
}

TEST(FullLinear, RefusesToMergeABiasThatIsNotFinite) {
  auto layer = make_layer<mora::FullLinear<double>>(4, 6);
  layer.adapter().bias().value(0, 2) = nan<double>;
  Matrix<double> target = layer.base().weight();
  EXPECT_TRUE(refuses<NumericError>(layer, {"merge", "bias"}, [&] { layer.merge(); }));
  EXPECT_TRUE(refuses<NumericError>(layer, {"merge", "bias"}, [&] { layer.merge_into(target); }));
  EXPECT_TRUE(same_bits(target, layer.base().weight()));
}

}  // namespace
}  // namespace mora_tests
