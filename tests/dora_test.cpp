// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <mora/mora.hpp>

#include "support/compare.hpp"
#include "support/differences.hpp"
#include "support/random.hpp"
#include "support/throws.hpp"

/// \file
/// What only DoRA has; it is in the suites of laws too, and reference_test has PEFT's numbers.

namespace mora_tests {
namespace {

using mora::Index;
using mora::Matrix;
using Lora = mora::LoraAdapter<double>;
using Dora = mora::DoraAdapter<Lora>;

template <class Layer>
void randomise(Layer& layer, Random& random) {
  layer.visit_parameters(
      [&](std::string_view, auto& p) { mora::fill_normal(p.value, 0.5, random.generator()); });
}

// The loss <Y, G> where n is held: that of the layer whose rows are all multiplied with m / n as it
// was. By differences, from the dense update.
template <class Layer>
void expect_gradients_hold_norms(Layer layer, Random& random) {
  randomise(layer, random);
  const Matrix<double> x = random.matrix<double>(5, layer.in_features());
  const Matrix<double> g = random.matrix<double>(5, layer.out_features());
  const Matrix<double> w = layer.base().weight();
  const auto moved = [&] {  // W + Delta W of the adapter below
    return Matrix<double>(w +
                          mora::detail::dense_update(layer.adapter().direction(), layer.base()));
  };
  const Eigen::VectorXd ratios = layer.adapter().magnitude().value.row(0).transpose().array() /
                                 moved().rowwise().norm().array();
  const auto loss = [&] {
    return (x * moved().transpose() * ratios.asDiagonal()).cwiseProduct(g).sum();
  };
  typename Layer::Saved saved;
  (void)layer.forward(x, saved);
  (void)layer.backward(g, saved);
  layer.adapter().direction().visit_parameters([&](std::string_view name, auto& p) {
    EXPECT_TRUE(near(p.gradient, differences(p.value, loss), {.relative = difference_tolerance}))
        << name;
  });
}

TEST(Dora, HoldsTheNormsInGradients) {
  Random random(1);
  const Matrix<double> w = random.matrix<double>(7, 6);
  expect_gradients_hold_norms(
      mora::DoraLinear<double>(w, {.direction = {.rank = 2}}, random.generator()), random);
  expect_gradients_hold_norms(mora::DoraLinear<double, mora::MoraAdapter<double, mora::Sharing>>(
                                  w, {.direction = {.rank = 1}}),
                              random);
  expect_gradients_hold_norms(
      mora::DoraLinear<double, mora::MoraAdapter<double>>(w, {.direction = {.rank = 2}}), random);
  expect_gradients_hold_norms(mora::DoraLinear<double, mora::LokrAdapter<double>>(
                                  w, {.direction = {.rank = 2}}, random.generator()),
                              random);
}

TEST(Dora, HasRowsOfTheGivenLengths) {
  Random random(2);
  mora::DoraLinear<double> layer(random.matrix<double>(9, 5), {.direction = {.rank = 3}},
                                 random.generator());
  randomise(layer, random);
  const Matrix<double> merged = layer.base().weight() + layer.update();
  EXPECT_TRUE(near(Matrix<double>(merged.rowwise().norm().transpose()),
                   Matrix<double>(layer.adapter().magnitude().value.cwiseAbs())));
}

TEST(Dora, StartsWithTheLengthsOfTheAdaptersRows) {
  Random random(3);
  const Matrix<double> w = random.matrix<double>(4, 6);
  Lora lora(random.matrix<double>(2, 6), random.matrix<double>(4, 2), {.rank = 2});
  const Matrix<double> x = random.matrix<double>(3, 6);
  const mora::AdaptedLinear<Lora> below(w, lora);
  const mora::FrozenLinear<double> frozen(w);
  const mora::DoraLinear<double> layer(frozen, Dora(frozen, lora));
  EXPECT_TRUE(near(layer.forward(x), below.forward(x)));
}

// A row of zeros has no direction: where B is zero it stays as it is, whatever its length is to be.
TEST(Dora, LeavesRowsOfZerosAlone) {
  Random random(4);
  Matrix<double> w = random.matrix<double>(3, 4);
  w.row(1).setZero();
  mora::DoraLinear<double> layer(w, {.direction = {.rank = 1}}, random.generator());
  const Matrix<double> x = random.matrix<double>(2, 4);
  EXPECT_TRUE(same_bits(layer.forward(x), layer.base().forward(x)));
  layer.adapter().magnitude().value.setConstant(2.0);
  mora::DoraLinear<double>::Saved saved;
  EXPECT_TRUE(near(Matrix<double>(layer.forward(x, saved).col(1)), Matrix<double>::Zero(2, 1)));
  (void)layer.backward(random.matrix<double>(2, 3), saved);
  EXPECT_EQ(layer.adapter().magnitude().gradient(0, 1), 0.0);
  layer.visit_parameters(
      [](std::string_view name, const auto& p) { EXPECT_TRUE(p.gradient.allFinite()) << name; });
  EXPECT_TRUE(layer.merge());
}

// Weights of 16 bits are widened, as everywhere.
TEST(Dora, StandsOnWeightsOf16Bits) {
  Random random(5);
  const Matrix<float> numbers = random.matrix<float>(6, 8);
  const auto small = std::make_shared<std::vector<mora::BFloat16>>(48);
  mora::convert(std::span<const float>(numbers.data(), 48), std::span<mora::BFloat16>(*small));
  const mora::FrozenLinear<float> frozen(small->data(), 6, 8, small);
  mora::DoraLinear<float> on_small(frozen, {.direction = {.rank = 2}}, random.generator());
  mora::DoraLinear<float> on_wide(mora::FrozenLinear<float>(frozen.read_weight()),
                                  on_small.adapter());
  randomise(on_small, random);
  on_wide.adapter() = on_small.adapter();
  const Matrix<float> x = random.matrix<float>(3, 8);
  EXPECT_TRUE(same_bits(on_small.forward(x), on_wide.forward(x)));
}

TEST(Dora, RefusesAMagnitudeOfAnotherShape) {
  Random random(6);
  const Lora lora(random.matrix<double>(2, 6), random.matrix<double>(4, 2), {.rank = 2});
  EXPECT_TRUE(throws<mora::ShapeError>({"magnitude", "4", "5"},
                                       [&] { Dora(lora, Matrix<double>::Ones(1, 5)); }));
  EXPECT_TRUE(throws<mora::ShapeError>({"magnitude, rows", "1", "4"},
                                       [&] { Dora(lora, Matrix<double>::Ones(4, 1)); }));
  EXPECT_TRUE(throws<mora::ShapeError>({"in_features", "7", "6"}, [&] {
    Dora(mora::FrozenLinear<double>(random.matrix<double>(4, 7)), lora);
  }));
}

// More tokens than a tile without training, of which the last would be one row.
TEST(Dora, HasTheSameBitsInTiles) {
  Random random(9);
  const mora::FrozenLinear<float> frozen(random.matrix<float>(4096, 16));
  mora::DoraLinear<float> layer(frozen, {.direction = {.rank = 2}}, random.generator());
  for (const Index tokens : {257, 300, 513}) {
    const Matrix<float> x = random.matrix<float>(tokens, 16);
    EXPECT_TRUE(same_bits(layer.forward(x), frozen.forward(x))) << tokens;
  }
  layer.visit_parameters([&](std::string_view, auto& p) {
    p.value += random.matrix<float>(p.value.rows(), p.value.cols(), 0.5);
  });
  mora::DoraLinear<float>::Saved saved;
  for (const Index tokens : {257, 300, 513}) {
    const Matrix<float> x = random.matrix<float>(tokens, 16);
    EXPECT_TRUE(same_bits(layer.forward(x), layer.forward(x, saved))) << tokens;
  }
}

// A weight of more than one tile, against dense formulas.
TEST(Hira, IsTheDenseFormulaInTiles) {
  Random random(10);
  const Index in = 1100;
  const Index out = 1000;
  const Matrix<double> w = random.matrix<double>(out, in);
  mora::HiraLinear<double> layer(w, {.rank = 2}, random.generator());
  randomise(layer, random);
  const Matrix<double> x = random.matrix<double>(3, in);
  const Matrix<double> g = random.matrix<double>(3, out);
  const Matrix<double> a = layer.adapter().a().value;
  const Matrix<double> b = layer.adapter().b().value;
  const Matrix<double> all = w.array() * (1.0 + Matrix<double>(b * a).array());
  mora::HiraLinear<double>::Saved saved;
  EXPECT_TRUE(near(layer.forward(x, saved), Matrix<double>(x * all.transpose())));
  EXPECT_TRUE(near(layer.backward(g, saved), Matrix<double>(g * all)));
  const Matrix<double> weighted = w.array() * Matrix<double>(g.transpose() * x).array();
  EXPECT_TRUE(near(layer.adapter().b().gradient, Matrix<double>(weighted * a.transpose())));
  EXPECT_TRUE(near(layer.adapter().a().gradient, Matrix<double>(b.transpose() * weighted)));
  // As a merge of any number of rows at a time does it.
  const mora::AnyAdapter<double> any(layer.adapter());
  Matrix<double> merged = w;
  any.row_merge()->merge_rows(0, mora::detail::map_of(merged));
  EXPECT_TRUE(near(merged, all));
}

// Whatever rows stand beside it.
TEST(Hira, LeavesRowsAloneThatItDoesNotChange) {
  Random random(11);
  Matrix<double> w = random.matrix<double>(4, 5);
  w(2, 3) = std::numeric_limits<double>::infinity();
  mora::HiraLinear<double> layer(w, {.rank = 2}, random.generator());
  randomise(layer, random);
  layer.adapter().b().value.row(2).setZero();
  Matrix<double> merged = w;
  const auto plan = layer.adapter().plan_merge();
  layer.adapter().merge_rows(plan, 0, mora::detail::map_of(merged));
  EXPECT_TRUE(same_bits(Matrix<double>(merged.row(2)), Matrix<double>(w.row(2))));
  const Matrix<double> x = Matrix<double>::Ones(2, 5);
  EXPECT_TRUE(same_bits(Matrix<double>(layer.forward(x).col(2)),
                        Matrix<double>(layer.base().forward(x).col(2))));
}

TEST(AsyLora, RefusesResultsOverA) {
  Random random(12);
  mora::LoraLinear<double> layer(random.matrix<double>(4, 4),
                                 {.rank = 4, .init = mora::LoraInit::orthonormal, .train_a = false},
                                 random.generator());
  const Matrix<double> x = random.matrix<double>(4, 4);
  Matrix<double>& a = layer.adapter().a().value;
  EXPECT_TRUE(throws<mora::ArgumentError>({"result", "overlaps"}, [&] { layer.forward(x, a); }));
  EXPECT_TRUE(throws<mora::ArgumentError>({"overlaps"}, [&] { layer.merge_into(a); }));
}

// Which knows of the adapter below it that A is no parameter.
TEST(Dora, RefusesResultsOverAnAThatDoesNotTrain) {
  Random random(13);
  mora::DoraLinear<double> layer(
      random.matrix<double>(4, 4),
      {.direction = {.rank = 4, .init = mora::LoraInit::orthonormal, .train_a = false}},
      random.generator());
  const Matrix<double> x = random.matrix<double>(4, 4);
  Matrix<double>& a = layer.adapter().direction().a().value;
  EXPECT_TRUE(throws<mora::ArgumentError>({"result", "overlaps"}, [&] { layer.forward(x, a); }));
}

/// An adapter of a user's own that fits no frozen layer.
struct Choosy : Lora {
  using Lora::Lora;
  void require_base(const mora::FrozenLinear<double>&) const {
    mora::detail::require_size("own size", Index{1}, Index{2});
  }
};

TEST(Dora, AsksTheAdapterBelowWhetherTheLayerFits) {
  Random random(14);
  const mora::FrozenLinear<double> frozen(random.matrix<double>(4, 6));
  const Choosy choosy(random.matrix<double>(2, 6), random.matrix<double>(4, 2), {.rank = 2});
  const auto refused = [](const auto& call) {
    EXPECT_TRUE(throws<mora::ShapeError>({"own size"}, call));
  };
  refused([&] { mora::DoraAdapter<Choosy>(frozen, choosy); });
  const mora::DoraAdapter<Choosy> dora(choosy, Matrix<double>::Ones(1, 4));
  refused([&] { dora.require_base(frozen); });
}

TEST(AsyLora, TrainsBAloneOverOrthonormalRows) {
  Random random(7);
  mora::LoraLinear<double> layer(random.matrix<double>(5, 6),
                                 {.rank = 3, .init = mora::LoraInit::orthonormal, .train_a = false},
                                 random.generator());
  const Matrix<double> a = layer.adapter().a().value;
  EXPECT_TRUE(near(Matrix<double>(a * a.transpose()), Matrix<double>::Identity(3, 3)));
  EXPECT_EQ(mora::parameter_count(layer), 5 * 3);
  mora::LoraLinear<double>::Saved saved;
  mora::AdamW<double> optimizer({.learning_rate = 0.1});
  (void)layer.forward(random.matrix<double>(4, 6), saved);
  (void)layer.backward(random.matrix<double>(4, 5), saved);
  optimizer.step(layer);
  EXPECT_TRUE(same_bits(layer.adapter().a().value, a));
  EXPECT_EQ(layer.adapter().a().gradient.size(), 0);
  EXPECT_GT(layer.adapter().b().value.norm(), 0.0);
}

TEST(AsyLora, RefusesMoreRowsThanInputs) {
  Random random(8);
  EXPECT_TRUE(throws<mora::ShapeError>({"orthonormal", "6", "7"}, [&] {
    mora::LoraLinear<double>(random.matrix<double>(5, 6),
                             {.rank = 7, .init = mora::LoraInit::orthonormal}, random.generator());
  }));
}

}  // namespace
}  // namespace mora_tests
