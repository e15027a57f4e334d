// SPDX-License-Identifier: MIT
#include "support/layer_laws.hpp"
#include "support/not_finite.hpp"

/// \file
/// What every layer's forward pass and merge keep.

namespace mora_tests {
namespace {

INSTANTIATE_TEST_SUITE_P(, LayerLaws, testing::ValuesIn(layer_kinds()),
                         [](const auto& kind) { return kind.param.name; });

TEST_P(LayerLaws, FreshLayerIsTheFrozenLayer) {
  for_each_layer(Parameters::fresh, []<class T>(const Setting<T>& s) {
    const Matrix<T> x = s.input();
    EXPECT_TRUE(equal(s.layer.forward(x), s.layer.base().forward(x)));
    EXPECT_TRUE(equal(s.layer.update(), Matrix<T>::Zero(s.layer.out(), s.layer.in())));
  });
}

TEST_P(LayerLaws, FreshLayerMergesToTheSameBits) {
  for_each_layer(Parameters::fresh, []<class T>(const Setting<T>& s) {
    const Matrix<T> x = s.input();
    const Matrix<T> w = s.layer.base().weight();
    Matrix<T> target = w;
    s.layer.merge_into(target);
    EXPECT_TRUE(same_bits(target, w));
    EXPECT_FALSE(s.layer.merged());
    EXPECT_TRUE(s.layer.merge());
    EXPECT_TRUE(same_bits(s.layer.forward(x), s.layer.base().forward(x)));
  });
}

TEST_P(LayerLaws, ForwardIsThatOfTheWeightPlusTheUpdate) {
  for_each_layer(Parameters::random, []<class T>(const Setting<T>& s) {
    const Matrix<T> x = s.input();
    const RowVector<T> of_zero = s.layer.forward(Matrix<T>::Zero(1, s.layer.in()));
    Matrix<T> expected = x * (s.layer.base().weight() + s.layer.update()).transpose();
    expected.rowwise() += of_zero;
    EXPECT_TRUE(near(s.layer.forward(x), expected));
    if (!s.layer.additive()) return;  // Its bias may train too.
    const RowVector<T> none = RowVector<T>::Zero(s.layer.out());
    EXPECT_TRUE(equal(of_zero, s.bias.size() == 0 ? none : s.bias));
  });
}

TEST_P(LayerLaws, MergedForwardIsForward) {
  for_each_layer(Parameters::random, []<class T>(const Setting<T>& s) {
    const Matrix<T> x = s.input();
    const Matrix<T> y = s.layer.forward(x);
    EXPECT_TRUE(s.layer.merge());
    EXPECT_TRUE(s.layer.merged());
    EXPECT_TRUE(near(s.layer.forward(x), y));
  });
}

TEST_P(LayerLaws, MergingAddsTheUpdate) {
  for_each_layer(Parameters::random, []<class T>(const Setting<T>& s) {
    Matrix<T> target = s.layer.base().weight();
    s.layer.merge_into(target);
    EXPECT_TRUE(near(target, s.layer.base().weight() + s.layer.update()));
    EXPECT_FALSE(near(target, s.layer.base().weight(), {.relative = difference_step}));
  });
}

TEST_P(LayerLaws, UnmergingRestoresEveryBit) {
  for_each_layer(Parameters::random, []<class T>(const Setting<T>& s) {
    const Matrix<T> x = s.input();
    const Matrix<T> w = s.layer.base().weight();
    const Matrix<T> y = s.layer.forward(x);
    const Matrix<T> update = s.layer.update();
    EXPECT_TRUE(s.layer.merge());
    EXPECT_TRUE(same_bits(s.layer.base().weight(), w));
    EXPECT_TRUE(s.layer.unmerge());
    EXPECT_FALSE(s.layer.merged());
    EXPECT_TRUE(same_bits(s.layer.base().weight(), w));
    EXPECT_TRUE(same_bits(s.layer.forward(x), y));
    EXPECT_TRUE(same_bits(s.layer.update(), update));
  });
}

TEST_P(LayerLaws, ForwardIsLinearButForTheBias) {
  for_each_layer(Parameters::random, []<class T>(const Setting<T>& s) {
    const Matrix<T> u = s.input();
    const Matrix<T> v = s.input();
    const RowVector<T> of_zero = s.layer.forward(Matrix<T>::Zero(1, s.layer.in()));
    const auto linear = [&](const Matrix<T>& x) {
      return Matrix<T>(s.layer.forward(x).rowwise() - of_zero);
    };
    const double size =
        double((s.layer.forward(u).cwiseAbs() + T(3) * s.layer.forward(v).cwiseAbs()).maxCoeff());
    EXPECT_TRUE(near(linear(T(0.75) * u - T(3) * v), T(0.75) * linear(u) - T(3) * linear(v),
                     {.magnitude = size}));
  });
}

TEST_P(LayerLaws, CopiesAreIndependent) {
  for_each_layer(Parameters::random, []<class T>(const Setting<T>& s) {
    const Matrix<T> x = s.input();
    const Matrix<T> y = s.layer.forward(x);
    const auto copy = s.layer.copy();
    EXPECT_TRUE(same_bits(copy->forward(x), y));
    for (auto* p : copy->parameters()) p->value *= T(2);
    const Matrix<T> y_of_copy = copy->forward(x);
    EXPECT_FALSE(near(y_of_copy, y));
    EXPECT_TRUE(same_bits(s.layer.forward(x), y));
    for (auto* p : s.layer.parameters()) p->value.setZero();
    EXPECT_TRUE(s.layer.merge());
    EXPECT_FALSE(copy->merged());
    EXPECT_TRUE(same_bits(copy->forward(x), y_of_copy));
  });
}

// The same bits, whatever memory x and y lie in.
TEST_P(LayerLaws, InputsAndResultsMayLieAnywhere) {
  for_each_layer(Parameters::random, []<class T>(const Setting<T>& s) {
    const Matrix<T> x = s.input();
    const Matrix<T> y = s.layer.forward(x);
    Matrix<T> wide_y = Matrix<T>::Constant(tokens + 2, s.layer.out() + 3, nan<T>);
    s.layer.forward(x, wide_y.block(1, 2, tokens, s.layer.out()));
    EXPECT_TRUE(same_bits(wide_y.block(1, 2, tokens, s.layer.out()), y));
    wide_y.block(1, 2, tokens, s.layer.out()).setConstant(nan<T>);
    EXPECT_TRUE(same_bits(wide_y, Matrix<T>::Constant(wide_y.rows(), wide_y.cols(), nan<T>)));

    Matrix<T> wide_x = Matrix<T>::Constant(tokens + 2, s.layer.in() + 3, nan<T>);
    wide_x.block(1, 2, tokens, s.layer.in()) = x;
    EXPECT_TRUE(same_bits(s.layer.forward(wide_x.block(1, 2, tokens, s.layer.in())), y));
    const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> columns = x.transpose();
    EXPECT_TRUE(same_bits(s.layer.forward(columns.transpose()), y));
    EXPECT_TRUE(same_bits(s.layer.train(x), y));
  });
}

}  // namespace
}  // namespace mora_tests
