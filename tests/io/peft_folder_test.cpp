// SPDX-License-Identifier: MIT
#include <map>
#include <mora/io/llama/llama_folder.hpp>
#include <string>
#include <vector>

#include "support/compare.hpp"
#include "support/llama_fixture.hpp"
#include "support/peft.hpp"

/// \file
/// Adapter folders that PEFT wrote (fixtures/README.md), and wrong ones. Numbers are those of a
/// list of bad inputs, see docs/bad_inputs.md.

namespace mora_tests {
namespace {

using mora::FormatError;
using mora::LayerShape;
using mora::PeftFolder;

/// The model that the folder says it is for.
template <class T>
mora::Llama<T> base_of(const PeftFolder& folder) {
  return mora::LlamaFolder(stored_llama(folder.config().base_model)).model<T>();
}

mora::Batch batch_of_tokens(const Fixture& fixture) {
  mora::Batch batch;
  batch.tokens = integers_of<mora::Token>(fixture.tensor("tokens"));
  batch.targets.assign(batch.tokens.size(), mora::ignored);
  batch.starts = {0, std::ssize(batch.tokens)};
  return batch;
}

class StoredPeft : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(, StoredPeft,
                         testing::Values("lora", "rslora", "patterns", "modules_to_save", "regex",
                                         "some_layers", "tied", "tied_embedding", "dora", "hira",
                                         "miss", "lokr"),
                         [](const auto& name) { return std::string(name.param); });

TEST_P(StoredPeft, HasTheLogitsOfPeft) {
  const Fixture fixture("peft_folders.safetensors");
  const PeftFolder folder(stored_peft(GetParam()));
  mora::Llama<double> model = base_of<double>(folder);
  const mora::Batch batch = batch_of_tokens(fixture);
  const mora::Matrix<double> before = model.logits(batch);
  mora::attach_peft(model, "stored", folder);
  EXPECT_EQ(model.active(), "stored");
  const auto expected = fixture.tensor(std::string(GetParam()) + ".logits");
  EXPECT_TRUE(near(model.logits(batch), expected, {.relative = wide_transformers_tolerance}));
  // At the first position nothing turns, so that float32 angles make no difference.
  EXPECT_TRUE(near(model.logits(batch).row(0), expected.row(0)));
  ASSERT_TRUE(model.merge());
  EXPECT_TRUE(near(model.logits(batch), expected, {.relative = wide_transformers_tolerance}));
  model.unmerge();
  model.detach("stored");
  EXPECT_TRUE(same_bits(model.logits(batch), before));
  EXPECT_FALSE(near(before, expected, {.relative = 0.01}));
}

TEST_P(StoredPeft, IsSavedAsPeftDoes) {
  const PeftFolder folder(stored_peft(GetParam()));
  mora::Llama<float> model = base_of<float>(folder);
  mora::attach_peft(model, "stored", folder);
  const TemporaryFolder target;
  mora::save_peft(model, "stored", target / "new" / "folder",
                  {.base_model = folder.config().base_model});
  EXPECT_EQ(read_file(target / "new" / "folder" / "adapter_model.safetensors"),
            read_file(stored_peft(GetParam()) / "adapter_model.safetensors"));
  const PeftFolder again(target / "new" / "folder");
  EXPECT_EQ(again.warnings(), std::vector<std::string>{});
  EXPECT_EQ(again.modules(), folder.modules());
  EXPECT_EQ(again.config().scaling, folder.config().scaling);
  EXPECT_EQ(again.config().dropout, folder.config().dropout);
  EXPECT_EQ(again.config().base_model, folder.config().base_model);
  EXPECT_EQ(again.config().task_type, folder.config().task_type);
  EXPECT_EQ(again.config().ensure_weight_tying, folder.config().ensure_weight_tying);
  for (const std::string& module : folder.modules()) {
    EXPECT_EQ(again.config().saves(module), folder.config().saves(module)) << module;
    if (folder.config().saves(module)) continue;
    EXPECT_EQ(again.config().rank_of(module), folder.config().rank_of(module)) << module;
    EXPECT_EQ(again.config().alpha_of(module), folder.config().alpha_of(module)) << module;
  }
}

class PeftFolders : public PeftFolderTest {
 protected:
  /// The layers of the model that the fixture is for.
  std::vector<LayerShape> layers_ = mora::layer_shapes(
      mora::read_llama_config(stored_llama("untied_f32") / "config.json").config);
  [[nodiscard]] testing::AssertionResult does_not_fit(
      std::initializer_list<std::string_view> parts) const {
    return throws<FormatError>(parts, [&] { (void)open().adapters<float>(layers_); });
  }
  [[nodiscard]] LayerShape& layer(std::string_view module) {
    for (LayerShape& each : layers_) {
      if (each.module == module) return each;
    }
    throw std::runtime_error("no such layer");
  }
};

TEST_F(PeftFolders, SayWhichModulesTheyHave) {
  const PeftFolder folder = open();
  EXPECT_EQ(folder.modules().size(), 6u);
  EXPECT_EQ(folder.modules().front(), "model.layers.0.mlp.down_proj");
  const auto adapters = folder.adapters<float>(layers_);
  ASSERT_EQ(adapters.size(), 6u);
  EXPECT_EQ(adapters.front().module, "model.layers.0.mlp.down_proj");
  EXPECT_EQ(adapters.front().dropout, 0.05);
  const auto* const lora = adapters.front().adapter.get_if<mora::LoraAdapter<float>>();
  ASSERT_NE(lora, nullptr);
  EXPECT_EQ(lora->settings().rank, 4);
  EXPECT_EQ(lora->settings().scale(), 1.5);
}

// Every name of the config is looked for in every module, and in what that is in.
/// A file with a LoRA for one module alone.
void write_pair(const path& file, const std::string& module) {
  const std::vector<float> numbers(4, 1.0f);
  const auto bytes = std::as_bytes(std::span(numbers));
  mora::write_safetensors(file,
                          std::vector<mora::TensorBytes>{
                              {{module + ".lora_A.weight", mora::Dtype::f32, {4, 1}}, bytes},
                              {{module + ".lora_B.weight", mora::Dtype::f32, {1, 4}}, bytes}});
}

TEST_F(PeftFolders, OfFarTooManyNamesAndModulesAreRefused) {
  change_config([](Json& json) {
    json["target_modules"] = Json::array();
    for (int i = 0; i < 4000; ++i) json["target_modules"].push_back("m" + std::to_string(i));
  });
  std::string module = "a";
  for (int i = 0; i < 600'000; ++i) module += ".a";
  write_pair(tensors_path(), module);
  EXPECT_TRUE(throws<FormatError>({"expected at most 3333", "1200006 parts", "found 4000"},
                                  [&] { (void)open(); }));
}

TEST_F(PeftFolders, AreNotReadFromPickles) {
  std::filesystem::rename(tensors_path(), folder_ / "adapter_model.bin");
  EXPECT_TRUE(
      throws<mora::FileError>({"adapter_model.safetensors", "pickle"}, [&] { (void)open(); }));
  std::filesystem::remove(folder_ / "adapter_model.bin");
  EXPECT_TRUE(throws<mora::FileError>({"adapter_model.safetensors"}, [&] { (void)open(); }));
}

TEST_F(PeftFolders, Case121TargetsThatNameNothing) {
  set("target_modules", {"nothing"});
  EXPECT_TRUE(is_refused({"adapter_model.safetensors, tensor 'base_model.model.model.layers.0.",
                          "none of those that target_modules names; 5 more do not belong here: ",
                          "layers.1.self_attn.v_proj.lora_A.weight'"}));
  set("target_modules", {"q_proj", "v_proj", "down_proj", "nothing"});
  ASSERT_EQ(open().warnings().size(), 1u);
  EXPECT_NE(open().warnings()[0].find("target_modules names 'nothing'"), std::string::npos);
  set("modules_to_save", {"classifier"});
  ASSERT_EQ(open().warnings().size(), 1u);
  EXPECT_NE(open().warnings()[0].find("modules_to_save names 'classifier'"), std::string::npos);
  set("layers_to_transform", {0});
  EXPECT_TRUE(is_refused({"layers.1", "none of those that target_modules names"}));
}

TEST_F(PeftFolders, Case121ExpressionsThatLeaveTensorsOut) {
  constexpr std::string_view fault = "none of those that target_modules names";
  set("target_modules", ".*q_proj");
  EXPECT_TRUE(is_refused({"model.layers.0.mlp.down_proj'", fault}));
  set("target_modules", ".*[qn]_proj");
  EXPECT_TRUE(is_refused({"model.layers.0.self_attn.v_proj'", fault}));
  set("target_modules", ".*nothing_here");
  EXPECT_TRUE(is_refused({"model.layers.0.mlp.down_proj'", fault}));
  set("target_modules", "base_model\\..*");
  EXPECT_TRUE(is_refused({"model.layers.0.mlp.down_proj'", fault}));
  set("target_modules", "(((([");
  EXPECT_TRUE(is_refused({"adapter_config.json, key 'target_modules'", "'((((['", "position 4"}));
  set("target_modules", "model\\.layers\\.[01]\\.(mlp|self_attn)\\.(q|v|down)_proj");
  EXPECT_EQ(open().modules().size(), 6u);
  EXPECT_EQ(open().warnings(), std::vector<std::string>{});
}

TEST_F(PeftFolders, Case121ExpressionsThatExcludeAreAsLists) {
  for (const Json& excluded : {Json(".*q_proj"), Json::array({"q_proj"})}) {
    set("exclude_modules", excluded);
    EXPECT_TRUE(is_refused(
        {"model.layers.0.self_attn.q_proj'", "none of those that target_modules names"}));
  }
  for (const Json& excluded : {Json(".*k_proj"), Json::array({"k_proj"})}) {
    set("exclude_modules", excluded);
    EXPECT_EQ(open().modules().size(), 6u);
    EXPECT_EQ(open().warnings(), std::vector<std::string>{});
  }
}

TEST_F(PeftFolders, Case121TheHeadIsNoneOfAllLinearLayers) {
  set("target_modules", "all-linear");
  EXPECT_EQ(open().modules().size(), 6u);
  change_tensors([](Tensors& tensors) {
    for (mora::TensorBytes& tensor : tensors) {
      const std::size_t at = tensor.info.name.find("model.layers.1.self_attn.q_proj");
      if (at == std::string::npos) continue;
      tensor.info.name.replace(at, std::string("model.layers.1.self_attn.q_proj").size(),
                               "lm_head");
    }
  });
  EXPECT_TRUE(is_refused({"'lm_head'", "none of those that target_modules names"}));
}

// Every character of a name is followed through all states.
TEST_F(PeftFolders, Case120NamesFarTooLongForTheirExpressionsAreRefused) {
  set("target_modules", "(a.{0,2000})*");
  const std::string module(600'000, 'a');
  write_pair(tensors_path(), module);
  EXPECT_TRUE(
      throws<FormatError>({"expected at most 999250 characters", "4003 states", "found 1200028"},
                          [&] { (void)open(); }));
}

TEST_F(PeftFolders, Case123RanksThatAreNotTheTensors) {
  set("r", 5);
  EXPECT_TRUE(is_refused({"lora_A.weight': expected 5 rows", "found 4"}));
  set("rank_pattern", {{"v_proj", 3}});
  EXPECT_TRUE(is_refused({"v_proj.lora_A.weight': expected 3 rows", "found 4"}));
  set("rank_pattern", {{"v_proj", 4}});
  EXPECT_EQ(open().modules().size(), 6u);
  SetUp();
  change_tensors([](Tensors& tensors) {
    auto& b = find(tensors, "0.self_attn.q_proj.lora_B.weight")->info.shape;
    std::swap(b[0], b[1]);
  });
  EXPECT_TRUE(is_refused({"q_proj.lora_B.weight': expected 4 columns", "found 16"}));
}

TEST_F(PeftFolders, Case127HalfAPair) {
  change_tensors(
      [](Tensors& tensors) { tensors.erase(find(tensors, "1.mlp.down_proj.lora_B.weight")); });
  EXPECT_TRUE(
      is_refused({"1.mlp.down_proj.lora_A.weight': expected",
                  "'base_model.model.model.layers.1.mlp.down_proj.lora_B.weight' beside it"}));
  SetUp();
  change_tensors(
      [](Tensors& tensors) { tensors.erase(find(tensors, "1.mlp.down_proj.lora_A.weight")); });
  EXPECT_TRUE(is_refused({"1.mlp.down_proj.lora_B.weight': expected", "down_proj.lora_A.weight'"}));
}

TEST_F(PeftFolders, DoraHasAVectorOfAllLengths) {
  copy("dora");
  const auto drop = [](const char* end) {
    return [end](Tensors& tensors) { tensors.erase(find(tensors, end)); };
  };
  change_tensors(drop("0.self_attn.q_proj.lora_magnitude_vector"));
  EXPECT_TRUE(is_refused({"0.self_attn.q_proj", "lora_magnitude_vector' beside it"}));
  copy("dora");
  std::vector<float> numbers(7, 1.0f);
  const auto replace = [&](std::vector<Index> shape) {
    change_tensors([&](Tensors& tensors) {
      auto& tensor = *find(tensors, "0.self_attn.q_proj.lora_magnitude_vector");
      tensor.info.shape = shape;
      tensor.info.dtype = mora::Dtype::f32;
      tensor.bytes = std::as_bytes(std::span(numbers));
    });
  };
  replace({7});
  EXPECT_TRUE(does_not_fit({"q_proj.lora_magnitude_vector': expected shape", "found [7]"}));
  replace({7, 1});
  EXPECT_TRUE(is_refused({"q_proj.lora_magnitude_vector': expected a vector, found", "[7, 1]"}));
}

// Trained with dropout, which says nothing of inference: it loads, and a model refuses dropout.
TEST_F(PeftFolders, DoraHasNoDropout) {
  copy("dora");
  change_config([](Json& json) { json["lora_dropout"] = 0.05; });
  const auto warnings = open().warnings();
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("'lora_dropout' is left out"), std::string::npos) << warnings[0];
  for (const auto& each : open().adapters<float>(layers_)) {
    EXPECT_FALSE(each.adapter.additive());
    EXPECT_EQ(each.dropout, 0.0);
  }
}

TEST_F(PeftFolders, HiraAndMissFitTheirLayersOrAreRefused) {
  copy("hira");
  layer("model.layers.0.self_attn.q_proj").in_features += 1;
  EXPECT_TRUE(
      does_not_fit({"0.self_attn.q_proj.hira_A': expected shape", "an adapter of another"}));
  SetUp();
  copy("hira");
  change_config([](Json& json) { json["rank_pattern"] = {{"v_proj", 2}}; });
  (void)open();  // as PEFT, which has one rank of HiRA all the same
  change_config([](Json& json) { json["r"] = 4; });
  EXPECT_TRUE(is_refused({"hira_A': expected 4 rows", "found 3"}));
  copy("miss");
  change_config([](Json& json) { json["r"] = 4; });
  EXPECT_TRUE(is_refused({"miss_block': expected 4 rows", "found 5"}));
  change_config([](Json& json) { json["rank_pattern"] = {{"k_proj", 5}}; });
  EXPECT_TRUE(is_refused({"'rank_pattern': expected none, as MiSS has one rank"}));
}

// Which factors are in halves follows from the rank and the layer's size.
TEST_F(PeftFolders, LokrFitsItsLayersOrIsRefused) {
  copy("lokr");
  layer("model.layers.0.self_attn.v_proj").in_features = 20;
  EXPECT_TRUE(does_not_fit(
      {"0.self_attn.v_proj.lokr_w2': expected ", "[4, 5]", "20 inputs", "an adapter of another"}));
  layer("model.layers.0.self_attn.v_proj").in_features = 24;  // 2 < half of 6
  EXPECT_TRUE(does_not_fit(
      {"v_proj.lokr_w2': expected two thin halves", "[4, 6]", "rank of 2", "found a full one"}));
  layer("model.layers.0.self_attn.v_proj").in_features = 16;
  (void)open().adapters<float>(layers_);
  change_config([](Json& json) { json["decompose_both"] = false; });
  EXPECT_TRUE(does_not_fit(
      {"0.self_attn.q_proj.lokr_w1_a': expected a full factor [4, 4]", "found halves"}));
  change_config([](Json& json) { json["decompose_factor"] = 2; });
  EXPECT_TRUE(does_not_fit({"lm_head.lokr_w1': expected shape [2, 2]", "found [4, 4]"}));
  copy("lokr");
  change_config([](Json& json) { json["rank_pattern"] = {{"q_proj", 3}}; });
  EXPECT_TRUE(is_refused({"q_proj.lokr_w1_b': expected 3 rows", "found 1"}));
  const auto drop = [&](const char* end) {
    copy("lokr");
    change_tensors([end](Tensors& tensors) { tensors.erase(find(tensors, end)); });
  };
  drop("0.mlp.down_proj.lokr_w2_b");
  EXPECT_TRUE(is_refused({"0.mlp.down_proj", "lokr_w2_b' beside it"}));
  drop("0.self_attn.v_proj.lokr_w1");
  EXPECT_TRUE(is_refused({"0.self_attn.v_proj", "lokr_w1' beside it"}));
  const auto rename = [&](const char* end, const char* other) {
    copy("lokr");
    change_tensors([=](Tensors& tensors) {
      tensors.push_back(*find(tensors, end));
      std::string& name = tensors.back().info.name;
      name.replace(name.rfind('.') + 1, name.npos, other);
    });
  };
  rename("0.mlp.down_proj.lokr_w1", "lokr_w1_a");
  EXPECT_TRUE(is_refused({"down_proj.lokr_w1_a': is no part of an adapter of LoKr"}));
  rename("0.mlp.down_proj.lokr_w1", "lokr_t2");
  EXPECT_TRUE(is_refused({"down_proj.lokr_t2': is a part of LoKr of a convolution"}));
}

TEST_F(PeftFolders, Case128TensorsThatBelongToNothing) {
  const auto with = [&](const char* name) {
    SetUp();
    change_tensors([name](Tensors& tensors) {
      tensors.push_back(tensors.front());
      tensors.back().info.name = name;
    });
  };
  with("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector");
  EXPECT_TRUE(is_refused({"lora_magnitude_vector': is no part of an adapter of LoRA"}));
  with("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector.weight");
  EXPECT_TRUE(is_refused({"is no part of an adapter of LoRA"}));
  with("base_model.model.model.layers.0.self_attn.q_proj.hira_A");
  EXPECT_TRUE(is_refused({"hira_A': is no part of an adapter of LoRA"}));
  with("base_model.model.model.embed_tokens.lora_embedding_A");
  EXPECT_TRUE(is_refused({"is a part of LoRA on an embedding"}));
  with("base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias");
  EXPECT_TRUE(is_refused({"is a part of a bias of B"}));
  with("base_model.model.model.embed_tokens.weight");
  EXPECT_TRUE(is_refused({"'base_model.model.model.embed_tokens.weight'", "modules_to_save"}));
  with("base_model.model.model.layers.0.self_attn.q_proj.bias");
  EXPECT_TRUE(is_refused({"q_proj"}));
  with("base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight");
  EXPECT_TRUE(is_refused({"k_proj.lora_A.weight'", "k_proj.lora_B.weight' beside it"}));
  with("base_model.model.model.layers.0.self_attn.q_proj.lora_C.weight");
  EXPECT_TRUE(is_refused({"lora_C"}));
  with("something");
  EXPECT_TRUE(is_refused(
      {"'something': is no part of an adapter", "'base_model.model.<module>.lora_A.weight'"}));
  with("base_model.model.model.layers.0.self_attn.q_proj.mora_M.weight");
  EXPECT_TRUE(is_refused({"mora_M.weight': is no part of an adapter of LoRA"}));
  // All of them are counted, and some are listed.
  SetUp();
  change_tensors([](Tensors& tensors) {
    for (int i = 0; i < 8; ++i) {
      tensors.push_back(tensors.front());
      tensors.back().info.name = "strange_" + std::to_string(i);
    }
  });
  EXPECT_TRUE(is_refused({"'strange_0': is no part of an adapter",
                          "; 7 more do not belong here: ", "'strange_1', ", "'strange_5', ..."}));
  // A module that the model does not have.
  SetUp();
  std::erase_if(layers_, [](const LayerShape& each) { return each.module.ends_with("q_proj"); });
  EXPECT_TRUE(does_not_fit({"q_proj.lora_A.weight'", "none of the model's 19: model.embed_tokens, ",
                            ", ...; 1 more does", "layers.1.self_attn.q_proj.lora_A.weight'"}));
}

// PEFT stores the head's frozen weight too where the head is adapted (save_embedding_layers).
TEST_F(PeftFolders, LeavesOutTheFrozenWeightOfAnAdaptedHead) {
  copy("head");
  const PeftFolder folder = open();
  EXPECT_EQ(folder.modules(),
            (std::vector<std::string>{"lm_head", "model.layers.0.self_attn.q_proj",
                                      "model.layers.1.self_attn.q_proj"}));
  ASSERT_EQ(folder.warnings().size(), 1u);
  EXPECT_NE(folder.warnings()[0].find("the frozen weight of 'lm_head' is stored too"),
            std::string::npos);
  const Fixture fixture("peft_folders.safetensors");
  mora::Llama<double> model = base_of<double>(folder);
  mora::attach_peft(model, "stored", folder);
  EXPECT_TRUE(near(model.logits(batch_of_tokens(fixture)), fixture.tensor("head.logits"),
                   {.relative = wide_transformers_tolerance}));
  // Alone it is no adapter's.
  change_tensors([](Tensors& tensors) {
    std::erase_if(tensors, [](const auto& tensor) {
      return tensor.info.name.find("lm_head.lora_") != std::string::npos;
    });
  });
  EXPECT_TRUE(is_refused({"lm_head.base_layer.weight': is the weight below an adapter"}));
}

TEST_F(PeftFolders, Case129OtherNames) {
  const auto rename = [&](const std::string& from, const std::string& to) {
    SetUp();
    change_tensors([&](Tensors& tensors) {
      for (auto& tensor : tensors) {
        std::string& name = tensor.info.name;
        if (const auto at = name.find(from); at != name.npos) name.replace(at, from.size(), to);
      }
    });
  };
  const auto expected = open().modules();
  for (const auto& [from, to] :
       {std::pair("base_model.model.", ""), std::pair(".lora_A.weight", ".lora_A.default.weight"),
        std::pair("1.mlp.down_proj.lora_B", "1.mlp.down_proj.lora_B.default")}) {
    rename(from, to);
    EXPECT_EQ(open().modules(), expected) << to;
  }
  rename(".lora_A.weight", ".lora_A.other.weight");
  EXPECT_TRUE(is_refused({"lora_A.other.weight'"}));
  rename(".lora_A.weight", ".lora_a.weight");
  EXPECT_TRUE(is_refused({"lora_a.weight'"}));
  rename(".lora_A.weight", ".lora_A");
  EXPECT_TRUE(
      is_refused({"is no part of an adapter; expected names such as "
                  "'base_model.model.<module>.lora_A.weight'"}));
  rename("base_model.model.", "model.");
  EXPECT_TRUE(does_not_fit({"'model.model.layers.0", "none of the model's"}));
  SetUp();
  change_tensors([](Tensors& tensors) {
    tensors.push_back(*find(tensors, "0.self_attn.q_proj.lora_A.weight"));
    tensors.back().info.name = "model.layers.0.self_attn.q_proj.lora_A.weight";
  });
  EXPECT_TRUE(is_refused({"a second time"}));
}

TEST_F(PeftFolders, Case130ModulesOfConfusingNames) {
  std::vector<mora::NamedAdapter<float>> adapters;
  mora::SplitMix64 generator(3);
  for (const char* const name : {"weight", "lora", "bias", "default", "lora_A", "lora_B.weight",
                                 "x.lora_A.default", "base_model.model", "a.weight.bias"}) {
    mora::LoraAdapter<float> lora(5, 6, {.rank = 2}, generator);
    mora::fill_normal(lora.b().value, 1.0, generator);
    adapters.push_back({name, mora::AnyAdapter<float>(std::move(lora))});
  }
  std::sort(adapters.begin(), adapters.end(),
            [](const auto& a, const auto& b) { return a.module < b.module; });
  mora::save_peft(adapters, folder_ / "new");
  layers_.clear();
  for (const auto& each : adapters) {
    layers_.push_back({.module = each.module, .in_features = 5, .out_features = 6});
  }
  const auto again = PeftFolder(folder_ / "new").adapters<float>(layers_);
  ASSERT_EQ(again.size(), adapters.size());
  for (std::size_t i = 0; i < again.size(); ++i) {
    EXPECT_EQ(again[i].module, adapters[i].module);
    const auto& a = *again[i].adapter.get_if<mora::LoraAdapter<float>>();
    const auto& b = *adapters[i].adapter.get_if<mora::LoraAdapter<float>>();
    EXPECT_TRUE(same_bits(a.a().value, b.a().value));
    EXPECT_TRUE(same_bits(a.b().value, b.b().value));
  }
}

TEST_F(PeftFolders, Case131AdaptersOfAnotherModel) {
  layer("model.layers.1.mlp.down_proj").in_features = 48;
  EXPECT_TRUE(
      does_not_fit({"layers.1.mlp.down_proj.lora_A.weight': expected shape [4, 48] for 48 inputs "
                    "and 16 outputs, found [4, 24]: an adapter of another model?"}));
  layer("model.layers.1.mlp.down_proj").in_features = 24;
  layer("model.layers.1.mlp.down_proj").out_features = 32;
  EXPECT_TRUE(does_not_fit({"down_proj.lora_B.weight': expected shape [32, 4]", "found [16, 4]"}));
  layer("model.layers.1.mlp.down_proj").out_features = 16;
  layer("model.layers.1.mlp.down_proj").linear = false;
  EXPECT_TRUE(does_not_fit({"down_proj.lora_A.weight'", "no linear layer"}));
}

TEST_F(PeftFolders, Case131WholeModulesOfAnotherModel) {
  copy("modules_to_save");
  EXPECT_EQ(open().adapters<float>(layers_).size(), 8u);
  layer("model.norm").in_features = 17;
  EXPECT_TRUE(does_not_fit({"model.norm.weight': expected shape [17]", "found [16]"}));
  layer("model.norm").in_features = 16;
  layer("lm_head").out_features = 33;
  EXPECT_TRUE(does_not_fit({"lm_head.weight': expected shape [33, 16]", "found [32, 16]"}));
  layer("lm_head").out_features = 32;
  layer("lm_head").bias = true;
  EXPECT_TRUE(does_not_fit({"lm_head.weight': expected a bias of 32 numbers beside it"}));
  change_tensors([](Tensors& tensors) {
    tensors.push_back(*find(tensors, "model.norm.weight"));
    tensors.back().info.name = "base_model.model.lm_head.bias";
  });
  EXPECT_TRUE(does_not_fit({"lm_head.bias': expected shape [32]", "found [16]"}));
  layer("lm_head").bias = false;
  EXPECT_TRUE(does_not_fit({"lm_head.bias': its module has no bias in this model"}));
}

TEST_F(PeftFolders, OfATiedModelAreRefusedWhereTheyWouldUntieIt) {
  copy("tied_embedding");
  layers_ = mora::layer_shapes(
      mora::read_llama_config(stored_llama("tied_bf16_shards") / "config.json").config);
  EXPECT_EQ(open().adapters<float>(layers_).size(), 4u);
  change_tensors([](Tensors& tensors) { tensors.erase(find(tensors, "lm_head.weight")); });
  EXPECT_TRUE(does_not_fit({"embed_tokens.weight': expected 'lm_head' stored as well"}));
  copy("tied_embedding");
  std::string numbers;
  change_tensors([&](Tensors& tensors) {
    const auto head = find(tensors, "lm_head.weight");
    numbers.assign(head->bytes.size(), '\0');
    head->bytes = std::as_bytes(std::span(numbers));
  });
  EXPECT_TRUE(
      does_not_fit({"lm_head.weight': expected the numbers of "
                    "'base_model.model.model.embed_tokens.weight'"}));
  copy("some_layers");
  EXPECT_TRUE(does_not_fit({"lm_head.lora_A.weight'", "tied to model.embed_tokens"}));
}

TEST_F(PeftFolders, Case127WholeModulesWithoutAWeightOrOfOtherDimensions) {
  copy("modules_to_save");
  change_tensors([](Tensors& tensors) {
    find(tensors, "lm_head.weight")->info.name = "base_model.model.lm_head.bias";
  });
  EXPECT_TRUE(is_refused({"lm_head.bias': expected 'base_model.model.lm_head.weight' beside it"}));
  copy("modules_to_save");
  change_tensors([](Tensors& tensors) {
    mora::TensorBytes& head = *find(tensors, "lm_head.weight");
    head.info.shape.push_back(1);
  });
  EXPECT_TRUE(is_refused({"lm_head.weight': expected a matrix or a vector, found shape"}));
}

TEST_F(PeftFolders, MissOfARankBeyondTheInputsIsRefused) {
  copy("miss");
  layers_ =
      mora::layer_shapes(mora::LlamaFolder(stored_llama(open().config().base_model)).config());
  for (LayerShape& each : layers_) {
    if (each.linear) each.in_features = 4;
  }
  EXPECT_TRUE(does_not_fit({"miss_block': expected a rank of at most 4, the inputs, found 5"}));
}

TEST_F(PeftFolders, Case135TensorsWithoutNumbers) {
  change_tensors([](Tensors& tensors) {
    const auto a = find(tensors, "0.self_attn.q_proj.lora_A.weight");
    a->info.shape = {0, 16};
    a->bytes = {};
  });
  EXPECT_TRUE(is_refused({"q_proj.lora_A.weight': expected numbers, found shape [0, 16]"}));
  SetUp();
  change_tensors([](Tensors& tensors) {
    find(tensors, "0.self_attn.q_proj.lora_A.weight")->info.shape = {4, 16, 1};
  });
  EXPECT_TRUE(is_refused({"expected a matrix, found shape [4, 16, 1]"}));
  SetUp();
  change_tensors([](Tensors& tensors) {
    find(tensors, "0.self_attn.q_proj.lora_A.weight")->info.dtype = mora::Dtype::i32;
  });
  EXPECT_TRUE(is_refused({"q_proj.lora_A.weight': expected F64, F32", "found I32"}));
}

TEST_F(PeftFolders, Case136NoAdapterAtAll) {
  change_tensors([](Tensors& tensors) { tensors.clear(); });
  EXPECT_TRUE(is_refused({"expected an adapter, found none in 0 tensors"}));
  copy("modules_to_save");
  change_tensors([](Tensors& tensors) {
    std::erase_if(
        tensors, [](const auto& each) { return each.info.name.find("lora") != std::string::npos; });
  });
  EXPECT_TRUE(is_refused({"expected an adapter, found none in 6 tensors"}));
}

TEST_F(PeftFolders, Case29AScaleBeyondTheScalarIsRefused) {
  set("lora_alpha", 1e300);
  EXPECT_TRUE(does_not_fit({"down_proj.lora_A.weight': alpha", "expected a finite number"}));
  EXPECT_EQ(open().adapters<double>(layers_).size(), 6u);
}

TEST_F(PeftFolders, AreReadInEveryDtype) {
  const auto wide = open().adapters<double>(layers_);
  for (const mora::Dtype dtype : {mora::Dtype::f64, mora::Dtype::bf16, mora::Dtype::f16}) {
    mora::save_peft(wide, folder_ / "new", {.dtype = dtype});
    const auto again = PeftFolder(folder_ / "new").adapters<double>(layers_);
    const double allowed = dtype == mora::Dtype::f64   ? 0.0
                           : dtype == mora::Dtype::f16 ? 0x1p-11
                                                       : 0x1p-8;
    for (std::size_t i = 0; i < wide.size(); ++i) {
      const auto& a = again[i].adapter.get_if<mora::LoraAdapter<double>>()->a().value;
      const auto& b = wide[i].adapter.get_if<mora::LoraAdapter<double>>()->a().value;
      EXPECT_TRUE(near(a, b, {.relative = allowed}));
    }
  }
}

TEST_F(PeftFolders, AreAttachedToAModelAsAWholeOrNotAtAll) {
  const PeftFolder folder = open();
  auto model = base_of<float>(folder);
  model.attach("other", mora::MoraSettings<>{.rank = 2}, {.modules = {"down_proj"}});
  const auto before = model.names();
  // The last module has an adapter of that name already.
  EXPECT_TRUE(
      throws<mora::ArgumentError>({"'other' has an adapter on model.layers.0.mlp.down_proj"},
                                  [&] { mora::attach_peft(model, "other", folder); }));
  EXPECT_EQ(model.names(), before);
  EXPECT_EQ(model.attached("other").size(), 2u);
  EXPECT_TRUE(throws<mora::ArgumentError>({"the name is empty"},
                                          [&] { mora::attach_peft(model, "", folder); }));
  mora::attach_peft(model, "mine", folder);
  EXPECT_EQ(model.active(), "mine");
  EXPECT_EQ(model.attached("mine").size(), 6u);
  EXPECT_EQ(model.attached("mine").front().dropout, 0.05);
  model.merge();
  EXPECT_THROW(mora::attach_peft(model, "third", folder), mora::StateError);
}

TEST_F(PeftFolders, GiveAModelAdaptersThatTrain) {
  const PeftFolder folder = open();
  auto model = base_of<double>(folder);
  mora::attach_peft(model, "mine", folder);
  mora::Batch batch = batch_of_tokens(Fixture("peft_folders.safetensors"));
  batch.targets.assign(batch.tokens.size(), 3);
  model.accumulate_gradients(batch, 1.0);
  mora::Index count = 0;
  model.visit_parameters([&](std::string_view name, const auto& parameter) {
    EXPECT_TRUE(name.ends_with("_proj.A") || name.ends_with("_proj.B")) << name;
    EXPECT_GT(parameter.gradient.norm(), 0.0) << name;
    ++count;
  });
  EXPECT_EQ(count, 12);
}

TEST(NamedAdapters, MustFitTheModel) {
  auto model = mora::LlamaFolder(stored_llama("untied_f32")).model<float>();
  const auto refuses = [&]<class E>(std::type_identity<E>, mora::NamedAdapter<float> each,
                                    const char* part) {
    EXPECT_TRUE(throws<E>({part}, [&] { model.attach("new", {std::move(each)}); }));
    EXPECT_TRUE(model.names().empty());
  };
  const auto mora_of = [](mora::Index in, mora::Index out) {
    return mora::AnyAdapter<float>(mora::MoraAdapter<float>(in, out, {.rank = 2}));
  };
  const std::type_identity<mora::ArgumentError> argument;
  const std::type_identity<mora::ShapeError> shape;
  refuses(argument, {"model.layers.7.mlp.up_proj", mora_of(16, 24)}, "layers.7.mlp.up_proj");
  refuses(shape, {"model.layers.0.mlp.up_proj", mora_of(24, 16)},
          "model.layers.0.mlp.up_proj.weight: expected 24 x 16, found 16 x 24");
  refuses(argument, {"model.norm", mora_of(16, 1)}, "model.norm is no linear layer");
  refuses(argument, {"model.layers.0.mlp.up_proj", mora_of(16, 24), 1.0}, "dropout: expected");
  refuses(
      argument,
      {"model.norm",
       mora::AnyAdapter<float>(mora::FullAdapter<float>(mora::Matrix<float>::Ones(1, 16).eval())),
       0.5},
      "dropout: expected 0 on model.norm");
  EXPECT_TRUE(throws<mora::ArgumentError>({"found none"}, [&] { model.attach("new", {}); }));
  auto tied = mora::LlamaFolder(stored_llama("tied_bf16_shards")).model<float>();
  EXPECT_TRUE(throws<mora::ArgumentError>({"lm_head is the embedding"}, [&] {
    tied.attach("new", {{"lm_head", mora_of(18, 29)}});
  }));
}

class LayersByName : public PeftFolders {
 protected:
  using Layers = std::map<std::string, mora::LoraLinear<float>>;
  [[nodiscard]] static Layers layers_of(const PeftFolder& folder) {
    Layers layers;
    const auto model = base_of<float>(folder);
    mora::SplitMix64 generator(5);
    for (const std::string& module : folder.modules()) {
      const auto place = model.tensors().place_of(module);
      layers.emplace(module,
                     mora::LoraLinear<float>(model.weights()[place], {.rank = 3}, generator));
    }
    return layers;
  }
};

TEST_F(LayersByName, GetTheirAdapters) {
  const PeftFolder folder = open();
  Layers layers = layers_of(folder);
  mora::load_peft(layers, folder);
  auto model = base_of<float>(folder);
  mora::attach_peft(model, "same", folder);
  for (const auto& [module, layer] : layers) {
    const auto& expected = *model.adapter("same", module)->get_if<mora::LoraAdapter<float>>();
    EXPECT_TRUE(same_bits(layer.adapter().a().value, expected.a().value)) << module;
    EXPECT_TRUE(same_bits(layer.adapter().b().value, expected.b().value)) << module;
    EXPECT_EQ(layer.adapter().settings().scale(), expected.settings().scale());
  }
}

TEST_F(LayersByName, GetAllOrNone) {
  const PeftFolder folder = open();
  const auto unchanged = [&](Layers& layers, const auto& error, const char* part) {
    using E = typename std::decay_t<decltype(error)>::type;
    const Layers before = layers;
    EXPECT_TRUE(throws<E>({part}, [&] { mora::load_peft(layers, folder); }));
    for (const auto& [module, layer] : layers) {
      EXPECT_TRUE(same_bits(std::as_const(layer).adapter().a().value,
                            before.at(module).adapter().a().value));
    }
  };
  Layers layers = layers_of(folder);
  layers.emplace("zz", layers.begin()->second);
  unchanged(layers, std::type_identity<mora::ArgumentError>{},
            "layer zz: the folder has no adapter");
  layers = layers_of(folder);
  layers.erase(std::prev(layers.end()));
  unchanged(layers, std::type_identity<FormatError>{}, "none of the model's 5");
  layers = layers_of(folder);
  std::prev(layers.end())->second.merge();
  unchanged(layers, std::type_identity<mora::StateError>{}, "merged");
  std::map<std::string, mora::MoraLinear<float>> others;
  for (const auto& [module, layer] : layers)
    others.emplace(module, mora::MoraLinear<float>(layer.base()));
  EXPECT_TRUE(throws<mora::ArgumentError>({"is of another type than the layer's"},
                                          [&] { mora::load_peft(others, folder); }));
}

}  // namespace
}  // namespace mora_tests
