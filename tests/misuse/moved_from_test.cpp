// SPDX-License-Identifier: MIT
#include <mora/adapters/any_adapter.hpp>
#include <utility>

#include "support/layer_types.hpp"
#include "support/misuse.hpp"

namespace mora_tests {
namespace {

using mora::Matrix;
using mora::StateError;

/// Every function of a layer that was moved from, while `Saved` and shapes would fit.
template <class Layer>
void expect_unusable(Layer& layer, typename Layer::Saved& saved) {
  using T = typename Layer::Scalar;
  const Layer& constant = layer;
  const auto x = random_numbers<T>(3, 4);
  const auto dy = random_numbers<T>(3, 6);
  Matrix<T> y(3, 6);
  Matrix<T> dx(3, 4);
  Matrix<T> weight(6, 4);
  const auto ignore = [](std::string_view, auto&) {};
  const auto refused = [](const auto& call) {
    EXPECT_TRUE(throws<StateError>({"moved from"}, call));
  };
  refused([&] { (void)constant.forward(x); });
  refused([&] { constant.forward(x, y); });
  refused([&] { (void)constant.forward(x, saved); });
  refused([&] { constant.forward(x, saved, y); });
  refused([&] { (void)layer.backward(dy, saved); });
  refused([&] { layer.backward(dy, saved, dx); });
  refused([&] { layer.backward_parameters(dy, saved); });
  refused([&] { layer.merge(); });
  refused([&] { layer.unmerge(); });
  refused([&] { layer.merge_into(weight); });
  refused([&] { (void)constant.update(); });
  refused([&] { (void)layer.adapter(); });
  refused([&] { (void)constant.adapter(); });
  refused([&] { (void)constant.warnings(); });
  refused([&] { layer.visit_parameters(ignore); });
  refused([&] { constant.visit_parameters(ignore); });
  refused([&] { (void)mora::parameter_count(constant); });
  refused([&] { mora::zero_gradients(layer); });
  refused([&] { mora::Sgd<T>().step(layer); });
  refused([&] { mora::AdamW<T>().step(layer); });
  refused([&] { (void)constant.base().weight(); });
  refused([&] { (void)constant.base().read_weight(); });
  refused([&] { constant.base().read_weight(0, weight); });
  refused([&] { (void)constant.base().forward(x); });
  refused([&] { constant.base().forward(x, y); });
  refused([&] { constant.base().backward(dy, dx); });
}

TYPED_TEST(EveryLayer, RefusesEveryCallAfterBeingMovedFrom) {
  using T = typename TypeParam::Scalar;
  for (const bool merged : {false, true}) {
    TypeParam layer = make_layer<TypeParam>(4, 6);
    typename TypeParam::Saved saved;
    (void)layer.forward(random_numbers<T>(3, 4), saved);
    if (merged) layer.merge();
    const Bits before = bits_of(layer);
    TypeParam other = std::move(layer);
    expect_unusable(layer, saved);  // NOLINT(bugprone-use-after-move)
    EXPECT_EQ(bits_of(other), before);
    if (!merged) (void)other.backward(random_numbers<T>(3, 6), saved);

    TypeParam copy = layer;  // NOLINT(bugprone-use-after-move)
    expect_unusable(copy, saved);
    layer = std::move(other);  // As good as new.
    if (merged) {
      EXPECT_TRUE(layer.unmerge());
    }
    expect_works(layer);
  }
}

TYPED_TEST(EveryLayer, RefusesPartsThatWereMovedFrom) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  auto adapter = layer.adapter();
  const auto taken = std::move(adapter);
  EXPECT_TRUE(throws<mora::ShapeError>(  // NOLINTNEXTLINE(bugprone-use-after-move)
      {"expected ", "found 0"}, [&] { TypeParam(layer.base(), adapter); }));
  layer.adapter() = adapter;
  EXPECT_TRUE(throws<mora::ShapeError>({"expected ", "found 0"},
                                       [&] { (void)layer.forward(random_numbers<T>(3, 4)); }));

  mora::FrozenLinear<T> base = layer.base();
  const auto weight = std::move(base);
  EXPECT_TRUE(throws<StateError>(  // NOLINTNEXTLINE(bugprone-use-after-move)
      {"moved from"}, [&] { TypeParam(base, taken); }));
}

TYPED_TEST(EveryLayer, SurvivesBeingAssignedToItself) {
  TypeParam layer = make_layer<TypeParam>(4, 6);
  const Bits before = bits_of(layer);
  TypeParam& same = layer;
  layer = same;
  EXPECT_EQ(bits_of(layer), before);
  layer = std::move(same);
  EXPECT_EQ(bits_of(layer), before);
}

TYPED_TEST(EveryLayer, RefusesAFrozenLayerThatWasMovedFromBehindAnyAdapter) {
  using T = typename TypeParam::Scalar;
  const TypeParam layer = make_layer<TypeParam>(4, 6);
  mora::AnyAdapter<T> adapter(layer.adapter());
  mora::FrozenLinear<T> gone = layer.base();
  const mora::FrozenLinear<T> other = std::move(gone);
  const auto x = random_numbers<T>(3, 4);
  Matrix<T> y = Matrix<T>::Zero(3, 6);
  const auto refused = [](const auto& call) {
    EXPECT_TRUE(throws<StateError>({"moved from"}, call));
  };
  // NOLINTBEGIN(bugprone-use-after-move)
  refused([&] { (void)adapter.merged(gone); });
  refused([&] { (void)adapter.update(gone); });
  refused([&] {
    adapter.add_forward(gone, mora::detail::map_of(x), mora::detail::map_of(y), nullptr);
  });
  // NOLINTEND(bugprone-use-after-move)
}

TYPED_TEST(EveryLayer, HasIndependentCopies) {
  using T = typename TypeParam::Scalar;
  const auto x = random_numbers<T>(3, 4);
  TypeParam layer = make_layer<TypeParam>(4, 6);
  const Bits before = bits_of(layer);
  TypeParam copy = layer;
  EXPECT_EQ(bits_of(copy), before);
  EXPECT_EQ(copy.base().weight().data(), layer.base().weight().data());  // shared, as documented

  typename TypeParam::Saved saved;
  (void)copy.forward(x, saved);
  (void)copy.backward(random_numbers<T>(3, 6), saved);
  mora::Sgd<T>({.learning_rate = 0.1}).step(copy);
  EXPECT_EQ(bits_of(layer), before);
  const Bits trained = bits_of(copy);
  EXPECT_NE(trained, before);

  layer.visit_parameters([](std::string_view, auto& p) { p.value.setZero(); });
  EXPECT_EQ(bits_of(copy), trained);
  copy.merge();
  EXPECT_FALSE(layer.merged());
}

}  // namespace
}  // namespace mora_tests
