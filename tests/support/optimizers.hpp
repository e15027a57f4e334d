// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <limits>
#include <mora/optim/adamw.hpp>
#include <mora/optim/sgd.hpp>
#include <string_view>

#include "support/random.hpp"

/// \file
/// What the tests of optimizers have in common.

namespace mora_tests {

template <class T>
struct TwoParameters {
  mora::Parameter<T> first;
  mora::Parameter<T> second;
  template <class F>
  void visit_parameters(const F& f) {
    f(std::string_view("first"), first);
    f(std::string_view("second"), second);
  }
};

/// Values and gradients [3, 4] and [1, 2].
template <class T = double>
[[nodiscard]] TwoParameters<T> random_parameters(Random& random) {
  return {{random.matrix<T>(3, 4), random.matrix<T>(3, 4)},
          {random.matrix<T>(1, 2), random.matrix<T>(1, 2)}};
}

/// Tests that hold for every optimizer.
template <class O>
class Optimizer : public testing::Test {};
using OptimizerTypes = testing::Types<mora::AdamW<double>, mora::Sgd<double>>;
TYPED_TEST_SUITE(Optimizer, OptimizerTypes);

/// Settings under which every step depends on the steps before it.
template <class Settings>
[[nodiscard]] Settings settings_with_memory() {
  Settings settings;
  settings.learning_rate = 0.05;
  settings.weight_decay = 0.1;
  if constexpr (requires { settings.momentum; }) settings.momentum = 0.9;
  return settings;
}
template <class O>
[[nodiscard]] O with_memory() {
  return O(settings_with_memory<typename O::Settings>());
}

}  // namespace mora_tests
