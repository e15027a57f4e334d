// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/io/dtype.hpp"
#include "mora/io/json_object.hpp"
#include "mora/models/llama/config.hpp"

namespace mora::inline MORA_ABI {

/// What config.json of a Hugging Face LLaMA says.
struct LlamaConfigFile {
  LlamaConfig config;
  // Missing keys have transformers' defaults; null is none.
  std::vector<Index> eos_token_id = {2};             ///< Tokens after which a text ends, or none.
  std::optional<Index> bos_token_id = 1;             ///< With which texts begin; not used here.
  std::optional<Index> pad_token_id = std::nullopt;  ///< Negative in some files; not used here.
  std::vector<std::string> missing = {};   ///< Sizes that it does not say, which are LlamaConfig's.
  std::vector<std::string> warnings = {};  ///< What is left out and changes no result.
};

namespace detail {

/// Refuses what would make another model of it.
inline void require_plain_llama(JsonObject& json) {
  const auto require_text = [&](const char* key, std::string_view only, bool must) {
    const auto found = json.text(key);
    if (found ? *found == only : !must) return;
    json.fail(key, concat("expected ", in_quotes(only), ", found ",
                          found ? in_quotes(*found) : std::string("none")));
  };
  require_text("model_type", "llama", true);
  require_text("hidden_act", "silu", false);
  for (const char* const key : {"attention_bias", "mlp_bias"}) {
    if (json.boolean(key).value_or(false))
      json.fail(key, "expected false: biases are not supported");
  }
  if (json.has("quantization_config")) {
    json.fail("quantization_config", "quantised weights are not supported");
  }
  if (const auto factor = json.number("partial_rotary_factor"); factor.value_or(1.0) != 1.0) {
    json.fail("partial_rotary_factor", concat("expected 1, found ", *factor));
  }
}

/// The base of the rotary positions: older files have rope_theta, newer ones rope_parameters.
/// Refuses any scaling of positions.
[[nodiscard]] inline double read_rope_theta(JsonObject& json, double otherwise) {
  std::optional<double> theta = json.number("rope_theta");
  for (const char* const key : {"rope_scaling", "rope_parameters"}) {
    auto rope = json.object(key);
    if (!rope) continue;
    for (const char* const type_key : {"rope_type", "type"}) {
      if (const auto type = rope->text(type_key); type.value_or("default") != "default") {
        rope->fail(type_key, concat("expected 'default', found ", in_quotes(*type),
                                    ": scaled positions are not supported"));
      }
    }
    if (const auto inner = rope->number("rope_theta")) {
      if (theta && *theta != *inner) {
        rope->fail("rope_theta",
                   concat("expected ", *theta, " as rope_theta says, found ", *inner));
      }
      theta = inner;
    }
    if (const auto factor = rope->number("partial_rotary_factor"); factor.value_or(1.0) != 1.0) {
      rope->fail("partial_rotary_factor", concat("expected 1, found ", *factor));
    }
    const auto rest = rope->unasked();
    if (!rest.empty()) rope->fail(rest.front(), "is not supported");
  }
  return theta.value_or(otherwise);
}

}  // namespace detail

/// Reads config.json. Missing sizes are LlamaConfig's, which are transformers', a 7B model's: each
/// is a warning, as a misspelt one is missing. Refused by name is what this decoder does not
/// compute: another model_type or hidden_act, biases, scaled positions, partial rotation, quantised
/// weights. Dropout is left out with a warning, other keys silently: they say nothing about
/// results. Throws as JsonObject::read does, FormatError for sizes that LlamaConfig::validate
/// refuses.
[[nodiscard]] inline LlamaConfigFile read_llama_config(const std::filesystem::path& path) {
  JsonObject json = JsonObject::read(path);
  detail::require_plain_llama(json);
  LlamaConfigFile file;
  LlamaConfig& config = file.config;
  const auto size = [&](const char* key, Index& value) { value = json.whole(key).value_or(value); };
  const auto expected_size = [&](const char* key, Index& value) {
    size(key, value);
    if (json.has(key)) return;
    file.missing.emplace_back(key);
    file.warnings.push_back(detail::concat(path.string(), ": ", key, " is missing: ", value));
  };
  expected_size("vocab_size", config.vocab_size);
  expected_size("hidden_size", config.hidden_size);
  expected_size("intermediate_size", config.intermediate_size);
  expected_size("num_hidden_layers", config.num_hidden_layers);
  expected_size("num_attention_heads", config.num_attention_heads);
  size("num_key_value_heads", config.num_key_value_heads);
  size("head_dim", config.head_dim);
  size("max_position_embeddings", config.max_position_embeddings);
  config.rms_norm_eps = json.number("rms_norm_eps").value_or(config.rms_norm_eps);
  config.rope_theta = detail::read_rope_theta(json, config.rope_theta);
  config.tie_word_embeddings = json.boolean("tie_word_embeddings").value_or(false);
  // Here 0 says "as many as", in files nothing does.
  for (const char* const key : {"num_key_value_heads", "head_dim"}) {
    if (json.whole(key).value_or(1) == 0) json.fail(key, "expected at least 1, found 0");
  }
  if (json.is_null("eos_token_id")) file.eos_token_id.clear();
  if (auto tokens = json.wholes("eos_token_id")) file.eos_token_id = std::move(*tokens);
  const auto token = [&](const char* key, std::optional<Index>& value) {
    if (json.is_null(key)) value.reset();
    if (const auto* const found = json.find(key); found && found->is_number_integer()) {
      value = found->get<Index>();
    }
  };
  token("bos_token_id", file.bos_token_id);
  token("pad_token_id", file.pad_token_id);
  if (json.number("attention_dropout").value_or(0.0) != 0.0) {
    file.warnings.push_back(path.string() + ": attention_dropout is left out");
  }
  try {
    config.validate();
  } catch (const ArgumentError& error) {
    throw FormatError(path, error.what());
  }
  return file;
}

/// config.json as transformers reads it, old and new; `dtype` is what the weights are stored in.
/// Throws ArgumentError for a dtype that is not F64, F32, F16 or BF16.
[[nodiscard]] inline std::string llama_config_json(const LlamaConfigFile& file, Dtype dtype) {
  const auto torch_dtype = [dtype]() -> const char* {
    switch (dtype) {
      case Dtype::f64: return "float64";
      case Dtype::f32: return "float32";
      case Dtype::f16: return "float16";
      case Dtype::bf16: return "bfloat16";
      default:
        throw ArgumentError(
            detail::concat("dtype: expected F64, F32, F16 or BF16, found ", name_of(dtype)));
    }
  };
  const LlamaConfig& config = file.config;
  config.validate();
  nlohmann::ordered_json json = {
      {"architectures", {"LlamaForCausalLM"}},
      {"model_type", "llama"},
      {"vocab_size", config.vocab_size},
      {"hidden_size", config.hidden_size},
      {"intermediate_size", config.intermediate_size},
      {"num_hidden_layers", config.num_hidden_layers},
      {"num_attention_heads", config.num_attention_heads},
      {"num_key_value_heads", config.key_value_heads()},
      {"head_dim", config.head_size()},
      {"max_position_embeddings", config.max_position_embeddings},
      {"hidden_act", "silu"},
      {"rms_norm_eps", config.rms_norm_eps},
      {"rope_theta", config.rope_theta},
      {"attention_bias", false},
      {"mlp_bias", false},
      {"tie_word_embeddings", config.tie_word_embeddings},
      {"torch_dtype", torch_dtype()},
  };
  // A key that is missing has transformers' default.
  const auto token = [](const std::optional<Index>& number) {
    return number ? nlohmann::ordered_json(*number) : nlohmann::ordered_json(nullptr);
  };
  if (file.eos_token_id.size() > 1) {
    json["eos_token_id"] = file.eos_token_id;
  } else {
    json["eos_token_id"] =
        token(file.eos_token_id.empty() ? std::nullopt : std::optional(file.eos_token_id.front()));
  }
  json["bos_token_id"] = token(file.bos_token_id);
  json["pad_token_id"] = token(file.pad_token_id);
  return json.dump(2) + "\n";
}

}  // namespace mora::inline MORA_ABI
