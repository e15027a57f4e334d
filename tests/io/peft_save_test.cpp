// SPDX-License-Identifier: MIT
#include <mora/io/llama/llama_folder.hpp>
#include <string>
#include <utility>
#include <vector>

#include "support/compare.hpp"
#include "support/llama_fixture.hpp"
#include "support/peft.hpp"

/// \file
/// Adapter folders that are written: what one folder can say, and what it cannot.

namespace mora_tests {
namespace {

using mora::AnyAdapter;
using mora::ArgumentError;
using mora::LayerShape;
using mora::LoraSettings;
using mora::NamedAdapter;
using mora::PeftFolder;

/// A and B random.
AnyAdapter<float> lora_adapter(const LoraSettings& settings, Index in = 5, Index out = 7) {
  mora::SplitMix64 generator(11);
  mora::LoraAdapter<float> adapter(in, out, settings, generator);
  mora::fill_normal(adapter.b().value, 1.0, generator);
  return AnyAdapter<float>(std::move(adapter));
}
AnyAdapter<float> mora_adapter() {
  return AnyAdapter<float>(mora::MoraAdapter<float>(5, 7, {.rank = 2}));
}
AnyAdapter<float> full_adapter() {
  return AnyAdapter<float>(mora::FullAdapter<float>(
      mora::FrozenLinear<float>(mora::Matrix<float>(mora::Matrix<float>::Ones(7, 5)))));
}

/// An operator of a user's own.
using OwnOperator = mora::Pair<mora::LeadingEntries, mora::GroupSpread<mora::StridedGroups>>;

class PeftSave : public testing::Test {
 protected:
  [[nodiscard]] Json config() const {
    return Json::parse(read_file(target_ / "adapter_config.json"));
  }
  [[nodiscard]] std::vector<NamedAdapter<float>> read(std::vector<std::string> modules) const {
    std::vector<LayerShape> layers;
    for (std::string& module : modules) {
      layers.push_back({.module = std::move(module), .in_features = 5, .out_features = 7});
    }
    return PeftFolder(target_.where()).adapters<float>(layers);
  }
  [[nodiscard]] testing::AssertionResult refuses(
      std::vector<NamedAdapter<float>> adapters,
      std::initializer_list<std::string_view> parts) const {
    return throws<ArgumentError>(parts, [&] { mora::save_peft(adapters, target_.where()); });
  }
  TemporaryFolder target_;
};

TEST_F(PeftSave, WritesWhatPeftNeeds) {
  mora::save_peft<float>({{"x.q", lora_adapter({.rank = 2, .alpha = 16.0}), 0.25},
                          {"x.q2", full_adapter()},
                          {"x.v", lora_adapter({.rank = 2, .alpha = 16.0}), 0.25}},
                         target_.where(), {.base_model = "base", .task_type = ""});
  EXPECT_EQ(target_.names(),
            (std::vector<std::string>{"adapter_config.json", "adapter_model.safetensors"}));
  EXPECT_EQ(config(), Json::parse(R"({
    "peft_type": "LORA", "task_type": null, "base_model_name_or_path": "base",
    "inference_mode": true, "r": 2, "rank_pattern": {}, "lora_dropout": 0.25,
    "target_modules": ["x.q", "x.v"], "modules_to_save": ["x.q2"], "bias": "none",
    "fan_in_fan_out": false, "init_lora_weights": true, "lora_alpha": 16, "alpha_pattern": {},
    "use_rslora": false})"));
  EXPECT_TRUE(config()["lora_alpha"].is_number_integer());
  const mora::SafetensorsFile file(target_ / "adapter_model.safetensors");
  EXPECT_EQ(file.metadata(), (mora::TextMap{{"format", "pt"}}));
  EXPECT_EQ(file.size(), 5);
  file.tensor("base_model.model.x.q2.weight").require_shape({7, 5});
  const auto again = read({"x.q", "x.q2", "x.v"});
  ASSERT_EQ(again.size(), 3u);
  EXPECT_EQ(again[0].dropout, 0.25);
  EXPECT_EQ(again[1].dropout, 0.0);
}

TEST_F(PeftSave, KeepsEveryBitOfSettingsThatDiffer) {
  const std::vector<NamedAdapter<float>> saved = {
      {"a", lora_adapter({.rank = 2, .alpha = 0.1, .scaling = mora::LoraScaling::rank_stabilized})},
      {"b.a",
       lora_adapter({.rank = 3, .alpha = 1e-30, .scaling = mora::LoraScaling::rank_stabilized})},
      {"c.b.a",
       lora_adapter({.rank = 1, .alpha = -4.0, .scaling = mora::LoraScaling::rank_stabilized})}};
  mora::save_peft(saved, target_.where());
  const auto again = read({"a", "b.a", "c.b.a"});
  ASSERT_EQ(again.size(), saved.size());
  for (std::size_t i = 0; i < saved.size(); ++i) {
    const auto& a = *again[i].adapter.get_if<mora::LoraAdapter<float>>();
    const auto& b = *saved[i].adapter.get_if<mora::LoraAdapter<float>>();
    EXPECT_EQ(a.settings().rank, b.settings().rank);
    EXPECT_EQ(a.settings().alpha, b.settings().alpha);
    EXPECT_EQ(a.settings().scaling, b.settings().scaling);
    EXPECT_TRUE(same_bits(a.a().value, b.a().value));
    EXPECT_TRUE(same_bits(a.b().value, b.b().value));
  }
  // In the order in which Python finds the first: longer names before what they end in.
  EXPECT_EQ(config()["rank_pattern"].dump(), R"({"c.b.a":1,"b.a":3,"a":2})");
}

// PEFT's HiRA, LoKr and MiSS do not have the key that brings a tied head.
TEST_F(PeftSave, NamesBothTiedModulesWhereThereIsNoKey) {
  Random random(4);
  mora::save_peft<float>({{"x.q", AnyAdapter<float>(mora::HiraAdapter<float>(
                                      random.matrix<float>(2, 5), random.matrix<float>(7, 2)))},
                          {"model.embed_tokens", full_adapter()}},
                         target_.where(), {.tied_head = true});
  EXPECT_EQ(config()["modules_to_save"], Json({"model.embed_tokens", "lm_head"}));
  EXPECT_FALSE(config().contains("ensure_weight_tying"));
  EXPECT_EQ(mora::PeftFolder(target_.where()).modules(),
            (std::vector<std::string>{"lm_head", "model.embed_tokens", "x.q"}));
}

TEST_F(PeftSave, HasMissOfNoMoreThanTheInputs) {
  Random random(5);
  EXPECT_TRUE(
      refuses({{"x.q", AnyAdapter<float>(mora::MissAdapter<float>(5, random.matrix<float>(6, 7)))}},
              {"x.q", "in_features, 5, found 6"}));
}

AnyAdapter<float> lokr_adapter(const mora::LokrSettings& settings) {
  mora::SplitMix64 generator(12);
  return AnyAdapter<float>(mora::LokrAdapter<float>(5, 7, settings, generator));
}

TEST_F(PeftSave, WritesTheKeysOfLokr) {
  mora::save_peft<float>({{"x.q", lokr_adapter({.rank = 2, .alpha = 3.0, .decompose_factor = 4})},
                          {"x.v", lokr_adapter({.rank = 1, .alpha = 0.5, .decompose_factor = 4})},
                          {"model.embed_tokens", full_adapter()}},
                         target_.where(), {.tied_head = true});
  EXPECT_EQ(config(), Json::parse(R"({
    "peft_type": "LOKR", "task_type": "CAUSAL_LM", "base_model_name_or_path": null,
    "inference_mode": true, "r": 2, "rank_pattern": {"x.q": 2, "x.v": 1},
    "target_modules": ["x.q", "x.v"], "modules_to_save": ["model.embed_tokens", "lm_head"],
    "init_weights": true, "alpha": 3, "alpha_pattern": {"x.q": 3, "x.v": 0.5},
    "decompose_factor": 4, "decompose_both": false})"));
  const auto again = read({"x.q", "x.v", "model.embed_tokens", "lm_head"});
  EXPECT_EQ(again.at(3).adapter.get_if<mora::LokrAdapter<float>>()->settings().alpha, 0.5);
}

TEST_F(PeftSave, RefusesLokrThatOneFolderCannotSay) {
  EXPECT_TRUE(refuses({{"a", lokr_adapter({})}, {"b", lokr_adapter({.decompose_factor = 2})}},
                      {"one decompose_factor", "a and b differ"}));
  EXPECT_TRUE(refuses({{"a", lokr_adapter({})}, {"b", lokr_adapter({.decompose_both = true})}},
                      {"one decompose_both", "a and b differ"}));
  EXPECT_TRUE(refuses({{"a", lokr_adapter({}), 0.5}}, {"a: PEFT's LoKr has no dropout", "0.5"}));
}

TEST_F(PeftSave, RefusesWhatOneFolderCannotSay) {
  EXPECT_TRUE(refuses({}, {"expected an adapter, found none"}));
  EXPECT_TRUE(refuses({{"a", full_adapter()}}, {"expected an adapter, found none"}));
  EXPECT_TRUE(refuses({{"a", lora_adapter({})}, {"b", mora_adapter()}},
                      {"one kind of adapter", "a and b differ"}));
  EXPECT_TRUE(refuses({{"a", lora_adapter({}), 0.5}, {"b", lora_adapter({})}},
                      {"one dropout", "a and b differ"}));
  EXPECT_TRUE(refuses({{"a", lora_adapter({})},
                       {"b", lora_adapter({.scaling = mora::LoraScaling::rank_stabilized})}},
                      {"one scaling of LoRA", "a and b differ"}));
  EXPECT_TRUE(refuses({{"a", mora_adapter()},
                       {"b", AnyAdapter<float>(mora::MoraAdapter<float, mora::Sharing>(5, 7))}},
                      {"one operator", "a and b differ"}));
  EXPECT_TRUE(refuses({{"a", AnyAdapter<float>(mora::MoraAdapter<float, mora::RandomSharing>(
                                 5, 7, {.op = {.seed = 1}}))},
                       {"b", AnyAdapter<float>(mora::MoraAdapter<float, mora::RandomSharing>(
                                 5, 7, {.op = {.seed = 2}}))}},
                      {"one operator", "a and b differ"}));
  EXPECT_TRUE(refuses({{"a", AnyAdapter<float>(mora::MoraAdapter<float, OwnOperator>(5, 7))}},
                      {"a: its adapter is of a type that an adapter folder cannot name"}));
  EXPECT_TRUE(refuses({{"a", lora_adapter({})}, {"a", lora_adapter({})}}, {"a: is there twice"}));
  EXPECT_TRUE(refuses({{"a+", lora_adapter({})}, {"b", lora_adapter({.rank = 2})}},
                      {"a+: modules of such names"}));
  EXPECT_TRUE(refuses({{"a\xff", lora_adapter({})}}, {"UTF-8"}));
  // What would be read as something else.
  EXPECT_TRUE(refuses({{"a.head", lora_adapter({})}, {"head", full_adapter()}},
                      {"'a.head'", "stored whole"}));
  EXPECT_TRUE(refuses({{"block.q", lora_adapter({})}, {"block", full_adapter()}},
                      {"'block.q'", "stored whole"}));
  EXPECT_TRUE(refuses({{"", lora_adapter({})}}, {"expected names of modules, found ''"}));
  EXPECT_TRUE(refuses({{"a", lora_adapter({})}, {"x.lora_A", full_adapter()}},
                      {"'x.lora_A'", "lora_A.weight' would be read as another"}));
  EXPECT_TRUE(refuses({{"a.lora_embedding_x", lora_adapter({})}}, {"would be read as another"}));
  EXPECT_TRUE(refuses({{"a/b", lora_adapter({})}, {"b", lora_adapter({.rank = 2})}},
                      {"a folder cannot say this", "'a/b'"}));
  std::string deep = "a";
  for (int i = 0; i < 600'000; ++i) deep += ".a";
  std::vector<NamedAdapter<float>> many = {{deep, lora_adapter({})}};
  for (int i = 0; i < 3400; ++i) many.push_back({"m" + std::to_string(i), lora_adapter({})});
  EXPECT_TRUE(refuses(std::move(many), {"a folder cannot say this", "found 3401"}));
  AnyAdapter<float> resized = lora_adapter({});
  resized.parameters()[0].parameter->value.resize(3, 5);
  EXPECT_TRUE(throws<mora::ShapeError>({"A, rows"}, [&] {
    mora::save_peft<float>({{"a", resized}}, target_.where());
  }));
  EXPECT_EQ(target_.names(), std::vector<std::string>{});
}

TEST_F(PeftSave, LeavesTheOldFolderWhereTheNewOneCannotBe) {
  mora::save_peft<float>({{"a", lora_adapter({.rank = 2})}}, target_.where());
  const std::string config = read_file(target_ / "adapter_config.json");
  const std::string tensors = read_file(target_ / "adapter_model.safetensors");
  AnyAdapter<float> large = lora_adapter({.rank = 3});
  large.parameters()[0].parameter->value(0, 0) = 1e6f;
  EXPECT_TRUE(
      throws<mora::NumericError>({"base_model.model.a.lora_A.weight", "too large for F16"}, [&] {
        mora::save_peft<float>({{"a", large}}, target_.where(), {.dtype = mora::Dtype::f16});
      }));
  EXPECT_THROW(mora::save_peft<float>({{"a", large}}, target_.where(), {.dtype = mora::Dtype::i8}),
               ArgumentError);
  EXPECT_EQ(target_.names(),
            (std::vector<std::string>{"adapter_config.json", "adapter_model.safetensors"}));
  EXPECT_EQ(read_file(target_ / "adapter_config.json"), config);
  EXPECT_EQ(read_file(target_ / "adapter_model.safetensors"), tensors);
}

TEST_F(PeftSave, Case147WritesOverTheFolderThatIsRead) {
  mora::save_peft<float>({{"a", lora_adapter({.rank = 2})}}, target_.where());
  const std::string tensors = read_file(target_ / "adapter_model.safetensors");
  const PeftFolder mapped(target_.where());
  const auto adapters = read({"a"});
  mora::save_peft(adapters, target_.where());
  mora::save_peft(adapters, target_.where());
  EXPECT_EQ(read_file(target_ / "adapter_model.safetensors"), tensors);
  const std::vector<LayerShape> layers = {{.module = "a", .in_features = 5, .out_features = 7}};
  EXPECT_EQ(mapped.adapters<float>(layers).size(), 1u);
}

TEST_F(PeftSave, WritesModelsWithEverythingThatTrains) {
  for (const bool tied : {false, true}) {
    Llama<float> model = random_model<float>(small_config(tied));
    mora::SplitMix64 generator(7);
    model.attach("all", LoraSettings{.rank = 3}, {.modules = {"q_proj", "up_proj"}}, generator,
                 0.125);
    model.attach("all", LoraSettings{.rank = 2, .alpha = 5.0},
                 {.modules = {"layers.0.mlp.down_proj"}}, generator, 0.125);
    model.attach("all", mora::FullSettings{}, {.modules = {"norm", "embed_tokens", "k_proj"}});
    model.visit_parameters(
        [&](auto, auto& parameter) { mora::fill_normal(parameter.value, 0.3, generator); });
    const auto batch = random_batch();
    const auto expected = model.logits(batch);
    mora::save_peft(model, "all", target_.where());
    Llama<float> again = random_model<float>(small_config(tied));
    mora::attach_peft(again, "again", PeftFolder(target_.where()));
    EXPECT_TRUE(same_bits(again.logits(batch), expected)) << tied;
    EXPECT_EQ(again.attached("again").size(), model.attached("all").size());
    const mora::SafetensorsFile file(target_ / "adapter_model.safetensors");
    file.tensor("base_model.model.model.norm.weight").require_shape({10});
    EXPECT_EQ(file.find("base_model.model.lm_head.weight").has_value(), tied);
    EXPECT_EQ(config().contains("ensure_weight_tying"), tied);
  }
}

TEST_F(PeftSave, Case61RefusesAMergedModel) {
  Llama<float> model = random_model<float>();
  mora::SplitMix64 generator(7);
  model.attach("mine", LoraSettings{}, {.all_linear = true}, generator);
  model.merge();
  EXPECT_TRUE(throws<mora::StateError>({"merged"},
                                       [&] { mora::save_peft(model, "mine", target_.where()); }));
  model.unmerge();
  EXPECT_TRUE(throws<ArgumentError>({"'other'"},
                                    [&] { mora::save_peft(model, "other", target_.where()); }));
  EXPECT_EQ(target_.names(), std::vector<std::string>{});
}

}  // namespace
}  // namespace mora_tests
