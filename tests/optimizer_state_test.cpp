// SPDX-License-Identifier: MIT
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "support/misuse.hpp"
#include "support/not_finite.hpp"
#include "support/optimizers.hpp"

/// \file
/// What an optimizer remembers: seen, put back and forgotten, for checkpoints and for adapters that
/// are restarted.

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::Matrix;
using mora::NumericError;
using mora::ShapeError;

template <class O>
[[nodiscard]] std::map<std::string, typename O::State> states_of(const O& optimizer) {
  std::map<std::string, typename O::State> all;
  optimizer.visit_state(
      [&](std::string_view name, const auto& state) { all.emplace(name, state); });
  return all;
}

TEST(AdamW, RemembersMomentsByName) {
  TwoParameters<double> module;
  module.first = {Matrix<double>::Ones(1, 2), Matrix<double>::Constant(1, 2, 2.0)};
  mora::AdamW<double> optimizer({.beta1 = 0.5, .beta2 = 0.75});
  EXPECT_TRUE(states_of(optimizer).empty());
  optimizer.step(module);
  module.second = module.first;
  optimizer.step(module);
  const auto states = states_of(optimizer);
  ASSERT_EQ(states.size(), 2u);
  EXPECT_EQ(mora::AdamW<double>::moment_names[0], "mean");
  EXPECT_EQ(mora::AdamW<double>::moment_names[1], "square");
  EXPECT_EQ(states.at("first").steps, 2);
  EXPECT_EQ(states.at("second").steps, 1);
  EXPECT_TRUE(equal(states.at("second").moments[0], Matrix<double>::Constant(1, 2, 1.0)));
  EXPECT_TRUE(equal(states.at("second").moments[1], Matrix<double>::Constant(1, 2, 1.0)));
  EXPECT_TRUE(equal(states.at("first").moments[0], Matrix<double>::Constant(1, 2, 1.5)));
  EXPECT_TRUE(equal(states.at("first").moments[1], Matrix<double>::Constant(1, 2, 1.75)));
}

// 1 - float(0.999) has four digits.
TEST(AdamW, RoundsItsCoefficientsToFloatOnce) {
  TwoParameters<float> module;
  module.first = {Matrix<float>::Ones(1, 2), Matrix<float>::Ones(1, 2)};
  mora::AdamW<float> optimizer({.beta1 = 0.9, .beta2 = 0.999});
  optimizer.step(module);
  const auto state = states_of(optimizer).at("first");
  EXPECT_TRUE(near(state.moments[0], Matrix<float>::Constant(1, 2, 0.1f)));
  EXPECT_TRUE(near(state.moments[1], Matrix<float>::Constant(1, 2, 0.001f)));
}

TYPED_TEST(Optimizer, GoesOnFromAStateThatWasPutBack) {
  Random random(1);
  auto module = random_parameters(random);
  auto optimizer = with_memory<TypeParam>();
  for (int step = 0; step < 3; ++step) optimizer.step(module);
  auto resumed = with_memory<TypeParam>();
  for (auto& [name, state] : states_of(optimizer)) resumed.set_state(name, state);
  auto other = module;
  for (int step = 0; step < 3; ++step) {
    optimizer.step(module);
    resumed.step(other);
    EXPECT_TRUE(same_bits(other.first.value, module.first.value));
    EXPECT_TRUE(same_bits(other.second.value, module.second.value));
  }
}

TYPED_TEST(Optimizer, RefusesAStateThatCannotBe) {
  using State = typename TypeParam::State;
  const auto state = [](std::int64_t steps) {
    State result{steps, {}};
    for (auto& moment : result.moments) moment.setOnes(3, 4);
    return result;
  };
  auto optimizer = with_memory<TypeParam>();
  EXPECT_TRUE(throws<ArgumentError>({"steps", "at least 1", "found 0"},
                                    [&] { optimizer.set_state("first", state(0)); }));
  State bad = state(1);
  bad.moments[0](2, 3) = nan<double>;
  EXPECT_TRUE(
      throws<NumericError>({"first", "not finite"}, [&] { optimizer.set_state("first", bad); }));
  if constexpr (TypeParam::moment_names.size() > 1) {
    bad = state(1);
    bad.moments[1].setOnes(3, 5);
    EXPECT_TRUE(throws<ShapeError>({"first", "expected 3x4, found 3x5"},
                                   [&] { optimizer.set_state("first", bad); }));
  }
  EXPECT_TRUE(states_of(optimizer).empty());
  // One that does not fit the parameter shows at the step, and so does one that was changed.
  Random random(2);
  auto module = random_parameters(random);
  const Matrix<double> before = module.first.value;
  optimizer.set_state("second", state(1));
  EXPECT_TRUE(
      throws<ShapeError>({"second", "expected 1x2, found 3x4"}, [&] { optimizer.step(module); }));
  optimizer.reset_state();
  optimizer.step(module);
  optimizer.visit_state([](std::string_view, State& each) { each.moments.back().resize(1, 1); });
  const Matrix<double> after = module.first.value;
  EXPECT_TRUE(
      throws<ShapeError>({"first", "expected 3x4, found 1x1"}, [&] { optimizer.step(module); }));
  EXPECT_TRUE(same_bits(module.first.value, after));
  EXPECT_FALSE(near(after, before));
}

TYPED_TEST(Optimizer, ForgetsWhatARuleMeans) {
  Random random(3);
  auto module = random_parameters(random);
  auto optimizer = with_memory<TypeParam>();
  for (int step = 0; step < 3; ++step) optimizer.step(module);
  auto undisturbed = optimizer;
  auto expected = module;
  EXPECT_EQ(optimizer.reset_state("third"), 0u);
  EXPECT_EQ(optimizer.reset_state("second"), 1u);
  EXPECT_EQ(states_of(optimizer).count("second"), 0u);
  auto fresh = with_memory<TypeParam>();
  auto from_fresh = module;
  for (int step = 0; step < 2; ++step) {
    // A gradient that never changed would give AdamW the same step with memory and without.
    const Matrix<double> gradient = random.matrix<double>(1, 2);
    for (auto* each : {&module, &expected, &from_fresh}) each->second.gradient = gradient;
    optimizer.step(module);
    undisturbed.step(expected);
    fresh.step(from_fresh);
    EXPECT_TRUE(same_bits(module.first.value, expected.first.value));
    EXPECT_TRUE(same_bits(module.second.value, from_fresh.second.value));
    EXPECT_FALSE(near(module.second.value, expected.second.value));
  }
  optimizer.reset_state();
  EXPECT_TRUE(states_of(optimizer).empty());
}

// A step that threw may have taken memory, but has nothing to remember.
TYPED_TEST(Optimizer, ShowsNoStateOfAStepThatThrew) {
  Random random(4);
  auto module = random_parameters(random);
  auto optimizer = with_memory<TypeParam>();
  optimizer.step(module);
  const auto before = states_of(optimizer);
  module.second.gradient(0, 0) = infinity<double>;
  EXPECT_THROW(optimizer.step(module), NumericError);
  for (const auto& [name, state] : states_of(optimizer)) {
    EXPECT_EQ(state.steps, before.at(name).steps);
    for (std::size_t i = 0; i < state.moments.size(); ++i) {
      EXPECT_TRUE(same_bits(state.moments[i], before.at(name).moments[i]));
    }
  }
  auto other = with_memory<TypeParam>();
  EXPECT_THROW(other.step(module), NumericError);
  EXPECT_TRUE(states_of(other).empty());
}

// Nor does it bind the name to its shape.
TYPED_TEST(Optimizer, ForgetsTheShapeOfAStepThatThrew) {
  TwoParameters<double> module;
  module.first = {Matrix<double>::Ones(2, 2), Matrix<double>::Constant(2, 2, nan<double>)};
  auto optimizer = with_memory<TypeParam>();
  EXPECT_THROW(optimizer.step(module), NumericError);
  EXPECT_EQ(TypeParam(optimizer).reset_state("first"), 0u);
  module.first = {Matrix<double>::Ones(3, 3), Matrix<double>::Ones(3, 3)};
  auto expected = module;
  optimizer.step(module);
  with_memory<TypeParam>().step(expected);
  EXPECT_TRUE(same_bits(module.first.value, expected.first.value));
  EXPECT_EQ(optimizer.reset_state("first"), 1u);
}

// The gradient is a number, its square is not: the second moment would be infinite for good.
TEST(AdamW, RefusesAGradientTooLargeToSquare) {
  TwoParameters<float> module;
  module.first = {Matrix<float>::Ones(1, 2), Matrix<float>::Constant(1, 2, 1e20f)};
  mora::AdamW<float> optimizer;
  EXPECT_TRUE(
      throws<NumericError>({"gradient of first", "too large"}, [&] { optimizer.step(module); }));
  EXPECT_TRUE(equal(module.first.value, Matrix<float>::Ones(1, 2)));
  EXPECT_TRUE(states_of(optimizer).empty());
  module.first.gradient.setConstant(1e19f);
  optimizer.step(module);
  mora::Sgd<float>().step(module);
}

}  // namespace
}  // namespace mora_tests
