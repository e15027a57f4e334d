// SPDX-License-Identifier: MIT
// Results may not lie over memory that is still read; beside it they may.
#include <concepts>

#include "support/layer_types.hpp"
#include "support/misuse.hpp"

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::Matrix;

template <class T>
using Rows = Eigen::Map<Matrix<T>, 0, Eigen::OuterStride<>>;

/// A map over memory that the library has and shows as const.
template <class Derived>
[[nodiscard]] auto mutable_map(const Eigen::DenseBase<Derived>& x) {
  using T = typename Derived::Scalar;
  return Rows<T>(const_cast<T*>(x.derived().data()), x.rows(), x.cols(),
                 Eigen::OuterStride<>(x.derived().outerStride()));
}

TYPED_TEST(EveryLayer, RefusesToWriteOverItsInput) {
  using T = typename TypeParam::Scalar;
  const TypeParam layer = make_layer<TypeParam>(5, 5);
  const auto before = random_numbers<T>(3, 5);
  Matrix<T> x = before;
  typename TypeParam::Saved saved;
  EXPECT_TRUE(refuses<ArgumentError>(layer, {"result", "overlaps"}, [&] { layer.forward(x, x); }));
  EXPECT_TRUE(
      refuses<ArgumentError>(layer, {"result", "overlaps"}, [&] { layer.forward(x, saved, x); }));
  EXPECT_TRUE(same_bits(x, before));
}

TEST(FrozenLinear, RefusesToWriteOverWhatItReads) {
  Matrix<float> weight = random_numbers<float>(5, 5);
  const Matrix<float> before = weight;
  const mora::FrozenLinear<float> layer(weight);
  Matrix<float> x = random_numbers<float>(5, 5);
  const auto refused = [](const auto& call) {
    EXPECT_TRUE(throws<ArgumentError>({"result", "overlaps"}, call));
  };
  refused([&] { layer.forward(x, x); });
  refused([&] { layer.backward(x, x); });
  refused([&] { layer.forward(x, weight); });
  refused([&] { layer.backward(x, weight); });
  EXPECT_TRUE(same_bits(weight, before));
  EXPECT_TRUE(same_bits(x, random_numbers<float>(5, 5)));
}

TYPED_TEST(EveryLayer, RefusesAResultThatOverlapsABlockOfItsInput) {
  using T = typename TypeParam::Scalar;
  const TypeParam layer = make_layer<TypeParam>(4, 6);
  const auto before = random_numbers<T>(9, 20);
  Matrix<T> all = before;
  const auto refused = [&](const auto& x, auto y) {
    EXPECT_TRUE(refuses<ArgumentError>(layer, {"overlaps"}, [&] { layer.forward(x, y); }));
    EXPECT_TRUE(same_bits(all, before));
  };
  refused(all.block(0, 0, 3, 4), all.block(0, 3, 3, 6));  // one column
  refused(all.block(0, 3, 3, 4), all.block(2, 0, 3, 6));  // the last row with the first
  refused(all.block(2, 8, 3, 4), all.block(0, 3, 3, 6));  // one corner
  refused(all.block(4, 4, 3, 4), all.block(4, 3, 3, 6));  // inside
  refused(Rows<T>(&all(0, 0), 3, 4, Eigen::OuterStride<>(40)), all.block(0, 0, 3, 6));
}

TYPED_TEST(EveryLayer, RefusesAResultOverAnInputWhoseRowsGoBackwards) {
  using T = typename TypeParam::Scalar;
  const TypeParam layer = make_layer<TypeParam>(4, 6);
  Matrix<T> all = random_numbers<T>(12, 6);
  using Backwards = Eigen::Map<const Matrix<T>, 0, Eigen::OuterStride<>>;
  const Backwards x(&all(8, 0), 3, 4, Eigen::OuterStride<>(-6));  // rows 8, 7 and 6
  for (const Index row : {4, 5, 6, 7, 8}) {
    EXPECT_TRUE(refuses<ArgumentError>(layer, {"result", "overlaps"},
                                       [&] { layer.forward(x, all.middleRows(row, 3)); }));
  }
  const Matrix<T> expected = layer.forward(Matrix<T>(x));
  for (const Index row : {3, 9}) {
    layer.forward(x, all.middleRows(row, 3));
    EXPECT_TRUE(near(all.middleRows(row, 3), expected));
  }
}

TYPED_TEST(EveryLayer, WritesBesideItsInput) {
  using T = typename TypeParam::Scalar;
  const TypeParam layer = make_layer<TypeParam>(4, 6);
  Matrix<T> all = random_numbers<T>(9, 20);
  const auto works = [&](const auto& x, auto y) {
    const Matrix<T> expected = layer.forward(Matrix<T>(x));
    layer.forward(x, y);
    EXPECT_TRUE(same_bits(y, expected));
  };
  works(all.block(0, 0, 3, 4), all.block(0, 4, 3, 6));
  works(all.block(3, 6, 3, 4), all.block(3, 0, 3, 6));
  works(all.block(3, 0, 3, 4), all.block(0, 0, 3, 6));
  // The odd rows beside the even ones, and a result whose rows lie between those of the input.
  works(Rows<T>(&all(0, 0), 3, 4, Eigen::OuterStride<>(40)),
        Rows<T>(&all(1, 0), 3, 6, Eigen::OuterStride<>(40)));
  works(Rows<T>(&all(0, 8), 3, 4, Eigen::OuterStride<>(20)),
        Rows<T>(&all(0, 12), 3, 6, Eigen::OuterStride<>(20)));
}

TYPED_TEST(EveryLayer, EvaluatesAnExpressionOnceAndBeforeItWrites) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(5, 5);
  const auto numbers = random_numbers<T>(3, 5);
  const Matrix<T> expected = layer.forward(Matrix<T>(T(2) * numbers));
  int evaluated = 0;
  const auto counted = numbers.unaryExpr([&](T value) {
    ++evaluated;
    return T(2) * value;
  });
  EXPECT_TRUE(same_bits(layer.forward(counted), expected));
  EXPECT_EQ(evaluated, numbers.size());
  typename TypeParam::Saved saved;
  EXPECT_TRUE(same_bits(layer.forward(counted, saved), expected));
  EXPECT_EQ(evaluated, 2 * numbers.size());
  (void)layer.backward(counted, saved);
  EXPECT_EQ(evaluated, 3 * numbers.size());

  Matrix<T> x = numbers;
  layer.forward(T(2) * x, x);  // The copy is read, hence x may be written.
  EXPECT_TRUE(same_bits(x, expected));
}

// What `forward` saved must not refer to an argument that is gone.
TYPED_TEST(EveryLayer, KeepsNothingOfATemporaryInput) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  TypeParam twin = layer;
  typename TypeParam::Saved saved;
  typename TypeParam::Saved saved_by_twin;
  const auto x = random_numbers<T>(3, 4);
  const auto dy = random_numbers<T>(3, 6);
  {
    Matrix<T> temporary = x;
    (void)layer.forward(temporary, saved);
    temporary.setConstant(T(100));
  }
  (void)twin.forward(x, saved_by_twin);
  EXPECT_TRUE(same_bits(layer.backward(Matrix<T>(dy), saved), twin.backward(dy, saved_by_twin)));
  EXPECT_EQ(bits_of(layer), bits_of(twin));
}

TYPED_TEST(EveryLayer, RefusesAnInputGradientOverMemoryThatIsRead) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 4, 2);
  typename TypeParam::Saved saved;
  const auto dy_before = random_numbers<T>(4, 4);
  Matrix<T> dy = dy_before;
  (void)layer.forward(random_numbers<T>(4, 4), saved);
  (void)layer.backward(dy, saved);  // so that there are gradients
  (void)layer.forward(random_numbers<T>(4, 4), saved);
  const auto refused = [&](auto dx) {
    EXPECT_TRUE(
        refuses<ArgumentError>(layer, {"overlaps"}, [&] { layer.backward(dy, saved, dx); }));
    EXPECT_TRUE(same_bits(dy, dy_before));
  };
  refused(dy.block(0, 0, 4, 4));
  refused(mutable_map(layer.base().weight()));
  layer.visit_parameters([&](std::string_view, auto& p) {
    for (Matrix<T>* const matrix : {&p.value, &p.gradient}) {
      // Four rows that begin with the parameter and would end beyond it.
      refused(Rows<T>(matrix->data(), 4, 4, Eigen::OuterStride<>(matrix->size())));
    }
  });
  (void)layer.backward(dy, saved);
}

TYPED_TEST(EveryLayer, RefusesAnOutputGradientThatIsAParametersGradient) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 4, 2);
  typename TypeParam::Saved saved;
  const auto x = random_numbers<T>(1, 4);
  (void)layer.forward(x, saved);
  (void)layer.backward(random_numbers<T>(1, 4), saved);
  (void)layer.forward(x, saved);
  layer.visit_parameters([&](std::string_view, auto& p) {
    const Eigen::Map<const Matrix<T>> dy(p.gradient.data(), 1, 4);
    EXPECT_TRUE(refuses<ArgumentError>(layer, {"backward", "gradient", "overlaps"},
                                       [&] { (void)layer.backward(dy, saved); }));
    EXPECT_TRUE(refuses<ArgumentError>(layer, {"backward", "gradient", "overlaps"},
                                       [&] { layer.backward_parameters(dy, saved); }));
  });
  (void)layer.backward(random_numbers<T>(1, 4), saved);
}

TYPED_TEST(EveryLayer, RefusesAResultOverAWeightOrParameter) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 4, 2);
  const auto x = random_numbers<T>(4, 4);
  const auto refused = [&](auto y) {
    EXPECT_TRUE(refuses<ArgumentError>(layer, {"overlaps"}, [&] { layer.forward(x, y); }));
  };
  refused(mutable_map(layer.base().weight()));
  layer.visit_parameters([&](std::string_view, auto& p) {
    refused(Rows<T>(p.value.data(), 4, 4, Eigen::OuterStride<>(p.value.size())));
  });
}

TYPED_TEST(EveryLayer, RefusesResultsWhoseRowsOverlapEachOther) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  const auto x = random_numbers<T>(3, 4);
  const auto before = random_numbers<T>(6, 6);
  for (const Index stride : {1, 3}) {
    Matrix<T> memory = before;
    const std::string number = std::to_string(stride);
    Rows<T> y(memory.data(), 3, 6, Eigen::OuterStride<>(stride));
    EXPECT_TRUE(refuses<ArgumentError>(layer, {"result", "rows of 6", "overlap", number},
                                       [&] { layer.forward(x, y); }));
    Rows<T> weight(memory.data(), 6, 4, Eigen::OuterStride<>(stride));
    EXPECT_TRUE(refuses<ArgumentError>(layer, {"merge_into", "rows of 4", "overlap", number},
                                       [&] { layer.merge_into(weight); }));
    EXPECT_TRUE(same_bits(memory, before));
    // As an input they are a window that moves over its numbers.
    const Rows<T> window(memory.data(), 3, 4, Eigen::OuterStride<>(stride));
    EXPECT_TRUE(same_bits(layer.forward(window), layer.forward(Matrix<T>(window))));
  }
}

TYPED_TEST(EveryLayer, RefusesToMergeOverItsAdapter) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 4, 2);
  layer.visit_parameters([&](std::string_view, auto& p) {
    p.gradient = p.value;
    for (Matrix<T>* const matrix : {&p.value, &p.gradient}) {
      Rows<T> target(matrix->data(), 4, 4, Eigen::OuterStride<>(matrix->size()));
      EXPECT_TRUE(refuses<ArgumentError>(layer, {"merge_into", "overlaps"},
                                         [&] { layer.merge_into(target); }));
    }
  });
}

TYPED_TEST(EveryLayer, RefusesToMergeHalfOverTheFrozenWeight) {
  using T = typename TypeParam::Scalar;
  const auto before = random_numbers<T>(14, 8);
  Matrix<T> all = before;
  TypeParam layer(mora::FrozenLinear<T>(all.block(3, 2, 6, 4), mora::RowVector<T>::Zero(6)),
                  make_layer<TypeParam>(4, 6).adapter());
  for (const Index row : {0, 2, 4, 8}) {
    EXPECT_TRUE(refuses<ArgumentError>(layer, {"merge_into", "overlaps"},
                                       [&] { layer.merge_into(all.block(row, 2, 6, 4)); }));
  }
  EXPECT_TRUE(refuses<ArgumentError>(layer, {"merge_into", "overlaps"},
                                     [&] { layer.merge_into(all.block(3, 3, 6, 4)); }));
  EXPECT_TRUE(same_bits(all, before));
}

/// An `auto` never holds an expression that refers to something gone.
template <class Layer, class Result = Matrix<typename Layer::Scalar>>
concept ReturnsMatrices = requires(Layer& layer, const Layer& constant, Result& x,
                                   typename Layer::Saved& saved) {
  { constant.forward(x) } -> std::same_as<Result>;
  { constant.forward(x, saved) } -> std::same_as<Result>;
  { constant.update() } -> std::same_as<Result>;
  { constant.base().forward(x) } -> std::same_as<Result>;
  { layer.backward(x, saved) } -> std::same_as<Result>;
};

TYPED_TEST(EveryLayer, ReturnsMatricesAndNoExpressions) {
  static_assert(ReturnsMatrices<TypeParam>);
}

}  // namespace
}  // namespace mora_tests
