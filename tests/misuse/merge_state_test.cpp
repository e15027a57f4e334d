// SPDX-License-Identifier: MIT
#include <memory>

#include "support/layer_types.hpp"
#include "support/misuse.hpp"

namespace mora_tests {
namespace {

using mora::FrozenLinear;
using mora::Matrix;
using mora::StateError;

/// A layer without a bias, which full fine-tuning would change too.
template <class Layer, class T = typename Layer::Scalar>
[[nodiscard]] Layer around(FrozenLinear<T> weight, std::uint64_t seed = 1) {
  Random random(seed);
  Layer layer(std::move(weight), {}, random.generator());
  layer.visit_parameters([&](std::string_view, auto& p) {
    p.value += random.matrix<T>(p.value.rows(), p.value.cols(), 0.1);
  });
  return layer;
}

TYPED_TEST(EveryLayer, MergesOnce) {
  TypeParam layer = make_layer<TypeParam>(9, 7, 3);
  EXPECT_TRUE(layer.merge());
  EXPECT_TRUE(layer.merged());
  const Bits merged = bits_of(layer);
  EXPECT_FALSE(layer.merge());
  EXPECT_EQ(bits_of(layer), merged);
}

TYPED_TEST(EveryLayer, UnmergesOnlyWhatIsMerged) {
  TypeParam layer = make_layer<TypeParam>(9, 7, 3);
  const Bits before = bits_of(layer);
  EXPECT_FALSE(layer.unmerge());
  EXPECT_EQ(bits_of(layer), before);
  for (int turn = 0; turn < 3; ++turn) {
    EXPECT_TRUE(layer.merge());
    EXPECT_TRUE(layer.unmerge());
    EXPECT_EQ(bits_of(layer), before);
  }
  EXPECT_FALSE(layer.unmerge());
  EXPECT_EQ(bits_of(layer), before);
}

TYPED_TEST(EveryLayer, RefusesToTrainWhileMerged) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  const auto x = random_numbers<T>(3, 4);
  const auto dy = random_numbers<T>(3, 6);
  Matrix<T> y(3, 6);
  Matrix<T> dx(3, 4);
  Matrix<T> weight = layer.base().weight();
  typename TypeParam::Saved saved;
  (void)layer.forward(x, saved);
  (void)layer.backward(dy, saved);
  (void)layer.forward(x, saved);
  const Bits before = bits_of(layer);
  layer.merge();

  const auto refused = [&](std::string_view name, const auto& call) {
    EXPECT_TRUE(refuses<StateError>(layer, {name, "merged", "unmerge it first"}, call));
  };
  refused("forward for training", [&] { (void)layer.forward(x, saved); });
  refused("forward for training", [&] { layer.forward(x, saved, y); });
  refused("backward", [&] { (void)layer.backward(dy, saved); });
  refused("backward", [&] { layer.backward(dy, saved, dx); });
  refused("backward", [&] { layer.backward_parameters(dy, saved); });
  refused("adapter", [&] { (void)layer.adapter(); });
  refused("visit_parameters", [&] { layer.visit_parameters([](std::string_view, auto&) {}); });
  refused("visit_parameters", [&] { mora::zero_gradients(layer); });
  refused("visit_parameters", [&] { mora::Sgd<T>().step(layer); });
  refused("visit_parameters", [&] { mora::AdamW<T>().step(layer); });
  refused("merge_into", [&] { layer.merge_into(weight); });

  EXPECT_TRUE(layer.unmerge());
  EXPECT_EQ(bits_of(layer), before);
  (void)layer.backward(dy, saved);  // The forward pass from before is still good.
}

TYPED_TEST(EveryLayer, RefusesToBeRescaledWhileMerged) {
  TypeParam layer = make_layer<TypeParam>(4, 6);
  layer.merge();
  if constexpr (requires { layer.adapter().set_scale(2.0); }) {
    EXPECT_TRUE(refuses<StateError>(layer, {"merged"}, [&] { layer.adapter().set_scale(2.0); }));
  }
  if constexpr (requires { layer.adapter().set_alpha(2.0); }) {
    EXPECT_TRUE(refuses<StateError>(layer, {"merged"}, [&] { layer.adapter().set_alpha(2.0); }));
  }
}

// A reference from before merging changes the adapter all the same; what comes back is the frozen
// weight itself, as nothing is ever subtracted.
TYPED_TEST(EveryLayer, UnmergesToTheFrozenWeightWhateverBecameOfTheAdapter) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  const Matrix<T> weight = layer.base().weight();
  const auto x = random_numbers<T>(3, 4);
  auto& adapter = layer.adapter();
  layer.merge();
  const Matrix<T> merged = layer.forward(x);
  adapter.visit_parameters([](std::string_view, auto& p) { p.value *= T(3); });
  EXPECT_TRUE(same_bits(layer.forward(x), merged));
  EXPECT_TRUE(layer.unmerge());
  EXPECT_TRUE(same_bits(layer.base().weight(), weight));
  TypeParam expected = make_layer<TypeParam>(4, 6);
  expected.visit_parameters([](std::string_view, auto& p) { p.value *= T(3); });
  EXPECT_TRUE(same_bits(layer.forward(x), expected.forward(x)));
}

TYPED_TEST(EveryLayer, LeavesTheFrozenWeightToItsOtherLayers) {
  using T = typename TypeParam::Scalar;
  const auto weight = random_numbers<T>(6, 4);
  const Matrix<T> before = weight;
  const auto x = random_numbers<T>(3, 4);
  TypeParam first = around<TypeParam, T>(weight, 5);
  TypeParam second = around<TypeParam, T>(weight, 6);
  const FrozenLinear<T> tied(weight);
  const Matrix<T> alone = tied.forward(x);
  const Bits first_alone = bits_of(first);
  const Bits second_alone = bits_of(second);
  first.merge();
  EXPECT_EQ(bits_of(second), second_alone);
  second.merge();
  EXPECT_TRUE(same_bits(tied.forward(x), alone));
  // Without the adapter, though merged.
  EXPECT_TRUE(same_bits(first.base().forward(x), alone));
  // In any order.
  EXPECT_TRUE(first.unmerge());
  EXPECT_EQ(bits_of(first), first_alone);
  EXPECT_TRUE(second.unmerge());
  EXPECT_EQ(bits_of(second), second_alone);
  {
    TypeParam temporary = first;
    temporary.merge();
  }
  EXPECT_TRUE(same_bits(weight, before));
  EXPECT_EQ(bits_of(first), first_alone);
}

TYPED_TEST(EveryLayer, CopiesItsMergedStateAndGoesItsOwnWay) {
  TypeParam layer = make_layer<TypeParam>(9, 7, 3);
  const Bits before = bits_of(layer);
  layer.merge();
  const Bits merged = bits_of(layer);
  TypeParam copy = layer;
  EXPECT_EQ(bits_of(copy), merged);
  EXPECT_TRUE(copy.unmerge());
  EXPECT_EQ(bits_of(copy), before);
  EXPECT_EQ(bits_of(layer), merged);
  copy = layer;
  EXPECT_TRUE(layer.unmerge());
  EXPECT_EQ(bits_of(copy), merged);
  const TypeParam moved = std::move(copy);
  EXPECT_EQ(bits_of(moved), merged);
}

TYPED_TEST(EveryLayer, MergesIntoOtherMemoryAndStaysAsItIs) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = around<TypeParam>({random_numbers<T>(7, 9)});
  const Bits before = bits_of(layer);
  Matrix<T> all = random_numbers<T>(10, 12);
  Matrix<T> expected = all;
  all.block(1, 2, 7, 9) = layer.base().weight();
  layer.merge_into(all.block(1, 2, 7, 9));
  EXPECT_FALSE(layer.merged());
  EXPECT_EQ(bits_of(layer), before);

  const Matrix<T> result = all.block(1, 2, 7, 9);
  EXPECT_TRUE(near(result, layer.base().weight() + layer.update()));
  layer.merge();
  const auto x = random_numbers<T>(3, 9);
  EXPECT_TRUE(same_bits(layer.forward(x), FrozenLinear<T>(result).forward(x)));
  expected.block(1, 2, 7, 9) = result;  // and nothing around it
  EXPECT_TRUE(same_bits(all, expected));
}

TYPED_TEST(EveryLayer, MergesIntoTheFrozenWeightForGood) {
  using T = typename TypeParam::Scalar;
  Matrix<T> weight = random_numbers<T>(7, 9);
  TypeParam layer = around<TypeParam, T>(weight);
  const FrozenLinear<T> tied(weight);
  TypeParam copy({Matrix<T>(weight)}, layer.adapter());
  const auto x = random_numbers<T>(3, 9);
  layer.merge_into(weight);
  EXPECT_TRUE(layer.merged());
  copy.merge();
  EXPECT_TRUE(same_bits(layer.forward(x), copy.forward(x)));
  EXPECT_TRUE(same_bits(tied.forward(x), copy.forward(x)));  // as documented
  TypeParam other = layer;
  for (TypeParam* const each : {&layer, &other}) {
    EXPECT_TRUE(refuses<StateError>(*each, {"unmerge", "overwritten"}, [&] { each->unmerge(); }));
    EXPECT_FALSE(each->merge());
    EXPECT_TRUE(
        refuses<StateError>(*each, {"merge_into", "merged"}, [&] { each->merge_into(weight); }));
  }
}

TYPED_TEST(EveryLayer, RefusesToMergeIntoATiedWeightUnlessTold) {
  using T = typename TypeParam::Scalar;
  const auto owner = std::make_shared<Matrix<T>>(random_numbers<T>(7, 9));
  const Matrix<T> before = *owner;
  Matrix<T> named = before;
  for (Matrix<T>* const weight : {owner.get(), &named}) {
    const FrozenLinear<T> frozen =
        weight == &named ? FrozenLinear<T>(named) : FrozenLinear<T>(owner->data(), 7, 9, owner);
    TypeParam layer = around<TypeParam>(frozen);
    EXPECT_TRUE(refuses<StateError>(layer, {"merge_into", "1 other", "overwrite"},
                                    [&] { layer.merge_into(*weight); }));
    EXPECT_TRUE(same_bits(*weight, before));
    Matrix<T> other = before;
    layer.merge_into(other);  // that is nobody's
    layer.merge_into(*weight, mora::SharedWeight::overwrite);
    EXPECT_TRUE(layer.merged());
    EXPECT_TRUE(same_bits(frozen.weight(), other));
    *weight = before;
  }
  // Nobody else's, though its owner is held here too.
  TypeParam layer = around<TypeParam>(FrozenLinear<T>(owner->data(), 7, 9, owner));
  {
    const TypeParam copy = layer;
    EXPECT_TRUE(refuses<StateError>(layer, {"1 other"}, [&] { layer.merge_into(*owner); }));
  }
  layer.merge_into(*owner);
  EXPECT_TRUE(layer.merged());
}

TYPED_TEST(EveryLayer, KnowsItsUpdateAfterMergingForGoodOrRefusesIt) {
  using T = typename TypeParam::Scalar;
  Matrix<T> weight = random_numbers<T>(7, 9);
  TypeParam layer = around<TypeParam, T>(weight);
  const Matrix<T> update = layer.update();
  layer.merge_into(weight);
  EXPECT_TRUE(same_bits(layer.base().weight(), weight));  // as documented
  if constexpr (TypeParam::AdapterType::additive) {
    EXPECT_TRUE(same_bits(layer.update(), update));
  } else {
    EXPECT_TRUE(
        refuses<StateError>(layer, {"update", "overwritten"}, [&] { (void)layer.update(); }));
  }
}

TYPED_TEST(EveryLayer, MergesTwoAdaptersIntoOneWeightInTurn) {
  using T = typename TypeParam::Scalar;
  if constexpr (TypeParam::AdapterType::additive) {
    Matrix<T> weight = random_numbers<T>(7, 9);
    const Matrix<T> before = weight;
    TypeParam first = around<TypeParam, T>(weight, 5);
    TypeParam second = around<TypeParam, T>(weight, 6);
    const Matrix<T> both = before + first.update() + second.update();
    first.merge_into(weight);
    second.merge_into(weight);
    EXPECT_TRUE(near(weight, both));
    EXPECT_TRUE(throws<StateError>({"unmerge", "overwritten"}, [&] { first.unmerge(); }));
  }
}

TYPED_TEST(EveryLayer, MergesNothingWithoutChangingABit) {
  using T = typename TypeParam::Scalar;
  Matrix<T> weight = random_numbers<T>(7, 9);
  weight.row(2).setConstant(T(-0.0));
  weight(3, 3) = std::numeric_limits<T>::denorm_min();
  const auto unchanged = [&](const TypeParam& layer) {
    Matrix<T> target = weight;
    TypeParam copy = layer;
    copy.merge_into(target);
    EXPECT_TRUE(same_bits(target, weight));
    copy.merge();
    const auto x = random_numbers<T>(3, 9);
    EXPECT_TRUE(same_bits(copy.forward(x), layer.base().forward(x)));
    EXPECT_TRUE(equal(layer.update(), Matrix<T>::Zero(7, 9)));
  };
  Random random(1);
  unchanged(TypeParam(weight, {}, random.generator()));  // a fresh one
  TypeParam layer({weight, mora::RowVector<T>::Zero(7)}, make_layer<TypeParam>(9, 7, 3).adapter());
  if constexpr (TypeParam::AdapterType::additive) {
    layer.visit_parameters([](std::string_view, auto& p) { p.value.setZero(); });
    unchanged(layer);
    layer.visit_parameters([](std::string_view, auto& p) { p.value.setConstant(T(-0.0)); });
    unchanged(layer);
    layer.visit_parameters([](std::string_view, auto& p) { p.value.setOnes(); });
    constexpr bool has_scale = requires { layer.adapter().set_scale(0.0); };
    constexpr bool has_alpha = requires { layer.adapter().set_alpha(0.0); };
    if constexpr (has_scale) layer.adapter().set_scale(0.0);
    if constexpr (has_alpha) layer.adapter().set_alpha(0.0);
    if (has_scale || has_alpha) unchanged(layer);
  }
}

}  // namespace
}  // namespace mora_tests
