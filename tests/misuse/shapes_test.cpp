// SPDX-License-Identifier: MIT
#include <limits>
#include <mora/core/large_memory.hpp>
#include <new>

#include "support/layer_types.hpp"
#include "support/misuse.hpp"

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::FrozenLinear;
using mora::Matrix;
using mora::ShapeError;

constexpr Index huge = std::numeric_limits<Index>::max() / 2;

FrozenLinear<float> frozen(Index out, Index in) {
  static const float numbers[64] = {};
  return {numbers, out, in, nullptr};
}

TEST(FrozenLinear, RefusesSizesBelowOne) {
  EXPECT_TRUE(throws<ShapeError>({"in_features", "at least 1", "found 0"},
                                 [] { FrozenLinear<float> layer{Matrix<float>(6, 0)}; }));
  EXPECT_TRUE(throws<ShapeError>({"out_features", "at least 1", "found 0"},
                                 [] { FrozenLinear<float> layer{Matrix<float>(0, 4)}; }));
  const int in = -4;
  const int out = -6;
  EXPECT_TRUE(throws<ShapeError>({"in_features", "found -4"}, [&] { frozen(6, in); }));
  EXPECT_TRUE(throws<ShapeError>({"out_features", "found -6"}, [&] { frozen(out, 4); }));
}

TEST(FrozenLinear, RefusesAMapOfNothing) {
  EXPECT_TRUE(throws<ArgumentError>({"weight", "null"}, [] {
    FrozenLinear<float>(static_cast<const float*>(nullptr), 6, 4, nullptr);
  }));
  EXPECT_TRUE(throws<ArgumentError>({"weight", "null"}, [] {
    FrozenLinear<float>(Eigen::Map<const Matrix<float>>(nullptr, 6, 4));
  }));
}

TEST(Layers, RefuseNumbersThatAreNowhere) {
  mora::MoraLinear<float> layer(random_numbers<float>(6, 4), {.rank = 1});
  mora::MoraLinear<float>::Saved saved;
  const Eigen::Map<const Matrix<float>> no_x(nullptr, 3, 4), no_dy(nullptr, 3, 6);
  Eigen::Map<Matrix<float>> no_y(nullptr, 3, 6), no_dx(nullptr, 3, 4);
  Matrix<float> x = random_numbers<float>(3, 4);
  Matrix<float> y(3, 6);
  const auto null = [](const char* what, const auto& call) {
    EXPECT_TRUE(throws<ArgumentError>({what, "null"}, call));
  };
  null("x", [&] { (void)layer.forward(no_x); });
  null("input", [&] { layer.forward(no_x, y); });
  null("result", [&] { layer.forward(x, no_y); });
  null("x", [&] { (void)layer.forward(no_x, saved); });
  y = layer.forward(x, saved);
  null("dy", [&] { (void)layer.backward(no_dy, saved); });
  null("dy", [&] { layer.backward_parameters(no_dy, saved); });
  null("result", [&] { layer.backward(y, saved, no_dx); });
  Eigen::Map<Matrix<float>> no_weight(nullptr, 6, 4);
  null("merge_into", [&] { layer.merge_into(no_weight); });
  null("read_weight", [&] { layer.base().read_weight(0, no_weight); });
  // Where a copy would be made of it first.
  using Gaps = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  null("matrix", [&] {
    (void)layer.forward(Eigen::Map<const Matrix<float>, 0, Gaps>(nullptr, 3, 4, Gaps(8, 2)));
  });
  // And what was saved is still there.
  x = layer.backward(y, saved);
  // No tokens need no memory.
  EXPECT_EQ(layer.forward(Eigen::Map<const Matrix<float>>(nullptr, 0, 4)).rows(), 0);
}

// Before memory is asked for, and without a frozen layer that would refuse them first.
TEST(LoraAdapter, RefusesSizesThatCannotBe) {
  mora::SplitMix64 generator(1);
  const auto refused = [&](Index in, Index out, Index rank, const char* what) {
    EXPECT_TRUE(throws<ShapeError>(
        {what}, [&] { mora::LoraAdapter<float>(in, out, {.rank = rank}, generator); }))
        << in << ", " << out;
  };
  refused(0, 4, 1, "in_features");
  refused(4, -1, 1, "out_features");
  constexpr Index many = Index{1} << 40;
  refused(many, many, 1, "memory");
  // A and B alone, where the weight could be counted.
  constexpr Index large = Index{1} << 57;
  refused(large, 1, 8, "8 x 144115188075855872 numbers are more than memory");
  refused(1, large, 8, "144115188075855872 x 8 numbers are more than memory");
}

TEST(MissAdapter, RefusesSizesThatCannotBe) {
  const auto refused = [&](Index in, Index out, Index rank, const char* what) {
    EXPECT_TRUE(
        throws<ShapeError>({what}, [&] { mora::MissAdapter<float>(in, out, {.rank = rank}); }))
        << in << ", " << out;
  };
  refused(0, 4, 1, "in_features");
  refused(4, -1, 1, "out_features");
  constexpr Index many = Index{1} << 40;
  refused(many, many, 1, "1099511627776 x 1099511627776 numbers are more than memory");
  refused(1, Index{1} << 57, 8, "144115188075855872 x 8 numbers are more than memory");
  for (const Index rank : {Index{0}, Index{-3}, mora::max_rank + 1}) {
    EXPECT_TRUE(throws<ArgumentError>({"rank", "1 to 1000000", "found " + std::to_string(rank)},
                                      [&] { mora::MissAdapter<float>(4, 6, {.rank = rank}); }));
  }
}

// AddressSanitizer ends the program instead, but for its option in the presets.
TEST(LargeMemory, IsRefusedWhereThereIsNone) {
  EXPECT_TRUE(throws<std::bad_alloc>(
      {}, [] { (void)mora::detail::allocate_large<float>(Index{1} << 60); }));
}

TEST(FrozenLinear, RefusesRowsWithGaps) {
  const Matrix<float> wide = random_numbers<float>(6, 8);
  using Gaps = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  const Eigen::Map<const Matrix<float>, 0, Gaps> gaps(wide.data(), 6, 4, Gaps(8, 2));
  EXPECT_TRUE(throws<ShapeError>({"weight", "inner stride of 2"},
                                 [&] { FrozenLinear<float> layer(gaps); }));
}

TEST(FrozenLinear, RefusesAnAddressBetweenTwoNumbers) {
  alignas(double) const char file[64] = {};
  const auto* const between = reinterpret_cast<const double*>(file + 4);
  EXPECT_TRUE(throws<ArgumentError>({"weight", "multiple of 8"},
                                    [&] { FrozenLinear<double>(between, 2, 2, nullptr); }));
}

TEST(FrozenLinear, RefusesABiasOfAnotherLength) {
  EXPECT_TRUE(throws<ShapeError>({"bias", "out_features", "expected 6", "found 4"}, [] {
    FrozenLinear<float>(random_numbers<float>(6, 4), mora::RowVector<float>::Zero(4));
  }));
}

TEST(FrozenLinear, RefusesMatricesOfAnotherShape) {
  const FrozenLinear<float> layer(random_numbers<float>(6, 4));
  const auto x = random_numbers<float>(3, 4);
  const auto dy = random_numbers<float>(3, 6);
  const auto wide = random_numbers<float>(3, 40);
  Matrix<float> y = Matrix<float>::Ones(3, 6);
  Matrix<float> dx = Matrix<float>::Ones(3, 4);
  Matrix<float> tall = Matrix<float>::Ones(5, 6);
  EXPECT_TRUE(throws<ShapeError>({"columns of x", "expected 4", "found 40"},
                                 [&] { layer.forward(wide, y); }));
  EXPECT_TRUE(throws<ShapeError>({"columns of x", "found 40"}, [&] { (void)layer.forward(wide); }));
  EXPECT_TRUE(throws<ShapeError>({"columns of dy", "expected 6", "found 40"},
                                 [&] { layer.backward(wide, dx); }));
  EXPECT_TRUE(
      throws<ShapeError>({"columns of dy", "found 40"}, [&] { (void)layer.backward(wide); }));
  EXPECT_TRUE(throws<ShapeError>({"result, rows", "expected 3", "found 5"},
                                 [&] { layer.forward(x, tall); }));
  EXPECT_TRUE(throws<ShapeError>({"result, columns", "expected 4", "found 6"},
                                 [&] { layer.backward(dy, y); }));
  EXPECT_TRUE((y.array() == 1.0f).all() && (dx.array() == 1.0f).all() &&
              (tall.array() == 1.0f).all());
  layer.forward(x, y);
  layer.backward(dy, dx);
  EXPECT_TRUE(same_bits(y, layer.forward(x)));
  EXPECT_TRUE(near(dx, dy * layer.weight()));
}

TEST(FrozenLinear, LeavesAMatrixThatItRefusesToTheCaller) {
  const auto weight = random_numbers<float>(6, 4);
  Matrix<float> moved = weight;
  EXPECT_TRUE(throws<ShapeError>(
      {"bias"}, [&] { FrozenLinear<float>(std::move(moved), mora::RowVector<float>::Zero(4)); }));
  EXPECT_TRUE(same_bits(moved, weight));  // NOLINT(bugprone-use-after-move)
  const FrozenLinear<float> frozen(std::move(moved));
  EXPECT_TRUE(same_bits(frozen.weight(), weight));
  // A handle of the caller's outlives settings that are refused.
  EXPECT_THROW((mora::MoraLinear<float>(frozen, {.rank = 0})), ArgumentError);
  EXPECT_TRUE(same_bits(frozen.weight(), weight));
}

TEST(FrozenLinear, RefusesAWeightBeyondMemory) {
  EXPECT_TRUE(throws<ShapeError>({"weight", "2147483648 x 1099511627776"},
                                 [] { frozen(Index{1} << 31, Index{1} << 40); }));
  EXPECT_TRUE(throws<ShapeError>({"weight"}, [] { frozen(1, huge); }));
  EXPECT_TRUE(throws<ShapeError>({"weight"}, [] { frozen(huge, 1); }));
}

TEST(Adapters, RefuseShapesThatCannotBe) {
  Random random(1);
  for (const Index wrong : {Index{0}, Index{-4}, huge}) {
    const std::string number = wrong == huge ? "memory" : std::to_string(wrong);
    const auto refused = [&](Index in, Index out, const char* name) {
      EXPECT_TRUE(throws<ShapeError>({wrong == huge ? "weight" : name, number},
                                     [&] { mora::MoraAdapter<float>(in, out); }));
      EXPECT_TRUE(throws<ShapeError>({wrong == huge ? "weight" : name, number}, [&] {
        mora::LoraAdapter<float>(in, out, {}, random.generator());
      }));
    };
    refused(wrong, 6, "in_features");
    refused(4, wrong, "out_features");
  }
}

TYPED_TEST(EveryLayer, WorksWithOneInputOrOneOutput) {
  expect_works(make_layer<TypeParam>(1, 9, 2));
  expect_works(make_layer<TypeParam>(9, 1, 2));
}

TYPED_TEST(EveryLayer, WorksOnNoTokensAndOnOne) {
  expect_works(make_layer<TypeParam>(5, 4), 0);
  expect_works(make_layer<TypeParam>(5, 4), 1);
}

TYPED_TEST(EveryLayer, RefusesAnInputOfAnotherWidth) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  typename TypeParam::Saved saved;
  Matrix<T> y = Matrix<T>::Ones(3, 6);
  const Matrix<T> before = y;
  for (const Index wrong : {0, 3, 5, 6}) {
    const auto x = random_numbers<T>(3, wrong);
    const std::string found = "found " + std::to_string(wrong);
    EXPECT_TRUE(refuses<ShapeError>(layer, {"in_features", "expected 4", found},
                                    [&] { (void)layer.forward(x); }));
    EXPECT_TRUE(refuses<ShapeError>(layer, {"expected 4", found}, [&] { layer.forward(x, y); }));
    EXPECT_TRUE(
        refuses<ShapeError>(layer, {"expected 4", found}, [&] { (void)layer.forward(x, saved); }));
    EXPECT_TRUE(
        refuses<ShapeError>(layer, {"expected 4", found}, [&] { layer.forward(x, saved, y); }));
    EXPECT_TRUE(refuses<ShapeError>(layer, {"in_features", "expected 4", found},
                                    [&] { (void)layer.base().forward(x); }));
  }
  EXPECT_TRUE(same_bits(y, before));
}

TYPED_TEST(EveryLayer, RefusesAResultOfAnotherShape) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  const auto x = random_numbers<T>(3, 4);
  const auto dy = random_numbers<T>(3, 6);
  typename TypeParam::Saved saved;
  (void)layer.forward(x, saved);
  Matrix<T> wide = Matrix<T>::Ones(3, 7);
  Matrix<T> tall = Matrix<T>::Ones(4, 6);
  Matrix<T> tall_dx = Matrix<T>::Ones(2, 4);
  EXPECT_TRUE(refuses<ShapeError>(layer, {"result, columns", "expected 6", "found 7"},
                                  [&] { layer.forward(x, wide); }));
  EXPECT_TRUE(refuses<ShapeError>(layer, {"result, rows", "expected 3", "found 4"},
                                  [&] { layer.forward(x, tall); }));
  EXPECT_TRUE(refuses<ShapeError>(layer, {"result, columns", "expected 4", "found 7"},
                                  [&] { layer.backward(dy, saved, wide); }));
  EXPECT_TRUE(refuses<ShapeError>(layer, {"result, rows", "expected 3", "found 2"},
                                  [&] { layer.backward(dy, saved, tall_dx); }));
  EXPECT_TRUE(refuses<ShapeError>(layer, {"merge_into, rows", "expected 6", "found 3"},
                                  [&] { layer.merge_into(wide); }));
  EXPECT_TRUE(refuses<ShapeError>(layer, {"merge_into, columns", "expected 4", "found 6"}, [&] {
    Matrix<T> square = Matrix<T>::Ones(6, 6);
    layer.merge_into(square);
  }));
  EXPECT_TRUE((wide.array() == T(1)).all());
  EXPECT_TRUE((tall.array() == T(1)).all());
  EXPECT_TRUE((tall_dx.array() == T(1)).all());
  layer.backward_parameters(dy, saved);  // The forward pass is still good.
}

TYPED_TEST(EveryLayer, RefusesAnAdapterForATransposedWeight) {
  using T = typename TypeParam::Scalar;
  const TypeParam layer = make_layer<TypeParam>(4, 6);
  const FrozenLinear<T> transposed(random_numbers<T>(4, 6));
  EXPECT_TRUE(throws<ShapeError>({"in_features", "expected 6", "found 4"},
                                 [&] { TypeParam(transposed, layer.adapter()); }));
  const FrozenLinear<T> taller(random_numbers<T>(7, 4));
  EXPECT_TRUE(throws<ShapeError>({"out_features", "expected 7", "found 6"},
                                 [&] { TypeParam(taller, layer.adapter()); }));
}

// The bias trains in place of the frozen layer's: with only one of them, the merged layer would be
// another than the adapted one.
TEST(FullLinear, RefusesABiasWithoutOneBelowItAndNoneAboveOne) {
  using Layer = mora::FullLinear<double>;
  const auto weight = random_numbers<double>(6, 4);
  const FrozenLinear<double> bare(weight);
  const FrozenLinear<double> biased(weight, mora::RowVector<double>::Constant(6, 5.0));
  const auto x = random_numbers<double>(3, 4);
  EXPECT_TRUE(throws<ShapeError>({"bias, length", "expected 6", "found 0"},
                                 [&] { Layer(biased, mora::FullAdapter<double>(bare)); }));
  EXPECT_TRUE(throws<ShapeError>({"bias, length", "expected 0", "found 6"},
                                 [&] { Layer(bare, mora::FullAdapter<double>(biased)); }));

  const auto refused = [&](Layer& layer, auto&&... parts) {
    typename Layer::Saved saved;
    Matrix<double> target = weight;
    EXPECT_TRUE(throws<ShapeError>({parts...}, [&] { (void)layer.forward(x); }));
    EXPECT_TRUE(throws<ShapeError>({parts...}, [&] { (void)layer.forward(x, saved); }));
    EXPECT_TRUE(throws<ShapeError>({parts...}, [&] { layer.merge(); }));
    EXPECT_TRUE(throws<ShapeError>({parts...}, [&] { layer.merge_into(target); }));
    EXPECT_TRUE(throws<ShapeError>({parts...}, [&] { (void)layer.update(); }));
    EXPECT_FALSE(layer.merged());
    EXPECT_TRUE(same_bits(target, weight));
  };
  Layer layer(biased);
  layer.adapter().bias().value.resize(0, 0);
  refused(layer, "bias, length", "expected 6", "found 0");
  // Of which the first row alone would be taken.
  layer.adapter().bias().value.setOnes(2, 6);
  refused(layer, "bias, rows", "expected 1", "found 2");
  layer.adapter().bias().value.setOnes(1, 6);
  const Matrix<double> y = layer.forward(x);
  ASSERT_TRUE(layer.merge());
  EXPECT_TRUE(near(layer.forward(x), y));

  Layer without(bare);
  without.adapter().bias().value.setOnes(1, 6);
  refused(without, "bias, length", "expected 0", "found 6");
  without.adapter().bias().value.resize(0, 0);
  expect_works(without);
}

// Another shape can come in by way of the adapter itself, which may be changed freely.
TYPED_TEST(EveryLayer, RefusesToComputeWithParametersOfAnotherShape) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  const auto x = random_numbers<T>(3, 4);
  const auto dy = random_numbers<T>(3, 6);
  typename TypeParam::Saved saved;
  (void)layer.forward(x, saved);
  const auto refused = [&](const TypeParam& original, auto&&... parts) {
    Matrix<T> target = original.base().weight();
    EXPECT_TRUE(throws<ShapeError>({parts...}, [&] { (void)layer.forward(x); }));
    EXPECT_TRUE(throws<ShapeError>({parts...}, [&] { layer.backward_parameters(dy, saved); }));
    EXPECT_TRUE(throws<ShapeError>({parts...}, [&] { (void)layer.backward(dy, saved); }));
    EXPECT_TRUE(throws<ShapeError>({parts...}, [&] { layer.merge(); }));
    EXPECT_TRUE(throws<ShapeError>({parts...}, [&] { layer.merge_into(target); }));
    EXPECT_TRUE(throws<ShapeError>({parts...}, [&] { (void)layer.update(); }));
    EXPECT_FALSE(layer.merged());
    EXPECT_TRUE(same_bits(target, original.base().weight()));
  };
  const TypeParam original = layer;
  const auto restore = [&] { layer.adapter() = original.adapter(); };
  int parameters = 0;
  layer.visit_parameters([&](std::string_view, auto&) { ++parameters; });
  for (int parameter = 0; parameter < parameters; ++parameter) {
    for (const bool taller : {true, false}) {
      int i = 0;
      layer.visit_parameters([&](std::string_view, auto& p) {
        if (i++ == parameter) p.value.setOnes(p.value.rows() + taller, p.value.cols() + !taller);
      });
      refused(original, "expected ", ", found ");
      restore();
    }
  }
  layer.adapter() = make_layer<TypeParam>(5, 6).adapter();
  refused(original, "4", "5");
  layer.adapter() = make_layer<TypeParam>(4, 7).adapter();
  refused(original, "6", "7");
  restore();
  EXPECT_EQ(bits_of(layer), bits_of(original));
}

}  // namespace
}  // namespace mora_tests
