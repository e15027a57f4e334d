// SPDX-License-Identifier: MIT
#include "support/layer_types.hpp"
#include "support/misuse.hpp"

namespace mora_tests {
namespace {

template <class Layer>
[[nodiscard]] Layer make_layer_with_gradients(Index in, Index out) {
  using T = typename Layer::Scalar;
  Layer layer = make_layer<Layer>(in, out);
  typename Layer::Saved saved;
  (void)layer.forward(random_numbers<T>(3, in), saved);
  layer.backward_parameters(random_numbers<T>(3, out), saved);
  return layer;
}

TYPED_TEST(EveryLayer, IsNotSteppedWithTheMomentsOfAnotherShape) {
  using T = typename TypeParam::Scalar;
  const auto check = [](auto optimizer, auto twin) {
    TypeParam first = make_layer_with_gradients<TypeParam>(9, 7);
    TypeParam expected = first;
    TypeParam other = make_layer_with_gradients<TypeParam>(40, 31);
    optimizer.step(first);
    twin.step(expected);
    EXPECT_TRUE(refuses<mora::ShapeError>(other, {"optimizer state of ", "expected ", "found "},
                                          [&] { optimizer.step(other); }));
    optimizer.step(first);
    twin.step(expected);
    EXPECT_EQ(bits_of(first), bits_of(expected));
  };
  check(mora::AdamW<T>(), mora::AdamW<T>());
  check(mora::Sgd<T>({.momentum = 0.9}), mora::Sgd<T>({.momentum = 0.9}));
}

TYPED_TEST(EveryLayer, IsNotSteppedWithAGradientOfAnotherShape) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer_with_gradients<TypeParam>(9, 7);
  layer.visit_parameters([](std::string_view, auto& p) { p.gradient.setOnes(2, 9); });
  EXPECT_TRUE(refuses<mora::ShapeError>(layer, {"gradient of ", "expected ", "found 2x9"},
                                        [&] { mora::AdamW<T>().step(layer); }));
  EXPECT_TRUE(refuses<mora::ShapeError>(layer, {"gradient of ", "expected ", "found 2x9"},
                                        [&] { mora::Sgd<T>().step(layer); }));
}

}  // namespace
}  // namespace mora_tests
