// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>
#include <mora/optim/adamw.hpp>
#include <mora/optim/sgd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "support/compare.hpp"
#include "support/fixture.hpp"
#include "support/misuse.hpp"
#include "support/not_finite.hpp"
#include "support/optimizers.hpp"
#include "support/random.hpp"

/// \file
/// The optimizers against PyTorch's, step by step, and what they do with bad gradients.
/// optimizer_groups_test.cpp and optimizer_state_test.cpp have the rest.

namespace mora_tests {
namespace {

using mora::AdamW;
using mora::AdamWSettings;
using mora::ArgumentError;
using mora::Matrix;
using mora::NumericError;
using mora::Parameter;
using mora::Sgd;
using mora::SgdSettings;

/// PyTorch's steps for a case of fixtures/make_optim_torch.py; for float from the rounded
/// gradients, to float's tolerance. Each number of the parameter is compared relative to its own
/// size.
template <class T, class Optimizer>
void expect_steps_of(const Fixture& fixture, const std::string& name, Optimizer optimizer) {
  SCOPED_TRACE(name);
  const Matrix<double> expected = fixture.tensor(name + ".values");
  const Matrix<double> gradients = fixture.tensor(name + ".gradients");
  ASSERT_EQ(gradients.rows(), 10);
  TwoParameters<T> module;
  module.first.value = expected.row(0).template cast<T>();
  Matrix<T> found = expected.cast<T>();
  for (Index step = 0; step < gradients.rows(); ++step) {
    module.first.gradient = gradients.row(step).template cast<T>();
    optimizer.step(module);
    found.row(step + 1) = module.first.value;
  }
  for (Index j = 0; j < found.cols(); ++j) EXPECT_TRUE(near(found.col(j), expected.col(j))) << j;
  EXPECT_EQ(module.second.value.size(), 0);  // it has no gradient
}

TEST(AdamW, TakesPyTorchsSteps) {
  const Fixture fixture("optim_torch.safetensors");
  for (const std::string name : {"adamw_default", "adamw_decay", "adamw_no_memory"}) {
    const AdamWSettings settings{.learning_rate = fixture.number(name + ".lr"),
                                 .beta1 = fixture.number(name + ".beta1"),
                                 .beta2 = fixture.number(name + ".beta2"),
                                 .epsilon = fixture.number(name + ".eps"),
                                 .weight_decay = fixture.number(name + ".weight_decay")};
    expect_steps_of<double>(fixture, name, AdamW<double>(settings));
    expect_steps_of<float>(fixture, name, AdamW<float>(settings));
  }
}

TEST(Sgd, TakesPyTorchsSteps) {
  const Fixture fixture("optim_torch.safetensors");
  for (const std::string name : {"sgd_plain", "sgd_momentum", "sgd_decay"}) {
    const SgdSettings settings{.learning_rate = fixture.number(name + ".lr"),
                               .momentum = fixture.number(name + ".momentum"),
                               .weight_decay = fixture.number(name + ".weight_decay")};
    expect_steps_of<double>(fixture, name, Sgd<double>(settings));
    expect_steps_of<float>(fixture, name, Sgd<float>(settings));
  }
}

// The bad gradient may be the second one, and come before the first step or after some.
TYPED_TEST(Optimizer, RefusesAGradientThatIsNotFiniteAndForgetsIt) {
  for (const double bad : {nan<double>, infinity<double>, -infinity<double>}) {
    for (const int good_steps : {0, 2}) {
      Random random(1);
      auto module = random_parameters(random);
      auto undisturbed = module;
      auto optimizer = with_memory<TypeParam>();
      auto other = optimizer;
      const auto step = [](TypeParam& o, TwoParameters<double>& m) { o.step(m); };
      for (int i = 0; i < good_steps; ++i) {
        step(optimizer, module);
        step(other, undisturbed);
      }
      const double good = module.second.gradient(0, 1);
      module.second.gradient(0, 1) = bad;
      EXPECT_THROW(optimizer.step(module), NumericError);
      EXPECT_TRUE(same_bits(module.first.value, undisturbed.first.value));
      EXPECT_TRUE(same_bits(module.second.value, undisturbed.second.value));
      module.second.gradient(0, 1) = good;
      for (int i = 0; i < 3; ++i) {
        step(optimizer, module);
        step(other, undisturbed);
        EXPECT_TRUE(same_bits(module.first.value, undisturbed.first.value));
        EXPECT_TRUE(same_bits(module.second.value, undisturbed.second.value));
      }
    }
  }
}

TYPED_TEST(Optimizer, KeepsParametersApart) {
  Random random(2);
  auto both = random_parameters(random);
  auto only_first = both;
  only_first.second.gradient.resize(0, 0);
  auto for_both = with_memory<TypeParam>();
  auto for_one = with_memory<TypeParam>();
  const Matrix<double> second = only_first.second.value;
  for (int i = 0; i < 3; ++i) {
    for_both.step(both);
    for_one.step(only_first);
    EXPECT_TRUE(same_bits(both.first.value, only_first.first.value));
  }
  EXPECT_TRUE(same_bits(only_first.second.value, second));
}

TYPED_TEST(Optimizer, AFactorOfZeroChangesNoWeight) {
  Random random(3);
  auto module = random_parameters(random);
  const Matrix<double> before = module.first.value;
  auto optimizer = with_memory<TypeParam>();
  optimizer.step(module, 0.0);
  EXPECT_TRUE(same_bits(module.first.value, before));
  optimizer.step(module, 2.0);
  EXPECT_FALSE(near(module.first.value, before));
}

TYPED_TEST(Optimizer, AFactorMultipliesTheLearningRate) {
  Random random(4);
  auto module = random_parameters(random);
  auto expected = module;
  auto optimizer = with_memory<TypeParam>();
  auto other = optimizer;
  for (const double factor : {0.25, 1.0, 0.5, 4.0}) {
    auto settings = optimizer.settings();
    settings.learning_rate *= factor;
    other.set(settings);
    optimizer.step(module, factor);
    other.step(expected);
    EXPECT_TRUE(same_bits(module.first.value, expected.first.value)) << factor;
    EXPECT_TRUE(same_bits(module.second.value, expected.second.value)) << factor;
  }
}

TYPED_TEST(Optimizer, RefusesAFactorOutOfRange) {
  Random random(5);
  auto module = random_parameters(random);
  const Matrix<double> before = module.first.value;
  auto optimizer = with_memory<TypeParam>();
  for (const double factor : {-1e-9, nan<double>, infinity<double>}) {
    EXPECT_THROW(optimizer.step(module, factor), ArgumentError) << factor;
  }
  EXPECT_TRUE(same_bits(module.first.value, before));
}

// A parameter of several pieces, the last one not full, takes the steps of its rows as parameters
// of their own.
TYPED_TEST(Optimizer, TreatsALargeParameterLikeItsParts) {
  Random random(6);
  const Index rows = 7;
  const Index cols = 8191;
  TwoParameters<double> large;
  large.first = {random.matrix<double>(rows, cols), random.matrix<double>(rows, cols)};
  std::vector<TwoParameters<double>> parts(rows);
  std::vector<TypeParam> for_parts(rows, with_memory<TypeParam>());
  auto optimizer = with_memory<TypeParam>();
  for (int step = 0; step < 3; ++step) {
    for (Index i = 0; i < rows; ++i) {
      TwoParameters<double>& part = parts[static_cast<std::size_t>(i)];
      if (step == 0) part.first.value = large.first.value.row(i);
      part.first.gradient = large.first.gradient.row(i);
      for_parts[static_cast<std::size_t>(i)].step(part);
    }
    optimizer.step(large);
    for (Index i = 0; i < rows; ++i) {
      EXPECT_TRUE(near(large.first.value.row(i), parts[static_cast<std::size_t>(i)].first.value));
    }
    large.first.gradient = random.matrix<double>(rows, cols);
  }
}

// The bad number may be in any piece of a large gradient; the first parameter with one is named.
TYPED_TEST(Optimizer, FindsABadNumberAnywhere) {
  for (const Index position : {0, 511, 512, 16383, 16384, 49151}) {
    TwoParameters<double> module;
    module.first = {Matrix<double>::Ones(3, 16384), Matrix<double>::Ones(3, 16384)};
    module.second = module.first;
    module.second.gradient.data()[position] = nan<double>;
    EXPECT_TRUE(throws<NumericError>({"gradient of second: not finite"}, [&] {
      with_memory<TypeParam>().step(module);
    })) << position;
    module.first.gradient.data()[49151 - position] = infinity<double>;
    EXPECT_TRUE(throws<NumericError>({"gradient of first: not finite"}, [&] {
      with_memory<TypeParam>().step(module);
    })) << position;
    EXPECT_TRUE(same_bits(module.first.value, Matrix<double>::Ones(3, 16384)));
  }
}

// Each of these is a number in double.
TEST(Optimizers, RefuseCoefficientsBeyondTheirScalar) {
  const auto refused = [](std::string_view what, const auto& call) {
    EXPECT_TRUE(throws<ArgumentError>({what, "expected", "found"}, call));
  };
  refused("learning_rate", [] { AdamW<float>({.learning_rate = 1e39}); });
  refused("weight_decay", [] { AdamW<float>({.learning_rate = 1e20, .weight_decay = 1e20}); });
  refused("epsilon", [] { AdamW<float>({.epsilon = 1e39}); });
  refused("epsilon", [] { AdamW<float>({.epsilon = 1e-50}); });
  refused("epsilon", [] { AdamW<float>({}, {{"first", {.epsilon = 1e-50}}}); });
  refused("learning_rate", [] { Sgd<float>({.learning_rate = 1e39}); });
  refused("weight_decay", [] { Sgd<float>({.weight_decay = 1e39}); });
  EXPECT_NO_THROW(AdamW<double>({.epsilon = 1e-50}));
  EXPECT_NO_THROW(AdamW<float>({.epsilon = 1e-40}));

  // The factor comes with the step, which then changes nothing.
  const auto refuses_factor = [](auto optimizer) {
    TwoParameters<float> module;
    module.first = {Matrix<float>::Ones(1, 2), Matrix<float>::Ones(1, 2)};
    EXPECT_TRUE(throws<ArgumentError>({"learning_rate * factor", "found"},
                                      [&] { optimizer.step(module, 1e38); }));
    EXPECT_TRUE(equal(module.first.value, Matrix<float>::Ones(1, 2)));
    optimizer.visit_state([](std::string_view name, const auto&) { ADD_FAILURE() << name; });
  };
  refuses_factor(AdamW<float>({.learning_rate = 1e3}));
  refuses_factor(Sgd<float>({.learning_rate = 1e3}));
}

// As LoRA's A has, before B has moved.
TEST(AdamW, LeavesAWeightWhoseGradientWasAlwaysZero) {
  for (const double epsilon : {1e-8, 1e-40}) {
    TwoParameters<float> module;
    module.first = {Matrix<float>::Ones(1, 2), Matrix<float>::Zero(1, 2)};
    AdamW<float> optimizer({.epsilon = epsilon});
    for (int step = 0; step < 3; ++step) optimizer.step(module);
    EXPECT_TRUE(equal(module.first.value, Matrix<float>::Ones(1, 2))) << epsilon;
  }
}

// Each gradient is a number, what the velocity would add up to is none.
TEST(Sgd, RefusesAGradientTooLargeToAddUp) {
  for (const float large : {3e38f, 1e20f}) {
    TwoParameters<float> module;
    module.first = {Matrix<float>::Ones(1, 2), Matrix<float>::Constant(1, 2, large)};
    Sgd<float> optimizer({.momentum = 0.9});
    EXPECT_TRUE(
        throws<NumericError>({"gradient of first", "too large"}, [&] { optimizer.step(module); }));
    EXPECT_TRUE(equal(module.first.value, Matrix<float>::Ones(1, 2)));
    optimizer.visit_state([](std::string_view name, const auto&) { ADD_FAILURE() << name; });
  }
}

// With the largest momentum that float has.
TEST(Sgd, AddsUpTheLargestGradientsThatItTakes) {
  TwoParameters<float> module;
  module.first = {Matrix<float>::Ones(1, 2), Matrix<float>::Constant(1, 2, -1.8e19f)};
  Sgd<float> optimizer({.momentum = 1.0 - 1e-7});
  for (int step = 0; step < 1000; ++step) optimizer.step(module);
  optimizer.visit_state([](std::string_view, const auto& state) {
    EXPECT_TRUE((state.moments[0].array() < -1.7e22f).all());
    EXPECT_TRUE(state.moments[0].allFinite());
  });
  EXPECT_TRUE(module.first.value.allFinite());
}

TYPED_TEST(Optimizer, RefusesSettingsOutOfRangeAndKeepsTheOldOnes) {
  auto optimizer = with_memory<TypeParam>();
  using Settings = std::decay_t<decltype(optimizer.settings())>;
  const auto refused = [&](double Settings::*setting, std::initializer_list<double> values) {
    for (const double value : values) {
      Settings settings;
      settings.*setting = value;
      EXPECT_THROW(settings.validate(), ArgumentError) << value;
      EXPECT_THROW(optimizer.set(settings), ArgumentError) << value;
      EXPECT_THROW(TypeParam{settings}, ArgumentError) << value;
    }
  };
  refused(&Settings::learning_rate, {-1e-9, nan<double>, infinity<double>, -infinity<double>});
  refused(&Settings::weight_decay, {-1e-9, nan<double>, infinity<double>});
  if constexpr (std::is_same_v<Settings, AdamWSettings>) {
    refused(&Settings::beta1, {-1e-9, 1.0, nan<double>});
    refused(&Settings::beta2, {-1e-9, 1.0, nan<double>});
    refused(&Settings::epsilon, {-1e-9, 0.0, nan<double>, infinity<double>});
  } else {
    refused(&Settings::momentum, {-1e-9, 1.0, nan<double>});
  }
  EXPECT_EQ(optimizer.settings().learning_rate, 0.05);
  EXPECT_EQ(optimizer.settings().weight_decay, 0.1);
}

}  // namespace
}  // namespace mora_tests
