// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <mora/mora.hpp>
#include <string>
#include <typeinfo>

#include "support/compare.hpp"
#include "support/fixture.hpp"
#include "support/random.hpp"

/// \file
/// Outputs, gradients and merged weights against those of the paper's Python code and of PEFT: see
/// fixtures/README.md.

namespace mora_tests {
namespace {

using mora::FrozenLinear;
using mora::Matrix;

FrozenLinear<double> frozen_of(const Fixture& fixture) {
  return {fixture.tensor("weight"), fixture.tensor("bias")};
}

/// With the adapter's parameters set: everything that the file says about the layer. The gradients
/// of parameter P are the file's dP.
template <class Layer>
void expect_agrees(Layer& layer, const Fixture& fixture) {
  const Matrix<double> x = fixture.tensor("x");
  const Matrix<double> y = fixture.tensor("y");
  typename Layer::Saved saved;
  EXPECT_TRUE(near(layer.forward(x), y));
  EXPECT_TRUE(near(layer.forward(x, saved), y));
  EXPECT_TRUE(near(layer.backward(fixture.tensor("dy"), saved), fixture.tensor("dx")));
  layer.visit_parameters([&](std::string_view name, const auto& p) {
    EXPECT_TRUE(near(p.gradient, fixture.tensor("d" + std::string(name)))) << name;
  });
  const Matrix<double> merged_weight = fixture.tensor("merged_weight");
  EXPECT_TRUE(near(layer.base().weight() + layer.update(), merged_weight));
  Matrix<double> target = layer.base().weight();
  layer.merge_into(target);
  EXPECT_TRUE(near(target, merged_weight));
  ASSERT_TRUE(layer.merge());
  EXPECT_TRUE(near(layer.forward(x), y));
}

class Reference : public testing::TestWithParam<std::string> {};
std::string name_of(const testing::TestParamInfo<std::string>& file) {
  return file.param.substr(0, file.param.find('.'));
}

class MoraReference : public Reference {};
INSTANTIATE_TEST_SUITE_P(, MoraReference, testing::ValuesIn(Fixture::names("mora")), name_of);

TEST_P(MoraReference, Agrees) {
  const Fixture fixture(GetParam());
  ASSERT_EQ(fixture.text("kind"), "mora");
  const auto agrees = [&](const auto& op) {
    using Layer = mora::MoraLinear<double, std::decay_t<decltype(op)>>;
    Layer layer(frozen_of(fixture),
                {.rank = fixture.integer("r"), .rounding = mora::SideRounding::reference});
    EXPECT_EQ(layer.in_features(), fixture.integer("in_features"));
    EXPECT_EQ(layer.out_features(), fixture.integer("out_features"));
    ASSERT_EQ(layer.adapter().side(), fixture.integer("r_hat"));
    EXPECT_EQ(layer.adapter().settings().scale, fixture.number("scaling"));
    layer.adapter().matrix().value = fixture.tensor("M");
    expect_agrees(layer, fixture);
  };
  mora::with_mora_type(static_cast<int>(fixture.integer("mora_type")), agrees);
}

class LoraReference : public Reference {};
INSTANTIATE_TEST_SUITE_P(Standard, LoraReference, testing::ValuesIn(Fixture::names("lora")),
                         name_of);
INSTANTIATE_TEST_SUITE_P(RankStabilized, LoraReference, testing::ValuesIn(Fixture::names("rslora")),
                         name_of);

TEST_P(LoraReference, Agrees) {
  const Fixture fixture(GetParam());
  mora::LoraSettings settings;
  settings.rank = fixture.integer("r");
  settings.alpha = fixture.number("lora_alpha");
  if (fixture.text("kind") == "rslora") settings.scaling = mora::LoraScaling::rank_stabilized;
  EXPECT_TRUE(near<double>(settings.scale(), fixture.number("scaling"), settings.scale()));
  Random random(1);
  mora::LoraLinear<double> layer(frozen_of(fixture), settings, random.generator());
  layer.adapter().a().value = fixture.tensor("A");
  layer.adapter().b().value = fixture.tensor("B");
  expect_agrees(layer, fixture);
}

class DoraReference : public Reference {};
INSTANTIATE_TEST_SUITE_P(, DoraReference, testing::ValuesIn(Fixture::names("dora")), name_of);

TEST_P(DoraReference, Agrees) {
  const Fixture fixture(GetParam());
  mora::LoraAdapter<double> lora(
      fixture.tensor("A"), fixture.tensor("B"),
      {.rank = fixture.integer("r"), .alpha = fixture.number("lora_alpha")});
  mora::DoraLinear<double> layer(
      frozen_of(fixture),
      mora::DoraAdapter<mora::LoraAdapter<double>>(std::move(lora), fixture.tensor("magnitude")));
  expect_agrees(layer, fixture);
}

class HiraReference : public Reference {};
INSTANTIATE_TEST_SUITE_P(, HiraReference, testing::ValuesIn(Fixture::names("hira")), name_of);

TEST_P(HiraReference, Agrees) {
  const Fixture fixture(GetParam());
  mora::HiraLinear<double> layer(
      frozen_of(fixture), mora::HiraAdapter<double>(fixture.tensor("A"), fixture.tensor("B")));
  expect_agrees(layer, fixture);
}

class MissReference : public Reference {};
INSTANTIATE_TEST_SUITE_P(, MissReference, testing::ValuesIn(Fixture::names("miss")), name_of);

TEST_P(MissReference, Agrees) {
  const Fixture fixture(GetParam());
  mora::MissLinear<double> layer(frozen_of(fixture), {.rank = fixture.integer("r")});
  layer.adapter().matrix().value = fixture.tensor("D");
  expect_agrees(layer, fixture);
}

class LokrReference : public Reference {};
INSTANTIATE_TEST_SUITE_P(, LokrReference, testing::ValuesIn(Fixture::names("lokr")), name_of);

TEST_P(LokrReference, Agrees) {
  const Fixture fixture(GetParam());
  const mora::LokrSettings settings{.rank = fixture.integer("r"),
                                    .alpha = fixture.number("alpha"),
                                    .decompose_factor = fixture.integer("decompose_factor"),
                                    .decompose_both = fixture.integer("decompose_both") != 0};
  Random random(1);
  mora::LokrLinear<double> layer(frozen_of(fixture), settings, random.generator());
  layer.visit_parameters([&](std::string_view name, auto& p) {
    EXPECT_EQ(p.value.norm() == 0.0, name == "W1" || name == "W1a") << name;  // as PEFT begins
    p.value = fixture.tensor(std::string(name));
  });
  expect_agrees(layer, fixture);
}

TEST(Reference, AllFilesAreThere) {
  EXPECT_EQ(Fixture::names("mora").size(), 5u * 7u);
  EXPECT_EQ(Fixture::names("lora").size(), 4u);
  EXPECT_EQ(Fixture::names("rslora").size(), 4u);
  EXPECT_EQ(Fixture::names("dora").size(), 4u);
  EXPECT_EQ(Fixture::names("hira").size(), 4u);
  EXPECT_EQ(Fixture::names("miss").size(), 4u);
  EXPECT_EQ(Fixture::names("lokr").size(), 5u);
}

TEST(ReferenceTypes, AreThoseOfThePapersCode) {
  const auto name = [](const auto& op) { return std::string(typeid(op).name()); };
  EXPECT_EQ(mora::with_mora_type(1, name), name(mora::Sharing()));
  EXPECT_EQ(mora::with_mora_type(2, name), name(mora::AdjacentSharing()));
  EXPECT_EQ(mora::with_mora_type(3, name), name(mora::AdjacentStridedSharing()));
  EXPECT_EQ(mora::with_mora_type(4, name), name(mora::StridedAdjacentSharing()));
  EXPECT_EQ(mora::with_mora_type(6, name), name(mora::Rotation()));
  for (const int type : {-1, 0, 5, 7, 99}) {
    EXPECT_THROW(mora::with_mora_type(type, name), mora::ArgumentError) << type;
  }
}

}  // namespace
}  // namespace mora_tests
