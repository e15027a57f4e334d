// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "mora/adapters/hira.hpp"
#include "mora/adapters/lokr_settings.hpp"
#include "mora/adapters/lora.hpp"
#include "mora/adapters/miss.hpp"
#include "mora/adapters/side.hpp"
#include "mora/io/peft/module_pattern.hpp"
#include "mora/io/peft/mora_operators.hpp"

namespace mora::inline MORA_ABI {

/// Whose format of adapter_config.json and tensors a folder is in.
enum class PeftDialect {
  lora,   ///< PEFT's of LoRA and DoRA.
  hira,   ///< PEFT's of HiRA.
  lokr,   ///< PEFT's of LoKr.
  miss,   ///< PEFT's of MiSS.
  paper,  ///< Of the MoRA paper's fork of PEFT: its five operators, no scale.
  mora,   ///< This library's of MoRA, which other readers refuse.
};

namespace detail {

/// What the dialects say differently.
struct PeftDialectRow {
  PeftDialect dialect;
  std::string_view type;     // the value of peft_type
  std::string_view dropout;  // keys; empty where a method has none
  std::string_view start;
  Index rank;  // where r is missing
};
inline constexpr std::array peft_dialects = {
    PeftDialectRow{PeftDialect::lora, "LORA", "lora_dropout", "init_lora_weights",
                   LoraSettings().rank},
    PeftDialectRow{PeftDialect::hira, "HIRA", "hira_dropout", "init_weights", HiraSettings().rank},
    PeftDialectRow{PeftDialect::lokr, "LOKR", "", "init_weights", LokrSettings().rank},
    PeftDialectRow{PeftDialect::miss, "MISS", "miss_dropout", "init_weights", MissSettings().rank},
    PeftDialectRow{PeftDialect::paper, "LORA", "lora_dropout", "init_lora_weights",
                   LoraSettings().rank},
    PeftDialectRow{PeftDialect::mora, "MORA", "lora_dropout", "init_lora_weights",
                   LoraSettings().rank},
};
[[nodiscard]] inline const PeftDialectRow& row_of(PeftDialect dialect) {
  return *std::ranges::find(peft_dialects, dialect, &PeftDialectRow::dialect);
}

}  // namespace detail

/// A setting of some modules: those whose name is the key, or ends in it after a dot; with "^" in
/// front of the key, the one whose name is the rest.
template <class Value>
struct PeftPattern {
  std::string key;
  Value value = {};
};

namespace detail {

/// Whether PEFT's rule for lists and patterns names a module.
[[nodiscard]] inline bool names_module(std::string_view key, std::string_view module) {
  return module == key || (module.size() > key.size() && module.ends_with(key) &&
                           module[module.size() - key.size() - 1] == '.');
}

/// Whether `test` holds for a module or one of those that it is in.
template <class Test>
[[nodiscard]] bool any_around(std::string_view module, const Test& test) {
  while (!test(module)) {
    const std::size_t dot = module.rfind('.');
    if (dot == module.npos) return false;
    module = module.substr(0, dot);
  }
  return true;
}

/// The same with a pattern's key.
[[nodiscard]] inline bool pattern_names(std::string_view key, std::string_view module) {
  return key.starts_with('^') ? key.substr(1) == module : names_module(key, module);
}

/// Of the first pattern that names the module.
template <class Value>
[[nodiscard]] Value value_of(const std::vector<PeftPattern<Value>>& patterns,
                             std::string_view module, Value otherwise) {
  const auto at = std::find_if(patterns.begin(), patterns.end(),
                               [&](const auto& each) { return pattern_names(each.key, module); });
  return at == patterns.end() ? otherwise : at->value;
}

/// The number that `text` begins with, if a dot follows it.
[[nodiscard]] inline std::optional<Index> number_before_dot(std::string_view text) {
  Index number = 0;
  const char* const end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, number);
  if (result.ec != std::errc() || result.ptr == end || *result.ptr != '.' || text.front() == '-') {
    return {};
  }
  return number;
}

/// The number of a module's layer by PEFT's rules: the first after one of `patterns`, or without
/// any the first that is neither the first nor the second part of the name.
[[nodiscard]] inline std::optional<Index> layer_of(std::string_view module,
                                                   const std::vector<std::string>& patterns) {
  const auto first = [&](const auto& number_at) -> std::optional<Index> {
    for (std::size_t part = 0, begin = 0; begin < module.size(); ++part) {
      if (const auto number = number_at(part, module.substr(begin))) return number;
      const std::size_t dot = module.find('.', begin);
      if (dot == module.npos) break;
      begin = dot + 1;
    }
    return {};
  };
  if (patterns.empty()) {
    return first([](std::size_t part, std::string_view rest) {
      return part < 2 ? std::optional<Index>() : number_before_dot(rest);
    });
  }
  for (const std::string& pattern : patterns) {
    const auto found = first([&](std::size_t, std::string_view rest) -> std::optional<Index> {
      if (!rest.starts_with(pattern + '.')) return {};
      return number_before_dot(rest.substr(pattern.size() + 1));
    });
    if (found) return found;
  }
  return {};
}

}  // namespace detail

/// What adapter_config.json says, whatever the dialect. Defaults are PEFT's.
struct PeftConfig {
  PeftDialect dialect = PeftDialect::lora;
  Index rank = 8;
  std::vector<PeftPattern<Index>> rank_pattern = {};  ///< The first that names a module counts.
  double dropout = 0.0;

  /// \name LoRA's and LoKr's.
  /// @{
  double alpha = 8.0;
  std::vector<PeftPattern<double>> alpha_pattern = {};
  /// @}
  /// \name LoRA's alone.
  /// @{
  LoraScaling scaling = LoraScaling::standard;
  bool dora = false;  ///< DoRA over it.
  /// @}
  /// \name LoKr's alone.
  /// @{
  Index decompose_factor = -1;
  bool decompose_both = false;
  /// @}
  /// \name MoRA's alone; the paper's dialect has the reference's rounding and scale 1.
  /// @{
  PeftOperator op = Sharing{};
  SideRounding rounding = SideRounding::reference;
  double scale = 1.0;
  std::vector<PeftPattern<double>> scale_pattern = {};
  /// @}
  /// \name Modules.
  /// @{
  std::vector<std::string> target_modules = {};
  /// In place of names: a regular expression for whole names. No layers_to_transform then.
  std::optional<ModulePattern> target_pattern = {};
  /// In place of names: every linear layer but the output head. No layers_to_transform then.
  bool all_linear = false;
  std::vector<std::string> exclude_modules = {};
  std::optional<ModulePattern> exclude_pattern = {};  ///< In place of names.
  std::vector<Index> layers_to_transform = {};        ///< Empty: all.
  std::vector<std::string> layers_pattern = {};
  std::vector<std::string> modules_to_save = {};
  bool ensure_weight_tying = false;
  /// @}
  std::string base_model = {};             ///< base_model_name_or_path.
  std::string task_type = {};              ///< "CAUSAL_LM", or nothing.
  std::vector<std::string> warnings = {};  ///< What is left out and changes no result.

  /// "LoRA", "DoRA", "HiRA", "LoKr", "MiSS" or "MoRA".
  [[nodiscard]] std::string_view method() const {
    switch (dialect) {
      case PeftDialect::lora: return dora ? "DoRA" : "LoRA";
      case PeftDialect::hira: return "HiRA";
      case PeftDialect::lokr: return "LoKr";
      case PeftDialect::miss: return "MiSS";
      case PeftDialect::paper:
      case PeftDialect::mora: break;
    }
    return "MoRA";
  }

  [[nodiscard]] Index rank_of(std::string_view module) const {
    return detail::value_of(rank_pattern, module, rank);
  }
  [[nodiscard]] double alpha_of(std::string_view module) const {
    return detail::value_of(alpha_pattern, module, alpha);
  }
  [[nodiscard]] double scale_of(std::string_view module) const {
    return detail::value_of(scale_pattern, module, scale);
  }

  /// Of a module's LoKr.
  [[nodiscard]] LokrSettings lokr_of(std::string_view module) const {
    return {.rank = rank_of(module),
            .alpha = alpha_of(module),
            .decompose_factor = decompose_factor,
            .decompose_both = decompose_both};
  }

  /// Whether PEFT would put an adapter on a module of this name, as far as names say. With an
  /// expression never on one with other characters than ASCII's, of which it knows nothing here.
  [[nodiscard]] bool targets(std::string_view module) const {
    const auto names = [module](const std::string& key) {
      return detail::names_module(key, module);
    };
    if ((target_pattern || exclude_pattern) && !detail::is_ascii(module)) return false;
    if (exclude_pattern && exclude_pattern->matches(module)) return false;
    if (std::any_of(exclude_modules.begin(), exclude_modules.end(), names)) return false;
    const bool saved = detail::any_around(module, [&](std::string_view part) {
      return std::any_of(modules_to_save.begin(), modules_to_save.end(),
                         [part](const auto& key) { return detail::names_module(key, part); });
    });
    if (saved) return false;
    if (target_pattern) return target_pattern->matches(module);
    if (all_linear) return !detail::names_module("lm_head", module);
    // What is named in full need not be in a layer.
    if (std::find(target_modules.begin(), target_modules.end(), module) != target_modules.end()) {
      return true;
    }
    if (std::none_of(target_modules.begin(), target_modules.end(), names)) return false;
    if (layers_to_transform.empty()) return true;
    const auto layer = detail::layer_of(module, layers_pattern);
    return layer && std::find(layers_to_transform.begin(), layers_to_transform.end(), *layer) !=
                        layers_to_transform.end();
  }

  /// Whether the folder has a whole copy of this module, or of one that it is in. By names' ends
  /// alone, as PEFT does here.
  [[nodiscard]] bool saves(std::string_view module) const {
    return detail::any_around(module, [&](std::string_view part) {
      return std::any_of(modules_to_save.begin(), modules_to_save.end(),
                         [part](const auto& key) { return part.ends_with(key); });
    });
  }
};

}  // namespace mora::inline MORA_ABI
