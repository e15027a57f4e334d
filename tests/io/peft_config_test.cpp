// SPDX-License-Identifier: MIT
#include <string>
#include <vector>

#include "support/peft.hpp"

/// \file
/// adapter_config.json: what is read, refused and warned of. Numbers are those of a list of bad
/// inputs, see docs/bad_inputs.md.

namespace mora_tests {
namespace {

using mora::FormatError;
using mora::LoraScaling;

class PeftConfigTest : public PeftFolderTest {
 protected:
  /// Whether the config is a FormatError that names the key, and has these parts.
  [[nodiscard]] testing::AssertionResult refused(const char* key,
                                                 std::initializer_list<std::string_view> parts) {
    if (auto result = throws<FormatError>(parts, [&] { (void)config(); }); !result) return result;
    const std::string place = "adapter_config.json, key '" + std::string(key);
    return throws<FormatError>({place}, [&] { (void)config(); });
  }
};

TEST_F(PeftConfigTest, HasWhatPeftWrote) {
  const mora::PeftConfig lora = config();
  EXPECT_EQ(lora.dialect, mora::PeftDialect::lora);
  EXPECT_EQ(lora.rank, 4);
  EXPECT_EQ(lora.alpha, 6.0);
  EXPECT_EQ(lora.scaling, LoraScaling::standard);
  EXPECT_EQ(lora.dropout, 0.05);
  EXPECT_EQ(lora.base_model, "untied_f32");
  EXPECT_EQ(lora.task_type, "CAUSAL_LM");
  EXPECT_EQ(lora.target_modules.size(), 3u);
  EXPECT_EQ(lora.warnings, std::vector<std::string>{});
  copy("rslora");
  EXPECT_EQ(config().scaling, LoraScaling::rank_stabilized);
  EXPECT_EQ(config().alpha, 2.5);
  copy("modules_to_save");
  EXPECT_EQ(config().modules_to_save,
            (std::vector<std::string>{"lm_head", "model.norm", "embed_tokens", "layers.1.mlp"}));
}

TEST_F(PeftConfigTest, TakesTheFirstPatternThatNamesAModule) {
  copy("patterns");
  const mora::PeftConfig patterns = config();
  EXPECT_EQ(patterns.rank_of("model.layers.1.self_attn.q_proj"), 5);
  EXPECT_EQ(patterns.rank_of("model.layers.0.self_attn.q_proj"), 2);
  EXPECT_EQ(patterns.rank_of("model.layers.0.mlp.up_proj"), 3);
  EXPECT_EQ(patterns.rank_of("model.layers.0.self_attn.o_proj"), 8);
  EXPECT_EQ(patterns.rank_of("xq_proj"), 8);
  EXPECT_EQ(patterns.alpha_of("up_proj"), 12.0);
  EXPECT_EQ(patterns.alpha_of("model.layers.0.self_attn.o_proj"), 1.5);
  EXPECT_EQ(patterns.alpha_of("model.layers.1.self_attn.o_proj"), 8.0);
  // In the file's order, which need not be the alphabet's.
  change_config([](Json& json) {
    json["rank_pattern"] = Json::object();
    json["rank_pattern"]["q_proj"] = 2;
    json["rank_pattern"]["layers.1.self_attn.q_proj"] = 5;
  });
  EXPECT_EQ(config().rank_of("model.layers.1.self_attn.q_proj"), 2);
}

// PEFT looks for (.*\.)?(key)$ from the start of a module's name.
TEST_F(PeftConfigTest, TakesPatternsOfOneModuleAlone) {
  set("rank_pattern", {{"^a.q_proj", 5}, {"^a.k_proj$", 6}, {"v_proj$", 7}});
  change_config([](Json& json) { json["alpha_pattern"] = {{"^q_proj", 3}}; });
  EXPECT_EQ(config().rank_of("a.q_proj"), 5);
  EXPECT_EQ(config().rank_of("b.a.q_proj"), 4);
  EXPECT_EQ(config().rank_of("a.k_proj"), 6);
  EXPECT_EQ(config().rank_of("b.a.k_proj"), 4);
  EXPECT_EQ(config().rank_of("b.v_proj"), 7);
  EXPECT_EQ(config().rank_of("v_proj"), 7);
  EXPECT_EQ(config().alpha_of("q_proj"), 3.0);
  EXPECT_EQ(config().alpha_of("a.q_proj"), 6.0);
  for (const auto& [key, character] : std::vector<std::pair<std::string, std::string>>{
           {"a^b", "^"}, {"a$b", "$"}, {"^^a", "^"}, {"a$$", "$"}, {"^(a|b)", "("}, {"a+", "+"}}) {
    set("rank_pattern", {{key, 2}});
    EXPECT_TRUE(refused("rank_pattern.", {" with '" + character + "'", "not supported"}));
  }
  for (const char* const key : {"", "^", "$", "^$"}) {
    set("rank_pattern", {{key, 2}});
    EXPECT_TRUE(refused("rank_pattern.", {"found ''"}));
  }
}

TEST_F(PeftConfigTest, Case112MissingOrFolderOrEmptyOrHuge) {
  write_file(config_path(), "");
  EXPECT_TRUE(throws<FormatError>({"adapter_config.json", "empty"}, [&] { (void)config(); }));
  write_file(config_path(), "{}");
  std::filesystem::resize_file(config_path(), 1'000'000'000);  // takes no place on the disk
  EXPECT_TRUE(throws<FormatError>({"expected at most 16000000 bytes, found 1000000000"},
                                  [&] { (void)config(); }));
  std::filesystem::remove(config_path());
  EXPECT_TRUE(throws<mora::FileError>({"adapter_config.json"}, [&] { (void)config(); }));
  std::filesystem::create_directory(config_path());
  EXPECT_TRUE(throws<mora::FileError>({"adapter_config.json"}, [&] { (void)config(); }));
}

TEST_F(PeftConfigTest, Case113UnknownKeysAreOneWarning) {
  change_config([](Json& json) {
    json["zebra"] = 1;
    json["aardvark"] = {{"deep", true}};
  });
  const auto warnings = config().warnings;
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("'aardvark', 'zebra'"), std::string::npos) << warnings[0];
}

TEST_F(PeftConfigTest, Case114WrongPeftType) {
  for (const Json& type : {Json("IA3"), Json("lora"), Json("mora"), Json("")}) {
    set("peft_type", type);
    EXPECT_TRUE(refused("peft_type", {"expected 'LORA', 'HIRA', 'LOKR', 'MISS' or 'MORA'",
                                      type.get<std::string>()}));
  }
  set("peft_type", 7);
  EXPECT_TRUE(refused("peft_type", {"expected a string, found 7"}));
  change_config([](Json& json) { json.erase("peft_type"); });
  EXPECT_TRUE(refused("peft_type", {"found none"}));
  set("peft_type", nullptr);
  EXPECT_TRUE(refused("peft_type", {"found none"}));
}

TEST_F(PeftConfigTest, Case115MissingRankIsPeftsDefault) {
  change_config([](Json& json) {
    json.erase("r");
    json.erase("lora_alpha");
  });
  EXPECT_EQ(config().rank, 8);
  EXPECT_EQ(config().alpha, 8.0);
}

TEST_F(PeftConfigTest, Case116RankOfAnotherType) {
  for (const auto& [value, found] : std::vector<std::pair<Json, const char*>>{
           {"8", "found \"8\""},
           {8.0, "found 8.0"},
           {8.5, "found 8.5"},
           {nullptr, "found null"},
           {true, "found true"},
           {{8}, "found [8]"},
           {-8, "found -8"},
           {0, "expected 1 to 1000000, found 0"},
           {1'000'001, "expected 1 to 1000000, found 1000001"},
           {18446744073709551615u, "found 18446744073709551615"}}) {
    set("r", value);
    EXPECT_TRUE(refused("r'", {found}));
    set("rank_pattern", {{"q_proj", value}});
    EXPECT_TRUE(refused("rank_pattern.q_proj'", {found}));
  }
  for (const auto& [value, found] : std::vector<std::pair<Json, const char*>>{
           {"8", "found \"8\""}, {nullptr, "found null"}, {true, "found true"}}) {
    set("lora_alpha", value);
    EXPECT_TRUE(refused("lora_alpha'", {found}));
    set("alpha_pattern", {{"q_proj", value}});
    EXPECT_TRUE(refused("alpha_pattern.q_proj'", {found}));
    set("lora_dropout", value);
    EXPECT_TRUE(refused("lora_dropout'", {found}));
  }
  for (const double value : {-0.1, 1.0}) {
    set("lora_dropout", value);
    EXPECT_TRUE(refused("lora_dropout'", {"expected 0 <= lora_dropout < 1"}));
  }
  for (const double alpha : {0.0, -3.5}) {
    set("lora_alpha", alpha);
    EXPECT_EQ(config().alpha, alpha);
  }
  write_file(config_path(), R"({"peft_type": "LORA", "lora_alpha": 1e400})");
  EXPECT_THROW((void)config(), FormatError);
}

TEST_F(PeftConfigTest, Case117DoraIsReadAndRefusedOverMora) {
  EXPECT_FALSE(config().dora);
  set("use_dora", true);
  EXPECT_TRUE(config().dora);
  change_config([](Json& json) { json["use_mora"] = true; });
  EXPECT_TRUE(refused("use_dora'", {"DoRA over MoRA is in no folder"}));
  set("peft_type", "MORA");
  change_config([](Json& json) {
    json["use_dora"] = true;
    json["mora_operator"] = "sharing";
  });
  EXPECT_TRUE(refused("use_dora'", {"DoRA over MoRA is in no folder"}));
}

TEST_F(PeftConfigTest, HiraAndMissAreReadWithTheirOwnDefaults) {
  write_file(config_path(), R"({"peft_type": "HIRA", "target_modules": ["q"],
                                "hira_dropout": 0.5, "init_weights": "gaussian"})");
  EXPECT_EQ(config().dialect, mora::PeftDialect::hira);
  EXPECT_EQ(config().rank, 32);
  EXPECT_EQ(config().dropout, 0.5);
  EXPECT_EQ(config().warnings.size(), 1u);  // of the dropout
  write_file(config_path(), R"({"peft_type": "MISS", "target_modules": ["q"],
                                "miss_dropout": 1.0, "init_weights": true, "mini_r": 1})");
  EXPECT_TRUE(refused("miss_dropout'", {"< 1", "found 1"}));
  change_config([](Json& json) { json["miss_dropout"] = 0.25; });
  EXPECT_EQ(config().dialect, mora::PeftDialect::miss);
  EXPECT_EQ(config().rank, 64);
  EXPECT_EQ(config().dropout, 0.25);
  EXPECT_EQ(config().warnings, std::vector<std::string>{});
  for (const char* const other : {"bat", "mini"}) {
    change_config([other](Json& json) { json["init_weights"] = other; });
    EXPECT_TRUE(refused("init_weights'", {other, "only the plain MiSS"}));
  }
}

TEST_F(PeftConfigTest, LokrIsReadWithItsOwnKeys) {
  write_file(config_path(), R"({"peft_type": "LOKR", "target_modules": ["q"]})");
  EXPECT_EQ(config().dialect, mora::PeftDialect::lokr);
  EXPECT_EQ(config().method(), "LoKr");
  EXPECT_EQ(config().rank, 8);
  EXPECT_EQ(config().alpha, 8.0);
  EXPECT_EQ(config().decompose_factor, -1);
  EXPECT_FALSE(config().decompose_both);
  copy("lokr");
  const auto put = [&](const char* key, const Json& value) {
    copy("lokr");
    change_config([&](Json& json) { json[key] = value; });
  };
  EXPECT_EQ(config().warnings, std::vector<std::string>{});
  const mora::LokrSettings settings = config().lokr_of("model.layers.0.self_attn.v_proj");
  EXPECT_EQ(settings.rank, 2);
  EXPECT_EQ(settings.alpha, 30.5);
  EXPECT_EQ(config().lokr_of("model.layers.0.self_attn.q_proj").rank, 1);
  EXPECT_TRUE(settings.decompose_both);
  put("decompose_factor", 16);
  EXPECT_EQ(config().decompose_factor, 16);
  for (const Json& wrong : {Json(0), Json(-2), Json(1.5), Json("4"), Json(true)}) {
    put("decompose_factor", wrong);
    EXPECT_TRUE(refused("decompose_factor'",
                        {"expected -1 or a whole number of at least 1", "found " + wrong.dump()}));
  }
  put("decompose_factor", nullptr);
  EXPECT_TRUE(refused("decompose_factor'", {"found null"}));
  put("alpha", "8");
  EXPECT_TRUE(refused("alpha'", {"found \"8\""}));
  put("decompose_both", 1);
  EXPECT_TRUE(refused("decompose_both'", {"found 1"}));
}

// Of training alone, and not there: the adapter is the same.
TEST_F(PeftConfigTest, DropoutsOfLokrAreLeftOut) {
  copy("lokr");
  change_config([](Json& json) {
    json["rank_dropout"] = 0.1;
    json["module_dropout"] = 0.2;
    json["rank_dropout_scale"] = true;
    json["use_effective_conv2d"] = true;
    json["init_weights"] = "lycoris";
  });
  const auto warnings = config().warnings;
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_NE(warnings[0].find("'rank_dropout' is left out"), std::string::npos) << warnings[0];
  EXPECT_NE(warnings[1].find("'module_dropout' is left out"), std::string::npos) << warnings[1];
  EXPECT_EQ(config().dropout, 0.0);
  change_config([](Json& json) { json["module_dropout"] = 1.5; });
  EXPECT_TRUE(refused("module_dropout'", {"expected 0 <= module_dropout <= 1", "found 1.5"}));
}

TEST_F(PeftConfigTest, Case118MoraWithoutTypeIsTheReferencesDefault) {
  set("use_mora", true);
  EXPECT_EQ(config().dialect, mora::PeftDialect::paper);
  EXPECT_TRUE(std::holds_alternative<mora::Sharing>(config().op));
  for (const int type : mora::mora_types) {
    change_config([&](Json& json) { json["mora_type"] = type; });
    EXPECT_EQ(mora::detail::mora_type_of(config().op), type);
  }
}

TEST_F(PeftConfigTest, Case27OtherMoraTypesAreRefused) {
  for (const int type : {0, 5, 7, 99}) {
    set("use_mora", true);
    change_config([&](Json& json) { json["mora_type"] = type; });
    EXPECT_TRUE(refused("mora_type'", {"expected 1, 2, 3, 4 or 6", std::to_string(type)}));
  }
  change_config([&](Json& json) { json["mora_type"] = -1; });
  EXPECT_TRUE(refused("mora_type'", {"found -1"}));
  set("mora_type", 1);
  EXPECT_TRUE(refused("mora_type'", {"expected use_mora to be true"}));
}

// The paper's fork of PEFT writes all of its fields.
TEST_F(PeftConfigTest, LoraOfThePapersForkIsLora) {
  set("use_mora", false);
  change_config([&](Json& json) { json["mora_type"] = 1; });
  EXPECT_EQ(config().dialect, mora::PeftDialect::lora);
  EXPECT_EQ(config().warnings, std::vector<std::string>{});
  change_config([&](Json& json) { json["mora_operator"] = "sharing"; });
  EXPECT_TRUE(refused("mora_operator'", {"is for peft_type 'MORA'"}));
}

// They would be left out, and the adapter be another.
TEST_F(PeftConfigTest, KeysOfAnotherDialectAreRefused) {
  for (const bool paper : {false, true}) {
    for (const auto& [key, value] :
         std::vector<std::pair<std::string, Json>>{{"mora_operator", "sharing"},
                                                   {"mora_rounding", "paper"},
                                                   {"mora_scale", 2},
                                                   {"mora_scale_pattern", {{"q_proj", 2}}},
                                                   {"mora_seed", 1},
                                                   {"mora_rotation_base", 10}}) {
      set("use_mora", paper);
      change_config([&, name = key, v = value](Json& json) { json[name] = v; });
      EXPECT_TRUE(refused((key + '\'').c_str(), {"is for peft_type 'MORA'"})) << paper;
    }
    set("use_mora", paper);
    change_config([](Json& json) {
      json["mora_scale_pattern"] = Json::object();
      json["mora_seed"] = nullptr;
    });
    EXPECT_EQ(config().warnings, std::vector<std::string>{});
  }
  set("peft_type", "MORA");
  change_config([](Json& json) {
    json["mora_operator"] = "sharing";
    json["mora_type"] = 6;
  });
  EXPECT_TRUE(refused("mora_type'", {"is not for peft_type 'MORA'"}));
}

TEST_F(PeftConfigTest, Case119TargetModules) {
  set("target_modules", 5);
  EXPECT_TRUE(refused("target_modules'", {"expected a list of strings", "found 5"}));
  set("target_modules", {"q_proj", "mlp.up_proj"});
  EXPECT_TRUE(config().targets("model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(config().targets("q_proj"));
  EXPECT_FALSE(config().targets("model.layers.0.self_attn.xq_proj"));
  EXPECT_TRUE(config().targets("model.layers.0.mlp.up_proj"));
  EXPECT_FALSE(config().targets("model.layers.0.up_proj"));
  set("target_modules", ".*q_proj");
  EXPECT_TRUE(config().targets("model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(config().targets("model.layers.0.self_attn.q_proj2"));
  EXPECT_FALSE(config().targets("model.layers.0.mlp.up_proj"));
  EXPECT_FALSE(config().targets("\xc3\xa4.q_proj"));  // as far as is known here
  set("modules_to_save", {"layers.0"});
  change_config([](Json& json) { json["target_modules"] = ".*q_proj"; });
  EXPECT_FALSE(config().targets("model.layers.0.self_attn.q_proj"));
  for (const char* const text : {"all-linear", "All-LINEAR"}) {
    set("target_modules", text);
    EXPECT_TRUE(config().targets("model.layers.0.self_attn.q_proj"));
    EXPECT_TRUE(config().targets("model.lm_head2"));
    EXPECT_FALSE(config().targets("lm_head"));
    EXPECT_FALSE(config().targets("language_model.lm_head"));
  }
  for (const Json& none : {Json(), Json::array()}) {
    set("target_modules", none);
    EXPECT_TRUE(refused("target_modules'", {"expected names of modules, found none"}));
  }
  for (const Json& empty : {Json(""), Json::array({"q_proj", ""})}) {
    set("target_modules", empty);
    EXPECT_TRUE(refused("target_modules'", {"expected names of modules, found ''"}));
  }
  set("target_modules", {"q_proj", 7});
  EXPECT_TRUE(refused("target_modules'", {"expected a list of strings"}));
}

TEST_F(PeftConfigTest, Case120ExpressionsTakeNoLongerThanTheirStatesTimesTheName) {
  const std::string name = std::string(100'000, 'x') + ".q_proj";
  set("target_modules", "(.*)*q_proj");
  EXPECT_TRUE(config().targets(name));
  EXPECT_FALSE(config().targets(name + "2"));
  set("exclude_modules", "(.*)*q_proj");
  EXPECT_FALSE(config().targets(name));
  EXPECT_EQ(config().warnings, std::vector<std::string>{});
  const std::string brackets(100'000, '(');
  for (const std::string& text :
       {std::string("(.*)*q_proj"), std::string(100'000, 'a'), brackets + ".*"}) {
    set("rank_pattern", {{text + '*', 2}});
    EXPECT_TRUE(refused("rank_pattern.", {"regular expressions are not supported"}));
    set("alpha_pattern", {{text + '*', 2}});
    EXPECT_TRUE(refused("alpha_pattern.", {"regular expressions are not supported"}));
    if (text.size() < 100'000) continue;
    for (const char* const key : {"target_modules", "exclude_modules"}) {
      set(key, text);
      EXPECT_TRUE(refused(key, {"expected at most 4096 characters, found 1000"}));
    }
  }
}

TEST_F(PeftConfigTest, Case120ExpressionsThatAreNotSupportedAreRefusedWithTheirPlace) {
  for (const char* const key : {"target_modules", "exclude_modules"}) {
    set(key, "(((([");
    EXPECT_TRUE(refused(key, {"'((((['", "position 4", "expected a ']'"}));
    set(key, ".*(?!k_)proj");
    EXPECT_TRUE(refused(key, {"'.*(?!k_)proj'", "position 2", "look-ahead", "not supported"}));
    set(key, std::string(300, 'a') + "**");
    EXPECT_TRUE(refused(key, {"... (302 bytes), position 301: is a second repetition"}));
  }
}

TEST_F(PeftConfigTest, Case119ExclusionByAnExpression) {
  set("exclude_modules", ".*q_proj");
  EXPECT_FALSE(config().targets("model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(config().targets("model.layers.0.self_attn.v_proj"));
  EXPECT_FALSE(config().targets("\xc3\xa4.v_proj"));  // may be excluded
  set("exclude_modules", "");
  EXPECT_TRUE(config().targets("model.layers.0.self_attn.q_proj"));
  EXPECT_EQ(config().warnings, std::vector<std::string>{});
}

TEST_F(PeftConfigTest, Case119ExpressionsAreWrittenAsTheyWereRead) {
  set("target_modules", ".*\\.(q|v)_proj");
  const auto again = mora::parse_peft_config(mora::peft_config_json(config()), "again");
  EXPECT_EQ(again.target_pattern.value().text(), ".*\\.(q|v)_proj");
  set("target_modules", "all-linear");
  EXPECT_TRUE(mora::parse_peft_config(mora::peft_config_json(config()), "again").all_linear);
}

TEST_F(PeftConfigTest, Case122WhatChangesResultsIsRefusedByName) {
  const Json object = {{"anything", 1}};
  for (const auto& [key, value] : std::vector<std::pair<const char*, Json>>{
           {"bias", "all"},
           {"bias", "lora_only"},
           {"lora_bias", true},
           {"trainable_token_indices", {1, 2}},
           {"trainable_token_indices", {{"embed_tokens", {1}}}},
           {"layer_replication", {{0, 2}}},
           {"target_parameters", {"mlp.experts"}},
           {"megatron_config", object},
           {"alora_invocation_tokens", {5}},
           {"use_qalora", true},
           {"use_bdlora", object},
           {"kasa_config", object},
           {"monteclora_config", object},
           {"arrow_config", object},
           {"enable_lora", {true, false, true}},
           {"init_lora_weights", "pissa"},
           {"init_lora_weights", "pissa_niter_16"},
           {"init_lora_weights", "olora"},
           {"init_lora_weights", "corda"},
           {"init_lora_weights", "loftq"},
           {"init_lora_weights", "lora_ga"}}) {
    set(key, value);
    EXPECT_TRUE(refused(key, {"not supported"})) << value;
  }
}

TEST_F(PeftConfigTest, Case122WhatDoesNotChangeResultsIsRead) {
  for (const auto& [key, value] :
       std::vector<std::pair<const char*, Json>>{{"bias", nullptr},
                                                 {"lora_bias", false},
                                                 {"target_parameters", Json::array()},
                                                 {"init_lora_weights", "gaussian"},
                                                 {"init_lora_weights", "eva"},
                                                 {"init_lora_weights", "orthogonal"},
                                                 {"init_lora_weights", false},
                                                 {"eva_config", {{"rho", 2.0}}},
                                                 {"loftq_config", Json::object()},
                                                 {"megatron_core", "megatron.core"}}) {
    set(key, value);
    EXPECT_EQ(config().warnings, std::vector<std::string>{}) << key << value;
  }
  set("fan_in_fan_out", true);
  ASSERT_EQ(config().warnings.size(), 1u);
  EXPECT_NE(config().warnings[0].find("'fan_in_fan_out'"), std::string::npos);
}

TEST_F(PeftConfigTest, Case122LayersAreCountedAsPeftCounts) {
  set("layers_to_transform", {1, 3});
  EXPECT_TRUE(config().targets("model.layers.1.self_attn.q_proj"));
  EXPECT_FALSE(config().targets("model.layers.2.self_attn.q_proj"));
  EXPECT_FALSE(config().targets("model.layers.11.self_attn.q_proj"));
  EXPECT_TRUE(config().targets("model.layers.1.experts.2.q_proj"));
  EXPECT_FALSE(config().targets("layers.1.q_proj"));  // the second part is no number of a layer
  EXPECT_FALSE(config().targets("a.b.c.q_proj"));
  EXPECT_TRUE(config().targets("q_proj"));  // named in full, whatever its layer
  set("layers_to_transform", 1);
  EXPECT_TRUE(config().targets("model.layers.1.self_attn.q_proj"));
  for (const Json& pattern : {Json("h"), Json::array({"blocks", "h"})}) {
    change_config([&](Json& json) { json["layers_pattern"] = pattern; });
    EXPECT_TRUE(config().targets("h.1.q_proj"));
    EXPECT_TRUE(config().targets("model.3.h.1.q_proj"));
    EXPECT_FALSE(config().targets("model.layers.1.q_proj"));
    EXPECT_FALSE(config().targets("model.xh.1.q_proj"));
  }
  change_config([&](Json& json) { json["layers_pattern"] = "h.*"; });
  EXPECT_TRUE(refused("layers_pattern'", {"regular expressions are not supported"}));
  set("exclude_modules", {"layers.0.self_attn.q_proj"});
  EXPECT_FALSE(config().targets("model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(config().targets("model.layers.1.self_attn.q_proj"));
  set("modules_to_save", {"layers.0"});
  EXPECT_FALSE(config().targets("model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(config().saves("model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(config().saves("model.layers.1.self_attn.q_proj"));
}

TEST_F(PeftConfigTest, Case124TaskTypeAndModeSayNothing) {
  for (const Json& junk : {Json("JUNK"), Json(7), Json::object()}) {
    set("task_type", junk);
    EXPECT_EQ(config().warnings, std::vector<std::string>{});
    set("inference_mode", junk);
    EXPECT_EQ(config().warnings, std::vector<std::string>{});
  }
}

TEST_F(PeftConfigTest, Case125TextThatIsNoPlainJson) {
  const std::string text = read_file(config_path());
  std::string lines = text;
  for (std::size_t at = 0; (at = lines.find('\n', at)) != lines.npos; at += 2) {
    lines.insert(at, 1, '\r');
  }
  write_file(config_path(), lines);
  EXPECT_EQ(config().rank, 4);
  for (const std::string& bad :
       {"\xef\xbb\xbf" + text, "// words\n" + text, text + text, text.substr(0, text.size() - 3),
        std::string("[]"), std::string("null"),
        std::string(R"({"peft_type": "LORA", "r": 8, "r": 8})"),
        std::string(R"({"rank_pattern": {"q": 1, "q": 1}})"),
        std::string(R"({"r": 8, "\u0072": 9})")}) {
    write_file(config_path(), bad);
    EXPECT_TRUE(throws<FormatError>({"adapter_config.json"}, [&] { (void)config(); })) << bad;
  }
}

TEST_F(PeftConfigTest, Case126NewerVersionsAreAWarning) {
  for (const char* const version : {"0.21.9", "0.9.0", "0.21.3.dev0", "", "unknown"}) {
    set("peft_version", version);
    EXPECT_EQ(config().warnings, std::vector<std::string>{}) << version;
  }
  for (const char* const version : {"0.22.0", "1.0", "12.3.4"}) {
    set("peft_version", version);
    ASSERT_EQ(config().warnings.size(), 1u) << version;
    EXPECT_NE(config().warnings[0].find(version), std::string::npos);
  }
}

TEST_F(PeftConfigTest, OfThisLibrarysMora) {
  set("peft_type", "MORA");
  change_config([](Json& json) { json["mora_operator"] = "random_sharing"; });
  EXPECT_TRUE(refused("mora_seed'", {"expected a whole number, found none"}));
  change_config([](Json& json) { json["mora_seed"] = 18446744073709551615u; });
  EXPECT_EQ(config().dialect, mora::PeftDialect::mora);
  EXPECT_EQ(std::get<mora::RandomSharing>(config().op).seed, ~std::uint64_t{0});
  EXPECT_EQ(config().rounding, mora::SideRounding::reference);
  for (const auto& [key, value, fault] : std::vector<std::tuple<const char*, Json, const char*>>{
           {"mora_seed", -1, "found -1"},
           {"mora_seed", 1.5, "found 1.5"},
           {"mora_operator", "hashing", "expected one of sharing, "},
           {"mora_operator", nullptr, "found none"},
           {"mora_operator", "sharing", "sharing has none"},
           {"mora_rounding", "up", "expected 'reference' or 'paper', found 'up'"},
           {"mora_rotation_base", 10.0, "random_sharing has none"},
           {"mora_scale", "1", "expected a number"},
           {"use_mora", true, "expected false beside peft_type 'MORA'"}}) {
    const std::string before = read_file(config_path());
    change_config([&, k = key, v = value](Json& json) { json[k] = v; });
    EXPECT_TRUE(throws<FormatError>({fault}, [&] { (void)config(); })) << key;
    write_file(config_path(), before);
  }
  change_config([](Json& json) {
    json.erase("mora_seed");
    json["mora_operator"] = "covering_rotation";
    json["mora_rotation_base"] = 500;
    json["mora_rounding"] = "paper";
    json["mora_scale"] = 0.25;
    json["mora_scale_pattern"] = {{"q_proj", 2}};
  });
  EXPECT_EQ(std::get<mora::CoveringRotation>(config().op).base, 500.0);
  EXPECT_EQ(config().rounding, mora::SideRounding::paper);
  EXPECT_EQ(config().scale_of("x.q_proj"), 2.0);
  EXPECT_EQ(config().scale_of("x.k_proj"), 0.25);
  change_config([](Json& json) { json["mora_rotation_base"] = 0; });
  EXPECT_TRUE(refused("mora_rotation_base'", {"expected a number > 0, found 0"}));
}

TEST_F(PeftConfigTest, CanBeAnyChangedText) {
  const std::string text = read_file(config_path());
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (const char c : {'\0', '"', '}', '0', 'n', '\x80'}) {
      std::string changed = text;
      changed[i] = c;
      try {
        (void)mora::parse_peft_config(changed, "memory");
      } catch (const FormatError&) {
      }
    }
    EXPECT_THROW((void)mora::parse_peft_config(text.substr(0, i), "memory"), FormatError) << i;
  }
}

}  // namespace
}  // namespace mora_tests
