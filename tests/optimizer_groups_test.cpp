// SPDX-License-Identifier: MIT
#include <mora/adapters/linear.hpp>
#include <string>
#include <vector>

#include "support/misuse.hpp"
#include "support/not_finite.hpp"
#include "support/optimizers.hpp"

/// \file
/// Parameter groups: which parameter takes which settings.

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::Matrix;
using mora::NameRule;

TEST(NameRule, MeansWholePartsAtTheEnd) {
  const NameRule b("B");
  EXPECT_TRUE(b("B"));
  EXPECT_TRUE(b("layers.0.q_proj.B"));
  EXPECT_FALSE(b("layers.0.q_proj.AB"));
  EXPECT_FALSE(b("layers.0.q_proj.A"));
  EXPECT_FALSE(b("B.A"));
  EXPECT_FALSE(b(""));
  const NameRule query("q_proj.B");
  EXPECT_TRUE(query("layers.0.q_proj.B"));
  EXPECT_TRUE(query("q_proj.B"));
  EXPECT_FALSE(query("layers.0.eq_proj.B"));
  EXPECT_FALSE(query("layers.0.k_proj.B"));
  EXPECT_TRUE(throws<ArgumentError>({"name rule"}, [] { NameRule(""); }));
}

TEST(NameRule, MayBeAnyPredicate) {
  const NameRule first_layer("layer 0",
                             [](std::string_view name) { return name.starts_with("layers.0."); });
  EXPECT_TRUE(first_layer("layers.0.q_proj.B"));
  EXPECT_FALSE(first_layer("layers.1.q_proj.B"));
  EXPECT_EQ(first_layer.text(), "layer 0");
}

TYPED_TEST(Optimizer, TreatsAGroupByItsOwnSettings) {
  Random random(1);
  auto module = random_parameters(random);
  auto with_first = module;
  auto with_second = module;
  auto first = settings_with_memory<typename TypeParam::Settings>();
  auto second = first;
  second.learning_rate = 0.002;
  second.weight_decay = 0.0;
  TypeParam optimizer(first, {{"second", second}});
  TypeParam all_first(first);
  TypeParam all_second(second);
  EXPECT_EQ(optimizer.settings_for("first").learning_rate, 0.05);
  EXPECT_EQ(optimizer.settings_for("second").learning_rate, 0.002);
  for (const double factor : {1.0, 0.5, 2.0}) {
    optimizer.step(module, factor);
    all_first.step(with_first, factor);
    all_second.step(with_second, factor);
    EXPECT_TRUE(same_bits(module.first.value, with_first.first.value));
    EXPECT_TRUE(same_bits(module.second.value, with_second.second.value));
    EXPECT_FALSE(near(module.second.value, with_first.second.value));
  }
}

TYPED_TEST(Optimizer, TakesTheFirstGroupThatFits) {
  auto settings = settings_with_memory<typename TypeParam::Settings>();
  auto other = settings;
  other.learning_rate = 0.5;
  auto third = settings;
  third.learning_rate = 0.25;
  const NameRule all("all", [](std::string_view) { return true; });
  const TypeParam optimizer(settings, {{"second", other}, {all, third}});
  EXPECT_EQ(optimizer.settings_for("second").learning_rate, 0.5);
  EXPECT_EQ(optimizer.settings_for("first").learning_rate, 0.25);
}

TYPED_TEST(Optimizer, RefusesAGroupThatTakesNoParameter) {
  Random random(2);
  const auto settings = settings_with_memory<typename TypeParam::Settings>();
  const NameRule all("all", [](std::string_view) { return true; });
  auto module = random_parameters(random);
  const Matrix<double> before = module.first.value;
  const auto refused = [&](TypeParam optimizer, std::string_view group) {
    EXPECT_TRUE(throws<ArgumentError>({group, "no parameter"}, [&] { optimizer.step(module); }));
    EXPECT_TRUE(same_bits(module.first.value, before));
    optimizer.visit_state([](std::string_view name, const auto&) { ADD_FAILURE() << name; });
  };
  refused(TypeParam(settings, {{"first", settings}, {"third", settings}}), "group 1 (third)");
  refused(TypeParam(settings, {{all, settings}, {"second", settings}}), "group 1 (second)");
  // A parameter that has no gradient in this step is there all the same.
  module.second.gradient.resize(0, 0);
  TypeParam(settings, {{"second", settings}}).step(module);
  EXPECT_FALSE(near(module.first.value, before));
}

TYPED_TEST(Optimizer, RefusesAGroupWithSettingsOutOfRange) {
  const auto good = settings_with_memory<typename TypeParam::Settings>();
  auto bad = good;
  bad.learning_rate = -1.0;
  EXPECT_TRUE(throws<ArgumentError>({"learning_rate", "-1"}, [&] {
    TypeParam(good, {{"first", good}, {"second", bad}});
  }));
  TypeParam optimizer(good, {{"first", good}});
  EXPECT_THROW(optimizer.set_groups({{"second", bad}}), ArgumentError);
  ASSERT_EQ(optimizer.groups().size(), 1u);
  EXPECT_EQ(optimizer.groups()[0].parameters.text(), "first");
}

/// A module that breaks its contract.
struct Twice {
  TwoParameters<double>& parameters;
  template <class F>
  void visit_parameters(const F& f) {
    f(std::string_view("same"), parameters.first);
    f(std::string_view("same"), parameters.second);
  }
};

TYPED_TEST(Optimizer, RefusesTwoParametersOfOneName) {
  Random random(3);
  auto module = random_parameters(random);
  module.second = module.first;
  const Matrix<double> before = module.first.value;
  Twice twice{module};
  auto optimizer = with_memory<TypeParam>();
  EXPECT_TRUE(throws<ArgumentError>({"two parameters", "same"}, [&] { optimizer.step(twice); }));
  EXPECT_TRUE(same_bits(module.first.value, before));
}

/// Shows one parameter under two names.
struct Alias {
  TwoParameters<double>& parameters;
  template <class F>
  void visit_parameters(const F& f) {
    f(std::string_view("tied"), parameters.first);
    f(std::string_view("other"), parameters.second);
    f(std::string_view("head"), parameters.first);
  }
};

TYPED_TEST(Optimizer, RefusesOneParameterOfTwoNames) {
  Random random(3);
  auto module = random_parameters(random);
  const Matrix<double> before = module.first.value;
  Alias alias{module};
  auto optimizer = with_memory<TypeParam>();
  EXPECT_TRUE(throws<ArgumentError>({"two names", "tied", "head"}, [&] { optimizer.step(alias); }));
  EXPECT_TRUE(same_bits(module.first.value, before));
}

/// A layer with gradients, after a step.
template <class Layer, class O>
[[nodiscard]] Layer stepped(O optimizer) {
  auto layer = make_layer<Layer>(9, 7);
  typename Layer::Saved saved;
  (void)layer.forward(random_numbers<double>(3, 9), saved);
  layer.backward_parameters(random_numbers<double>(3, 7), saved);
  optimizer.step(layer);
  return layer;
}

TYPED_TEST(Optimizer, IsLoraPlusByAGroup) {
  using Lora = mora::LoraLinear<double>;
  const auto settings = settings_with_memory<typename TypeParam::Settings>();
  auto faster = settings;
  faster.learning_rate *= 16.0;
  const Lora plus = stepped<Lora>(TypeParam(settings, {mora::lora_plus(settings, 16.0)}));
  const Lora slow = stepped<Lora>(TypeParam(settings));
  const Lora fast = stepped<Lora>(TypeParam(faster));
  EXPECT_TRUE(same_bits(plus.adapter().a().value, slow.adapter().a().value));
  EXPECT_TRUE(same_bits(plus.adapter().b().value, fast.adapter().b().value));
  EXPECT_FALSE(near(plus.adapter().b().value, slow.adapter().b().value));
}

// MoRA has no B that could learn faster than A.
TYPED_TEST(Optimizer, RefusesLoraPlusForMora) {
  const auto settings = settings_with_memory<typename TypeParam::Settings>();
  EXPECT_TRUE(throws<ArgumentError>({"group 0 (B)", "no parameter"}, [&] {
    (void)stepped<mora::MoraLinear<double>>(TypeParam(settings, {mora::lora_plus(settings, 16.0)}));
  }));
  for (const double ratio : {0.0, -1.0, nan<double>, infinity<double>}) {
    EXPECT_TRUE(throws<ArgumentError>({"ratio"}, [&] { (void)mora::lora_plus(settings, ratio); }));
  }
}

}  // namespace
}  // namespace mora_tests
