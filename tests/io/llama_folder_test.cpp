// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <mora/adapters/lora.hpp>
#include <mora/io/llama/llama_folder.hpp>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "support/compare.hpp"
#include "support/files.hpp"
#include "support/llama.hpp"
#include "support/llama_fixture.hpp"
#include "support/throws.hpp"

/// \file
/// Hugging Face LLaMA folders: those that transformers wrote (fixtures/README.md), and wrong ones.

namespace mora_tests {
namespace {

using mora::Dtype;
using mora::LlamaFolder;
using mora::Matrix;

/// A copy of a folder that may be changed.
class ChangedFolder : public testing::Test {
 protected:
  void SetUp() override { copy("untied_f32"); }
  void copy(const char* name) {
    for (const auto& entry : std::filesystem::directory_iterator(folder_.where())) {
      std::filesystem::remove(entry.path());
    }
    for (const auto& entry : std::filesystem::directory_iterator(stored_llama(name))) {
      write_file(folder_ / entry.path().filename(), read_file(entry.path()));
    }
  }
  [[nodiscard]] path config_path() const { return folder_ / "config.json"; }
  void change_config(const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json json =
        nlohmann::json::parse(read_file(stored_llama("untied_f32") / "config.json"));
    change(json);
    write_file(config_path(), json.dump());
  }
  /// The tensors of the one file, changed.
  void change_tensors(const std::function<void(std::vector<mora::TensorBytes>&)>& change) {
    const mora::SafetensorsFile file(stored_llama("untied_f32") / "model.safetensors");
    std::vector<mora::TensorBytes> tensors;
    for (const auto& tensor : file.tensors()) tensors.push_back({tensor.info(), tensor.bytes()});
    change(tensors);
    mora::write_safetensors(folder_ / "model.safetensors", tensors);
  }
  /// What opening the folder says, which it refuses.
  [[nodiscard]] std::string fault() const {
    try {
      (void)LlamaFolder(folder_.where());
    } catch (const mora::FormatError& error) {
      return error.what();
    }
    return "nothing";
  }
  TemporaryFolder folder_;
};

class StoredLlama : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(, StoredLlama,
                         testing::Values("untied_f32", "tied_bf16_shards", "untied_f16"),
                         [](const auto& name) { return std::string(name.param); });

TEST_P(StoredLlama, HasTheLogitsOfTransformers) {
  const Fixture fixture("llama_folders/logits.safetensors");
  const LlamaFolder folder(stored_llama(GetParam()));
  EXPECT_EQ(folder.warnings(), std::vector<std::string>{});
  mora::Batch batch;
  const auto tokens = fixture.tensor("tokens");
  for (const double token : tokens.reshaped()) {
    batch.tokens.push_back(static_cast<mora::Token>(token));
  }
  batch.targets.assign(batch.tokens.size(), mora::ignored);
  batch.starts = {0, std::ssize(batch.tokens)};
  const auto expected = fixture.tensor(std::string(GetParam()) + ".logits");
  EXPECT_TRUE(near(folder.model<double>().logits(batch), expected,
                   {.relative = wide_transformers_tolerance}));
}

TEST_P(StoredLlama, IsSavedAsItWas) {
  const LlamaFolder folder(stored_llama(GetParam()));
  const TemporaryFolder target;
  const Dtype dtype = folder.tensors().tensors().front().dtype();
  mora::save_llama(folder.model<float>(), target / "new" / "folder",
                   {.dtype = dtype,
                    .max_shard_bytes = std::string_view(GetParam()) == "tied_bf16_shards"
                                           ? mora::Index{2000}
                                           : mora::Index{5'000'000'000},
                    .eos_token_id = folder.config_file().eos_token_id,
                    .bos_token_id = 7});
  const LlamaFolder again(target / "new" / "folder");
  EXPECT_EQ(again.config_file().eos_token_id, folder.config_file().eos_token_id);
  EXPECT_EQ(again.config_file().bos_token_id, mora::Index{7});
  EXPECT_EQ(again.config_file().pad_token_id, std::nullopt);
  ASSERT_EQ(again.tensors().size(), folder.tensors().size());
  for (const mora::StoredTensor& tensor : folder.tensors().tensors()) {
    const mora::StoredTensor found = again.tensors().tensor(tensor.name());
    EXPECT_EQ(found.info(), tensor.info());
    EXPECT_TRUE(std::ranges::equal(found.bytes(), tensor.bytes())) << tensor.name();
  }
}

TEST_P(StoredLlama, KeepsSmallWeightsWhereItIsAskedTo) {
  const LlamaFolder folder(stored_llama(GetParam()));
  const bool small = folder.tensors().tensors().front().dtype() != Dtype::f32;
  const auto wide = folder.model<float>();
  auto kept = folder.model<float>(mora::SmallWeights::keep);
  for (std::size_t i = 0; i < kept.tensors().size(); ++i) {
    const bool vector = kept.tensors()[i].vector;
    EXPECT_EQ(kept.weights()[i].weight_bits(), small && !vector ? 16 : 32);
    EXPECT_TRUE(same_bits(kept.weights()[i].read_weight(), wide.weights()[i].read_weight()));
  }
  mora::Batch batch;
  batch.tokens = {1, 5, 2, 9, 3};
  batch.targets = {5, 2, 9, 3, 1};
  batch.starts = {0, 5};
  EXPECT_TRUE(same_bits(kept.logits(batch), wide.logits(batch)));

  const TemporaryFolder target;
  const Dtype dtype = folder.tensors().tensors().front().dtype();
  mora::save_llama(kept, target.where(), {.dtype = dtype});
  const LlamaFolder again(target.where());
  for (const mora::StoredTensor& tensor : folder.tensors().tensors()) {
    EXPECT_TRUE(std::ranges::equal(again.tensors().tensor(tensor.name()).bytes(), tensor.bytes()));
  }
}

// The header has one byte more, so that all tensors stand at odd addresses.
TEST_F(ChangedFolder, KeepsSmallWeightsAtOddAddressesAsCopies) {
  copy("untied_f16");
  const auto model = LlamaFolder(stored_llama("untied_f16")).model<float>(mora::SmallWeights::keep);
  std::string bytes = read_file(folder_ / "model.safetensors");
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  ++header;
  std::memcpy(bytes.data(), &header, sizeof header);
  bytes.insert(7 + header, " ");  // the header's own padding
  write_file(folder_ / "model.safetensors", bytes);
  const auto odd = LlamaFolder(folder_.where()).model<float>(mora::SmallWeights::keep);
  for (std::size_t i = 0; i < odd.weights().size(); ++i) {
    EXPECT_EQ(odd.weights()[i].weight_bits(), model.weights()[i].weight_bits());
    EXPECT_TRUE(same_bits(odd.weights()[i].read_weight(), model.weights()[i].read_weight()));
  }
}

TEST(LlamaFolders, TrainAdaptersOnSmallWeights) {
  const LlamaFolder folder(stored_llama("tied_bf16_shards"));
  mora::Batch batch;
  batch.tokens = {1, 5, 2, 9, 3};
  batch.targets = {5, 2, 9, 3, 1};
  batch.starts = {0, 5};
  const auto trained = [&](mora::SmallWeights small) {
    auto model = folder.model<double>(small);
    mora::SplitMix64 generator(7);
    model.attach("all", mora::LoraSettings{.rank = 2}, {.all_linear = true}, generator);
    model.attach("all", mora::FullSettings{}, {.modules = {"embed_tokens", "norm"}});
    (void)model.accumulate_gradients(batch, 0.25);
    std::vector<Matrix<double>> gradients;
    model.visit_parameters(
        [&](std::string_view, const auto& p) { gradients.push_back(p.gradient); });
    EXPECT_TRUE(model.merge());
    return gradients;
  };
  const auto kept = trained(mora::SmallWeights::keep);
  const auto wide = trained(mora::SmallWeights::widen);
  ASSERT_EQ(kept.size(), wide.size());
  for (std::size_t i = 0; i < kept.size(); ++i) EXPECT_TRUE(same_bits(kept[i], wide[i]));
}

TEST(LlamaFolders, AreWrittenAsTransformersWritesThem) {
  const LlamaFolder folder(stored_llama("untied_f32"));
  const TemporaryFolder target;
  const mora::LlamaConfigFile& file = folder.config_file();
  mora::save_llama(folder.model<float>(), target.where(),
                   {.eos_token_id = file.eos_token_id,
                    .bos_token_id = file.bos_token_id,
                    .pad_token_id = file.pad_token_id});
  EXPECT_EQ(target.names(), (std::vector<std::string>{"config.json", "model.safetensors"}));
  EXPECT_EQ(read_file(target / "model.safetensors"),
            read_file(stored_llama("untied_f32") / "model.safetensors"));
  const nlohmann::json theirs =
      nlohmann::json::parse(read_file(stored_llama("untied_f32") / "config.json"));
  const nlohmann::json ours = nlohmann::json::parse(read_file(target / "config.json"));
  for (const auto& [key, value] : ours.items()) {
    if (key == "torch_dtype") {
      EXPECT_EQ(value, theirs["dtype"]);
    } else if (key == "rope_theta") {
      EXPECT_EQ(value, theirs["rope_parameters"]["rope_theta"]);
    } else {
      EXPECT_EQ(value, theirs[key]) << key;
    }
  }
}

TEST(LlamaFolders, UseTheFilesNumbersInPlaceWhereTheyCan) {
  const LlamaFolder folder(stored_llama("untied_f32"));
  const auto model = folder.model<float>();
  for (std::size_t i = 0; i < model.tensors().size(); ++i) {
    const auto bytes = folder.tensors().tensor(model.tensors()[i].name).bytes();
    EXPECT_EQ(reinterpret_cast<const std::byte*>(model.weights()[i].weight().data()), bytes.data());
  }
}

TEST(LlamaFolders, SaveWhatIsMerged) {
  auto model = LlamaFolder(stored_llama("untied_f32")).model<float>();
  model.attach("all", mora::FullSettings{}, {.modules = {"norm"}});
  model.visit_parameters([](auto, auto& parameter) { parameter.value.array() += 1.0f; });
  const TemporaryFolder target;
  mora::save_llama(model, target.where());
  const float before = LlamaFolder(target.where()).model<float>().weights()[19].weight()(0, 0);
  model.merge();
  mora::save_llama(model, target.where());
  const float after = LlamaFolder(target.where()).model<float>().weights()[19].weight()(0, 0);
  EXPECT_EQ(after, before + 1.0f);
}

TEST(LlamaFolders, DoNotLoseWhatTheDtypeCannotHold) {
  auto model = LlamaFolder(stored_llama("untied_f32")).model<float>();
  model.attach("all", mora::FullSettings{}, {.modules = {"norm"}});
  model.visit_parameters([](auto, auto& parameter) { parameter.value(0, 3) = 1e5f; });
  model.merge();
  const TemporaryFolder target;
  EXPECT_THROW(mora::save_llama(model, target.where(), {.dtype = Dtype::f16}), mora::NumericError);
  EXPECT_THROW(mora::save_llama(model, target.where(), {.dtype = Dtype::u8}), mora::ArgumentError);
  EXPECT_EQ(target.names(), std::vector<std::string>{});
}

TEST_F(ChangedFolder, ReadsNumbersThatAreNotFiniteUnlessAsked) {
  EXPECT_NO_THROW(LlamaFolder(folder_.where()).require_finite());
  const float bad = -std::numeric_limits<float>::infinity();
  std::string bytes;
  change_tensors([&](std::vector<mora::TensorBytes>& tensors) {
    auto& tensor = tensors.at(3);
    bytes.assign(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
    std::memcpy(bytes.data() + 20, &bad, sizeof bad);
    tensor.bytes = std::as_bytes(std::span(bytes));
  });
  const LlamaFolder folder(folder_.where());
  EXPECT_NO_THROW((void)folder.model<float>());
  EXPECT_TRUE(throws<mora::FormatError>({"model.safetensors", "tensor", "number 5 of", "is -inf"},
                                        [&] { folder.require_finite(); }));
}

TEST_F(ChangedFolder, TakesOlderConfigs) {
  change_config([](nlohmann::json& json) {
    json["rope_theta"] = json["rope_parameters"]["rope_theta"];
    json["rope_scaling"] = nullptr;
    json.erase("rope_parameters");
    json.erase("head_dim");
    json["eos_token_id"] = 2;
  });
  const LlamaFolder folder(folder_.where());
  EXPECT_EQ(folder.config().rope_theta, 500.0);
  EXPECT_EQ(folder.config().head_size(), 4);
  EXPECT_EQ(folder.config_file().eos_token_id, std::vector<mora::Index>{2});
}

// transformers': what is missing is 2 and 1, what is null is none, and old files say -1.
TEST_F(ChangedFolder, HasTheSpecialTokensOfTransformers) {
  const auto file = [&](const std::function<void(nlohmann::json&)>& change) {
    change_config(change);
    return mora::read_llama_config(config_path());
  };
  const auto missing = file([](nlohmann::json& json) {
    for (const char* key : {"eos_token_id", "bos_token_id", "pad_token_id"}) json.erase(key);
  });
  EXPECT_EQ(missing.eos_token_id, std::vector<mora::Index>{2});
  EXPECT_EQ(missing.bos_token_id, mora::Index{1});
  EXPECT_EQ(missing.pad_token_id, std::nullopt);
  const auto none = file([](nlohmann::json& json) {
    for (const char* key : {"eos_token_id", "bos_token_id"}) json[key] = nullptr;
    json["pad_token_id"] = -1;
  });
  EXPECT_EQ(none.eos_token_id, std::vector<mora::Index>{});
  EXPECT_EQ(none.bos_token_id, std::nullopt);
  EXPECT_EQ(none.pad_token_id, mora::Index{-1});
  // As what they are read they are written, so that a missing key never gets another value.
  const auto written = nlohmann::json::parse(mora::llama_config_json(none, Dtype::f32));
  for (const char* key : {"eos_token_id", "bos_token_id"}) EXPECT_TRUE(written.at(key).is_null());
  EXPECT_EQ(written["pad_token_id"], -1);
}

// A misspelt size would be that of another model.
TEST_F(ChangedFolder, HasTheDefaultsOfTransformersAndSaysSo) {
  write_file(config_path(), R"({"model_type": "llama", "vocab_size": 9})");
  const mora::LlamaConfigFile file = mora::read_llama_config(config_path());
  const mora::LlamaConfig& config = file.config;
  EXPECT_EQ(config.hidden_size, 4096);
  EXPECT_EQ(file.missing, (std::vector<std::string>{"hidden_size", "intermediate_size",
                                                    "num_hidden_layers", "num_attention_heads"}));
  ASSERT_EQ(file.warnings.size(), 4u);
  EXPECT_NE(file.warnings[0].find("hidden_size is missing: 4096"), std::string::npos);
  EXPECT_EQ(config.key_value_heads(), 32);
  EXPECT_EQ(config.rope_theta, 10000.0);
  EXPECT_FALSE(config.tie_word_embeddings);
}

TEST_F(ChangedFolder, RefusesWhatTheModelDoesNotComputeByName) {
  const std::vector<std::pair<std::function<void(nlohmann::json&)>, const char*>> cases = {
      {[](nlohmann::json& j) { j.erase("model_type"); },
       "'model_type': expected 'llama', found none"},
      {[](nlohmann::json& j) { j["model_type"] = "mistral"; }, "expected 'llama', found 'mistral'"},
      {[](nlohmann::json& j) { j["hidden_act"] = "gelu"; },
       "'hidden_act': expected 'silu', found 'gelu'"},
      {[](nlohmann::json& j) { j["attention_bias"] = true; }, "'attention_bias': expected false"},
      {[](nlohmann::json& j) { j["mlp_bias"] = true; }, "'mlp_bias': expected false"},
      {[](nlohmann::json& j) {
         j["quantization_config"] = {{"bits", 4}};
       },
       "'quantization_config'"},
      {[](nlohmann::json& j) { j["partial_rotary_factor"] = 0.5; },
       "'partial_rotary_factor': expected 1"},
      {[](nlohmann::json& j) { j["rope_parameters"]["rope_type"] = "llama3"; },
       "'rope_parameters.rope_type': expected 'default', found 'llama3'"},
      {[](nlohmann::json& j) {
         j["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
       },
       "'rope_scaling.type': expected 'default', found 'linear'"},
      {[](nlohmann::json& j) {
         j["rope_scaling"] = {{"factor", 2.0}};
       },
       "'rope_scaling.factor'"},
      {[](nlohmann::json& j) { j["rope_parameters"]["partial_rotary_factor"] = 0.5; },
       "'rope_parameters.partial_rotary_factor': expected 1, found 0.5"},
      {[](nlohmann::json& j) { j["rope_parameters"] = 3; },
       "'rope_parameters': expected an object, found 3"},
      {[](nlohmann::json& j) { j["rope_theta"] = 501.0; },
       "expected 501 as rope_theta says, found 500"},
      {[](nlohmann::json& j) { j["vocab_size"] = "32"; }, "'vocab_size': expected a whole number"},
      {[](nlohmann::json& j) { j["vocab_size"] = 32.0; }, "found 32.0"},
      {[](nlohmann::json& j) { j["vocab_size"] = -32; }, "found -32"},
      {[](nlohmann::json& j) { j["vocab_size"] = 0; }, "vocab_size: expected 1 to"},
      {[](nlohmann::json& j) { j["num_hidden_layers"] = 1 << 20; },
       "num_hidden_layers: expected 1 to 10000, found 1048576"},
      {[](nlohmann::json& j) { j["head_dim"] = 0; }, "'head_dim': expected at least 1, found 0"},
      {[](nlohmann::json& j) { j["num_key_value_heads"] = 3; },
       "num_key_value_heads: expected a divisor"},
      {[](nlohmann::json& j) { j["rms_norm_eps"] = true; },
       "'rms_norm_eps': expected a number, found true"},
      {[](nlohmann::json& j) { j["tie_word_embeddings"] = 0; },
       "'tie_word_embeddings': expected true or"},
      {[](nlohmann::json& j) {
         j["eos_token_id"] = {2, -1};
       },
       "'eos_token_id': expected a list of whole"},
      {[](nlohmann::json& j) { j["hidden_size"] = 24; },
       "tensor 'model.embed_tokens.weight': expected shape"},
      {[](nlohmann::json& j) { j = nlohmann::json::array(); }, "expected an object, found array"},
  };
  for (const auto& [change, message] : cases) {
    change_config(change);
    EXPECT_NE(fault().find(message), std::string::npos) << message << "\nfound: " << fault();
  }
}

TEST_F(ChangedFolder, RefusesWhatIsNoConfig) {
  for (const char* const text :
       {"", "{", "{} {}", "[]", "null", "\xef\xbb\xbf{}", "{/**/}",
        R"({"model_type": "llama", "model_type": "llama"})", R"({"a": {"b": 1, "b": 2}})"}) {
    write_file(config_path(), text);
    EXPECT_THROW((void)LlamaFolder(folder_.where()), mora::FormatError) << text;
  }
  write_file(config_path(), std::string(17'000'000, ' ') + "{}");
  EXPECT_NE(fault().find("at most 16000000 bytes, found 17000002"), std::string::npos) << fault();
  std::filesystem::remove(config_path());
  EXPECT_THROW((void)LlamaFolder(folder_.where()), mora::FileError);
}

TEST_F(ChangedFolder, RefusesOtherTensorsByName) {
  const auto named = [](std::vector<mora::TensorBytes>& tensors, std::string_view name) {
    return std::find_if(tensors.begin(), tensors.end(),
                        [&](const auto& tensor) { return tensor.info.name == name; });
  };
  change_tensors([&](auto& tensors) { tensors.erase(named(tensors, "model.norm.weight")); });
  EXPECT_NE(fault().find("'model.norm.weight'"), std::string::npos) << fault();
  change_tensors([&](auto& tensors) {
    named(tensors, "model.layers.1.mlp.down_proj.weight")->info.shape = {24, 16};
  });
  EXPECT_NE(fault().find("'model.layers.1.mlp.down_proj.weight': expected shape [16, 24], found "
                         "[24, 16]"),
            std::string::npos)
      << fault();
  change_tensors([&](auto& tensors) { named(tensors, "lm_head.weight")->info.dtype = Dtype::i32; });
  EXPECT_NE(fault().find("'lm_head.weight': expected F64, F32"), std::string::npos) << fault();
  change_tensors([&](auto& tensors) {
    tensors.push_back(*named(tensors, "model.norm.weight"));
    tensors.back().info.name = "model.layers.0.self_attn.q_proj.bias";
  });
  EXPECT_NE(fault().find("'model.layers.0.self_attn.q_proj.bias': is none of this model's"),
            std::string::npos)
      << fault();
}

TEST_F(ChangedFolder, LeavesOutWithAWarningWhatTheConfigAlreadySays) {
  change_config([](nlohmann::json& json) {
    json["tie_word_embeddings"] = true;
    json["attention_dropout"] = 0.1;
  });
  change_tensors([](auto& tensors) {
    tensors.push_back(tensors.front());
    tensors.back().info.name = "model.layers.0.self_attn.rotary_emb.inv_freq";
    const auto named = [&](std::string_view name) {
      return std::find_if(tensors.begin(), tensors.end(),
                          [&](const auto& tensor) { return tensor.info.name == name; });
    };
    named("lm_head.weight")->bytes = named("model.embed_tokens.weight")->bytes;
  });
  const std::vector<std::string> warnings = LlamaFolder(folder_.where()).warnings();
  ASSERT_EQ(warnings.size(), 3u);
  EXPECT_NE(warnings[0].find("attention_dropout"), std::string::npos);
  EXPECT_NE(warnings[1].find("'lm_head.weight'"), std::string::npos);
  EXPECT_NE(warnings[2].find("inv_freq"), std::string::npos);
}

// transformers 4 takes the embedding, 5 the head.
TEST_F(ChangedFolder, RefusesATiedHeadOfOtherNumbers) {
  change_config([](nlohmann::json& json) { json["tie_word_embeddings"] = true; });
  EXPECT_NE(fault().find("'lm_head.weight': expected the numbers of 'model.embed_tokens.weight'"),
            std::string::npos)
      << fault();
}

}  // namespace
}  // namespace mora_tests
