// SPDX-License-Identifier: MIT
// A backward pass goes through one forward pass, once.
#include "support/layer_types.hpp"
#include "support/misuse.hpp"

namespace mora_tests {
namespace {

using mora::ShapeError;
using mora::StateError;

TYPED_TEST(EveryLayer, RefusesABackwardPassWithoutAForwardPass) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  typename TypeParam::Saved saved;
  const auto dy = random_numbers<T>(3, 6);
  const auto before = random_numbers<T>(3, 4);
  auto dx = before;
  EXPECT_TRUE(refuses<StateError>(layer, {"backward", "no training forward pass"},
                                  [&] { (void)layer.backward(dy, saved); }));
  EXPECT_TRUE(refuses<StateError>(layer, {"backward"}, [&] { layer.backward(dy, saved, dx); }));
  EXPECT_TRUE(
      refuses<StateError>(layer, {"backward"}, [&] { layer.backward_parameters(dy, saved); }));
  EXPECT_TRUE(same_bits(dx, before));
}

TYPED_TEST(EveryLayer, RefusesASecondBackwardPass) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  typename TypeParam::Saved saved;
  const auto x = random_numbers<T>(3, 4);
  const auto dy = random_numbers<T>(3, 6);
  (void)layer.forward(x, saved);
  (void)layer.backward(dy, saved);
  EXPECT_TRUE(refuses<StateError>(layer, {"no training forward pass since the last backward pass"},
                                  [&] { layer.backward_parameters(dy, saved); }));
  EXPECT_TRUE(refuses<StateError>(layer, {"no training forward pass since the last backward pass"},
                                  [&] { (void)layer.backward(dy, saved); }));
  // A forward pass without `saved` does not count; one with it does.
  (void)layer.forward(x);
  EXPECT_TRUE(
      refuses<StateError>(layer, {"backward"}, [&] { layer.backward_parameters(dy, saved); }));
  (void)layer.forward(x, saved);
  layer.backward_parameters(dy, saved);
}

TYPED_TEST(EveryLayer, RefusesAGradientOfAnotherShapeAndKeepsTheForwardPass) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  typename TypeParam::Saved saved;
  const auto dy = random_numbers<T>(3, 6);
  (void)layer.forward(random_numbers<T>(3, 4), saved);
  EXPECT_TRUE(refuses<ShapeError>(layer, {"rows of dy", "expected 3", "found 2"},
                                  [&] { (void)layer.backward(dy.topRows(2), saved); }));
  EXPECT_TRUE(refuses<ShapeError>(layer, {"columns of dy", "out_features", "expected 6", "found 5"},
                                  [&] { (void)layer.backward(dy.leftCols(5), saved); }));
  layer.backward_parameters(dy, saved);
}

TYPED_TEST(EveryLayer, RefusesAGradientBufferOfAnotherShape) {
  using T = typename TypeParam::Scalar;
  typename TypeParam::Saved saved;
  const auto x = random_numbers<T>(3, 4);
  const auto dy = random_numbers<T>(3, 6);
  TypeParam layer = make_layer<TypeParam>(4, 6);
  int parameters = 0;
  layer.visit_parameters([&](std::string_view, auto&) { ++parameters; });
  for (int wrong = 0; wrong < parameters; ++wrong) {
    (void)layer.forward(x, saved);
    int i = 0;
    layer.visit_parameters([&](std::string_view, auto& p) {
      if (i++ == wrong) p.gradient.setOnes(9, 2);
    });
    EXPECT_TRUE(refuses<ShapeError>(layer, {"gradient of ", "expected ", "found 9x2"},
                                    [&] { (void)layer.backward(dy, saved); }));
    EXPECT_TRUE(refuses<ShapeError>(layer, {"gradient of ", "expected ", "found 9x2"},
                                    [&] { layer.backward_parameters(dy, saved); }));
    layer.visit_parameters([](std::string_view, auto& p) { p.gradient.resize(0, 0); });
    layer.backward_parameters(dy, saved);  // The forward pass was still good.
    layer.visit_parameters([](std::string_view, auto& p) { p.gradient.resize(0, 0); });
  }
}

// One `Saved` used for two layers by mistake.
TYPED_TEST(EveryLayer, RefusesWhatAnotherLayerSaved) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  const TypeParam wider = make_layer<TypeParam>(40, 6);
  typename TypeParam::Saved saved;
  (void)wider.forward(random_numbers<T>(3, 40), saved);
  EXPECT_TRUE(refuses<ShapeError>(layer, {"backward", "saved", "expected ", "found "},
                                  [&] { (void)layer.backward(random_numbers<T>(3, 6), saved); }));
  EXPECT_TRUE(refuses<ShapeError>(layer, {"backward", "saved", "expected ", "found "}, [&] {
    layer.backward_parameters(random_numbers<T>(3, 6), saved);
  }));
}

TEST(LoraLinear, RefusesWhatALayerOfAnotherRankSaved) {
  using Layer = mora::LoraLinear<float>;
  Layer layer = make_layer<Layer>(4, 6, 2);
  Layer::Saved saved;
  (void)make_layer<Layer>(4, 6, 3).forward(random_numbers<float>(3, 4), saved);
  EXPECT_TRUE(
      refuses<ShapeError>(layer, {"backward", "saved", "rank", "expected 2", "found 3"},
                          [&] { (void)layer.backward(random_numbers<float>(3, 6), saved); }));
}

TEST(DoraLinear, RefusesWhatALayerOfAnotherRankOrOtherOutputsSaved) {
  using Layer = mora::DoraLinear<double>;
  Random random(1);
  const auto make = [&](Index out, Index rank) {
    return Layer(random.matrix<double>(out, 4), {.direction = {.rank = rank}}, random.generator());
  };
  Layer layer = make(6, 2);
  Layer::Saved saved;
  const auto dy = random_numbers<double>(3, 6);
  (void)make(6, 3).forward(random_numbers<double>(3, 4), saved);
  EXPECT_TRUE(refuses<ShapeError>(layer, {"backward", "saved", "rank", "expected 2", "found 3"},
                                  [&] { (void)layer.backward(dy, saved); }));
  // All that the adapter below it kept would fit.
  (void)make(7, 2).forward(random_numbers<double>(3, 4), saved);
  EXPECT_TRUE(refuses<ShapeError>(layer, {"backward", "saved output", "expected 6", "found 7"},
                                  [&] { (void)layer.backward(dy, saved); }));
}

TYPED_TEST(EveryLayer, RefusesASavedThatWasMovedFrom) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  typename TypeParam::Saved saved;
  const auto x = random_numbers<T>(3, 4);
  const auto dy = random_numbers<T>(3, 6);
  (void)layer.forward(x, saved);
  typename TypeParam::Saved other = std::move(saved);
  EXPECT_TRUE(refuses<ShapeError>(  // NOLINTNEXTLINE(bugprone-use-after-move)
      layer, {"backward", "saved", "found 0"}, [&] { (void)layer.backward(dy, saved); }));
  (void)layer.backward(dy, other);
  (void)layer.forward(x, saved);  // It may be filled again.
  (void)layer.backward(dy, saved);
}

TYPED_TEST(EveryLayer, RefusedForwardPassKeepsTheFormerOne) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  typename TypeParam::Saved saved;
  (void)layer.forward(random_numbers<T>(3, 4), saved);
  EXPECT_TRUE(refuses<ShapeError>(layer, {"expected 4", "found 5"},
                                  [&] { (void)layer.forward(random_numbers<T>(2, 5), saved); }));
  (void)layer.backward(random_numbers<T>(3, 6), saved);
}

}  // namespace
}  // namespace mora_tests
