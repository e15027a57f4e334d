// SPDX-License-Identifier: MIT
// However a batch lies in memory, the result is the same.
#include "support/layer_types.hpp"
#include "support/misuse.hpp"

namespace mora_tests {
namespace {

using mora::Matrix;

template <class T>
using ColumnMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;

TYPED_TEST(EveryLayer, ReadsEveryLayoutOfTheInput) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  const auto x = random_numbers<T>(3, 4);
  const Matrix<T> y = layer.forward(x);
  const auto same = [&](const auto& view) { EXPECT_TRUE(same_bits(layer.forward(view), y)); };

  const ColumnMajor<T> columns = x.transpose();  // [in, tokens]
  same(columns.transpose());
  Matrix<T> large = random_numbers<T>(7, 9);
  large.block(2, 5, 3, 4) = x;
  same(large.block(2, 5, 3, 4));
  same(Eigen::Map<const Matrix<T>, 0, Eigen::OuterStride<>>(&large(2, 5), 3, 4,
                                                            Eigen::OuterStride<>(9)));
  std::vector<T> unaligned(13);
  Eigen::Map<Matrix<T>>(unaligned.data() + 1, 3, 4) = x;
  same(Eigen::Map<const Matrix<T>>(unaligned.data() + 1, 3, 4));
  const Eigen::Ref<const Matrix<T>> reference(x);
  same(reference);
  // Copied: rows with gaps, and what is not memory.
  Matrix<T> wide = random_numbers<T>(3, 8);
  using Gaps = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  Eigen::Map<Matrix<T>, 0, Gaps> gaps(wide.data(), 3, 4, Gaps(8, 2));
  gaps = x;
  same(gaps);
  same(x * T(1));
  same(columns.transpose() + Matrix<T>::Zero(3, 4));
}

TYPED_TEST(EveryLayer, ReadsOneTokenAsAnyVector) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  const auto x = random_numbers<T>(1, 4);
  const Matrix<T> y = layer.forward(x);
  const ColumnMajor<T> columns = x.transpose().replicate(1, 3);
  const Eigen::Matrix<T, 1, Eigen::Dynamic> row = x;
  const Eigen::Matrix<T, 4, 1> fixed = x.transpose();
  const ColumnMajor<T> rows = x.replicate(3, 1);
  EXPECT_TRUE(same_bits(layer.forward(row), y));
  EXPECT_TRUE(same_bits(layer.forward(columns.col(1).transpose()), y));
  EXPECT_TRUE(same_bits(layer.forward(fixed.transpose()), y));
  EXPECT_TRUE(same_bits(layer.forward(rows.row(1)), y));  // an inner stride of 3
}

TYPED_TEST(EveryLayer, ReadsOneFeatureAsAColumn) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(1, 6);
  const auto x = random_numbers<T>(5, 1);
  const Matrix<T> y = layer.forward(x);
  const Eigen::Matrix<T, Eigen::Dynamic, 1> column = x;
  const Matrix<T> wide = x.replicate(1, 4);
  EXPECT_TRUE(same_bits(layer.forward(column), y));
  EXPECT_TRUE(same_bits(layer.forward(wide.col(2)), y));
}

TYPED_TEST(EveryLayer, WritesIntoMapsAndBlocks) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 6);
  const auto x = random_numbers<T>(3, 4);
  const Matrix<T> y = layer.forward(x);
  const Matrix<T> original = random_numbers<T>(5, 9);
  Matrix<T> expected = original;
  expected.block(1, 2, 3, 6) = y;

  Matrix<T> large = original;
  layer.forward(x, large.block(1, 2, 3, 6));
  EXPECT_TRUE(same_bits(large, expected));
  large = original;
  layer.forward(x, Eigen::Map<Matrix<T>, 0, Eigen::OuterStride<>>(&large(1, 2), 3, 6,
                                                                  Eigen::OuterStride<>(9)));
  EXPECT_TRUE(same_bits(large, expected));
}

TYPED_TEST(EveryLayer, WritesOneOutputIntoAColumn) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(4, 1);
  const auto x = random_numbers<T>(3, 4);
  Eigen::Matrix<T, Eigen::Dynamic, 1> y(3);
  layer.forward(x, y);
  EXPECT_TRUE(same_bits(y, layer.forward(x)));
  // One token's row is no column.
  Eigen::Matrix<T, Eigen::Dynamic, 1> wrong = Eigen::Matrix<T, Eigen::Dynamic, 1>::Ones(3);
  EXPECT_TRUE(throws<mora::ShapeError>({"expected 1", "found 3"},
                                       [&] { layer.forward(x.topRows(1), wrong); }));
}

TYPED_TEST(EveryLayer, ReadsTheWeightInPlaceFromEveryLayout) {
  using T = typename TypeParam::Scalar;
  const TypeParam layer = make_layer<TypeParam>(4, 6);
  const Matrix<T> w = layer.base().weight();
  const ColumnMajor<T> columns = w.transpose();  // [in, out]
  Matrix<T> large = random_numbers<T>(8, 9);
  large.block(1, 3, 6, 4) = w;
  const auto x = random_numbers<T>(3, 4);
  const auto same = [&](const mora::FrozenLinear<T>& base, const T* data) {
    const TypeParam other(base, layer.adapter());
    EXPECT_EQ(other.base().weight().data(), data);
    EXPECT_TRUE(same_bits(other.forward(x), layer.forward(x)));
  };
  same({w, layer.base().bias()}, w.data());
  same({columns.transpose(), layer.base().bias()}, columns.data());
  same({large.block(1, 3, 6, 4), layer.base().bias()}, &large(1, 3));
}

}  // namespace
}  // namespace mora_tests
