// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mora/io/peft/config.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

/// As Python writes them: 16, not 16.0.
[[nodiscard]] inline nlohmann::ordered_json json_number(double value) {
  constexpr double most = 9007199254740992.0;  // all whole numbers up to it are exact
  const bool whole = std::trunc(value) == value && std::abs(value) < most && !std::signbit(value);
  return whole ? nlohmann::ordered_json(static_cast<Index>(value)) : nlohmann::ordered_json(value);
}
[[nodiscard]] inline nlohmann::ordered_json json_number(Index value) { return value; }

template <class Value>
[[nodiscard]] nlohmann::ordered_json json_patterns(
    const std::vector<PeftPattern<Value>>& patterns) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& each : patterns) json[each.key] = json_number(each.value);
  return json;
}

/// Null for what is empty, as PEFT has it.
template <class Value>
[[nodiscard]] nlohmann::ordered_json json_or_null(const Value& value) {
  return value.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(value);
}

inline void add_lora_keys(const PeftConfig& config, nlohmann::ordered_json& json) {
  json["lora_alpha"] = json_number(config.alpha);
  json["alpha_pattern"] = json_patterns(config.alpha_pattern);
  json["use_rslora"] = config.scaling == LoraScaling::rank_stabilized;
  if (config.dora) json["use_dora"] = true;
}

inline void add_lokr_keys(const PeftConfig& config, nlohmann::ordered_json& json) {
  json["alpha"] = json_number(config.alpha);
  json["alpha_pattern"] = json_patterns(config.alpha_pattern);
  json["decompose_factor"] = config.decompose_factor;
  json["decompose_both"] = config.decompose_both;
}

inline void add_mora_keys(const PeftConfig& config, nlohmann::ordered_json& json) {
  const PeftOperator& plain = peft_operators[config.op.index()].op;
  json["mora_operator"] = name_of(config.op);
  json["mora_rounding"] = config.rounding == SideRounding::paper ? "paper" : "reference";
  json["mora_scale"] = json_number(config.scale);
  json["mora_scale_pattern"] = json_patterns(config.scale_pattern);
  if (const auto* const seed = seed_of(config.op)) json["mora_seed"] = *seed;
  if (const double* const base = base_of(config.op); base && *base != *base_of(plain)) {
    json["mora_rotation_base"] = json_number(*base);
  }
}

}  // namespace detail

/// adapter_config.json, as PEFT, the paper's fork of it or this library reads it. Throws
/// ArgumentError for names that are not UTF-8, and for an operator that the paper's dialect does
/// not have.
[[nodiscard]] inline std::string peft_config_json(const PeftConfig& config) {
  const detail::PeftDialectRow& row = detail::row_of(config.dialect);
  nlohmann::ordered_json json = {
      {"peft_type", row.type},
      {"task_type", detail::json_or_null(config.task_type)},
      {"base_model_name_or_path", detail::json_or_null(config.base_model)},
      {"inference_mode", true},
      {"r", config.rank},
      {"rank_pattern", detail::json_patterns(config.rank_pattern)},
  };
  // PEFT takes no key that a method does not have.
  const bool lokr = config.dialect == PeftDialect::lokr;
  if (!row.dropout.empty()) json[row.dropout] = detail::json_number(config.dropout);
  if (config.target_pattern) {
    json["target_modules"] = config.target_pattern->text();
  } else if (config.all_linear) {
    json["target_modules"] = "all-linear";
  } else {
    json["target_modules"] = config.target_modules;
  }
  json["modules_to_save"] = detail::json_or_null(config.modules_to_save);
  if (config.dialect == PeftDialect::miss) json.erase("rank_pattern");
  if (config.dialect != PeftDialect::hira && !lokr) json["bias"] = "none";
  if (config.dialect != PeftDialect::miss && !lokr) json["fan_in_fan_out"] = false;
  json[row.start] = true;
  if (config.ensure_weight_tying) json["ensure_weight_tying"] = true;
  switch (config.dialect) {
    case PeftDialect::lora: detail::add_lora_keys(config, json); break;
    case PeftDialect::lokr: detail::add_lokr_keys(config, json); break;
    case PeftDialect::mora: detail::add_mora_keys(config, json); break;
    case PeftDialect::hira:
    case PeftDialect::miss: break;
    case PeftDialect::paper:
      json["use_mora"] = true;
      const auto type = detail::mora_type_of(config.op);
      if (!type) {
        throw ArgumentError(detail::concat("the paper's dialect has no operator such as this ",
                                           name_of(config.op)));
      }
      json["mora_type"] = *type;
      break;
  }
  try {
    return json.dump(2) + "\n";
  } catch (const nlohmann::json::type_error&) {
    throw ArgumentError("adapter_config.json: expected names in UTF-8, found other bytes");
  }
}

}  // namespace mora::inline MORA_ABI
