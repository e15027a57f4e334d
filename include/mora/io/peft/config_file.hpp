// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "mora/io/json_object.hpp"
#include "mora/io/peft/config.hpp"
#include "mora/io/peft/config_keys.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

/// A value that says "not used"; null is none in any case.
[[nodiscard]] inline bool is_off(const nlohmann::json& value) {
  return value == nlohmann::json(false) ||
         ((value.is_array() || value.is_object()) && value.empty());
}

/// Whether a character of a key of PEFT's, which may be a regular expression, is a plain name's.
[[nodiscard]] inline bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '.';
}

/// Reads adapter_config.json piece by piece.
class PeftConfigReader {
 public:
  explicit PeftConfigReader(JsonObject json) : json_(std::move(json)) {}

  [[nodiscard]] PeftConfig read() {
    read_dialect();
    refuse_other_dialects();
    refuse_other_mathematics();
    read_rank();
    switch (config_.dialect) {
      case PeftDialect::lora: read_lora(); break;
      case PeftDialect::hira: break;
      case PeftDialect::lokr: read_lokr(); break;
      case PeftDialect::miss: read_miss(); break;
      case PeftDialect::paper:
      case PeftDialect::mora: read_mora(); break;
    }
    read_targets();
    config_.modules_to_save = names("modules_to_save");
    config_.ensure_weight_tying = json_.boolean("ensure_weight_tying").value_or(false);
    config_.base_model = json_.text("base_model_name_or_path").value_or("");
    if (const auto* const task = json_.find("task_type"); task && task->is_string()) {
      config_.task_type = task->get<std::string>();
    }
    warn();
    return std::move(config_);
  }

 private:
  void read_dialect() {
    const auto type = json_.text("peft_type");
    const auto row = std::ranges::find(peft_dialects, type.value_or("none"), &PeftDialectRow::type);
    if (row == peft_dialects.end()) {
      json_.fail("peft_type", concat("expected 'LORA', 'HIRA', 'LOKR', 'MISS' or 'MORA', found ",
                                     type ? in_quotes(*type) : std::string("none")));
    }
    config_.dialect = row->dialect;
    config_.rank = row->rank;
    if (!json_.boolean("use_mora").value_or(false)) return;
    if (row->dialect != PeftDialect::lora) {
      json_.fail("use_mora",
                 concat("expected false beside peft_type ", in_quotes(*type), ", found true"));
    }
    config_.dialect = PeftDialect::paper;
  }

  void refuse_other_dialects() {
    const bool own = config_.dialect == PeftDialect::mora;
    // The paper's fork writes all of its fields: `use_mora` false beside the default mora_type.
    const bool forks_lora = config_.dialect == PeftDialect::lora && json_.has("use_mora");
    for (const PeftDialectKey& each : peft_dialect_keys) {
      const auto* const value = json_.find(each.key);
      if (!value || is_off(*value) || each.dialect == config_.dialect) continue;
      if (each.dialect == PeftDialect::mora) json_.fail(each.key, "is for peft_type 'MORA'");
      if (own) json_.fail(each.key, "is not for peft_type 'MORA', which has mora_operator");
      if (!forks_lora) {
        json_.fail(each.key, "expected use_mora to be true, found it false or missing");
      }
    }
  }

  void refuse_other_mathematics() {
    for (const PeftKey& each : peft_refused) {
      const auto* const value = json_.find(each.key);
      if (value && !is_off(*value)) json_.fail(each.key, concat(each.what, " is not supported"));
    }
    if (const auto bias = json_.text("bias").value_or("none"); bias != "none") {
      json_.fail("bias", concat("expected 'none', found ", in_quotes(bias),
                                ": training of biases is not supported"));
    }
    const auto* const init = json_.find("init_lora_weights");
    if (!init || init->is_boolean()) return;
    const std::string start = *json_.text("init_lora_weights");
    if (std::find(peft_plain_starts.begin(), peft_plain_starts.end(), start) ==
        peft_plain_starts.end()) {
      json_.fail("init_lora_weights",
                 concat(in_quotes(start), " changes the frozen weight and is not supported"));
    }
  }

  void read_rank() {
    json_.refuse_null("r", "a whole number");
    config_.rank = rank(json_, "r").value_or(config_.rank);
    if (auto patterns = json_.object("rank_pattern")) {
      if (config_.dialect == PeftDialect::miss && !patterns->keys().empty()) {
        json_.fail("rank_pattern", "expected none, as MiSS has one rank");
      }
      for (const std::string& key : pattern_keys(*patterns)) {
        config_.rank_pattern.push_back({without_end(key), *rank(*patterns, key)});
      }
    }
    const std::string_view dropout = row_of(config_.dialect).dropout;
    if (dropout.empty()) return;
    json_.refuse_null(dropout, "a number");
    config_.dropout = json_.number(dropout).value_or(0.0);
    if (!(config_.dropout >= 0.0 && config_.dropout < 1.0)) {
      json_.fail(dropout, concat("expected 0 <= ", dropout, " < 1, found ", config_.dropout));
    }
  }

  void read_alpha(std::string_view key) {
    json_.refuse_null(key, "a number");
    config_.alpha = json_.number(key).value_or(config_.alpha);
    config_.alpha_pattern = numbers("alpha_pattern");
  }

  void read_lora() {
    read_alpha("lora_alpha");
    if (json_.boolean("use_rslora").value_or(false)) config_.scaling = LoraScaling::rank_stabilized;
    config_.dora = json_.boolean("use_dora").value_or(false);
  }

  void read_lokr() {
    read_alpha("alpha");
    json_.refuse_null("decompose_factor", "a whole number");
    const auto* const factor = json_.find("decompose_factor");
    if (factor && *factor != nlohmann::json(-1)) {
      if (!factor->is_number_unsigned() || *factor == nlohmann::json(0)) {
        json_.wrong("decompose_factor", "-1 or a whole number of at least 1", *factor);
      }
      config_.decompose_factor = *json_.whole("decompose_factor");
    }
    config_.decompose_both = json_.boolean("decompose_both").value_or(false);
    // Of training alone; what is learnt is the same adapter.
    for (const std::string_view key : {"rank_dropout", "module_dropout"}) {
      const double dropout = json_.number(key).value_or(0.0);
      if (!(dropout >= 0.0 && dropout <= 1.0)) {
        json_.fail(key, concat("expected 0 <= ", key, " <= 1, found ", dropout));
      }
      if (dropout > 0.0) leave_out(key, "LoKr has no dropout here");
    }
    // The one is of convolutions, the other of rank_dropout.
    for (const std::string_view key : {"use_effective_conv2d", "rank_dropout_scale"}) {
      (void)json_.find(key);
    }
  }

  void read_miss() {
    const auto* const init = json_.find("init_weights");
    if (init && init->is_string()) {
      json_.fail("init_weights", concat(in_quotes(*json_.text("init_weights")),
                                        ": only the plain MiSS is supported"));
    }
    (void)json_.find("mini_r");
  }

  void read_mora() {
    if (json_.boolean("use_dora").value_or(false)) {
      json_.fail("use_dora", "DoRA over MoRA is in no folder");
    }
    // MoRA has neither; they are PEFT's defaults in a folder of the paper's dialect.
    for (const std::string_view key : {"lora_alpha", "alpha_pattern", "use_rslora"}) {
      (void)json_.find(key);
    }
    if (config_.dialect == PeftDialect::paper) {
      const Index type = json_.whole("mora_type").value_or(1);
      if (std::find(mora_types.begin(), mora_types.end(), type) == mora_types.end()) {
        json_.fail("mora_type", concat("expected 1, 2, 3, 4 or 6, found ", type));
      }
      config_.op =
          with_mora_type(static_cast<int>(type), [](auto each) { return PeftOperator(each); });
      return;
    }
    read_operator();
    const std::string rounding = json_.text("mora_rounding").value_or("reference");
    if (rounding != "reference" && rounding != "paper") {
      json_.fail("mora_rounding",
                 concat("expected 'reference' or 'paper', found ", in_quotes(rounding)));
    }
    config_.rounding = rounding == "paper" ? SideRounding::paper : SideRounding::reference;
    config_.scale = json_.number("mora_scale").value_or(config_.scale);
    config_.scale_pattern = numbers("mora_scale_pattern");
  }

  void read_operator() {
    const auto name = json_.text("mora_operator");
    const auto op = peft_operator(name.value_or(""));
    if (!op) {
      std::string known;
      for (const PeftOperatorRow& each : peft_operators) {
        known += concat(known.empty() ? "" : ", ", each.name);
      }
      json_.fail("mora_operator", concat("expected one of ", known, ", found ",
                                         name ? in_quotes(*name) : std::string("none")));
    }
    config_.op = *op;
    std::uint64_t* const seed = seed_of(config_.op);
    if (const auto* const value = json_.find("mora_seed")) {
      if (!seed) json_.fail("mora_seed", concat("expected none, as ", *name, " has none"));
      if (!value->is_number_unsigned()) json_.wrong("mora_seed", "a whole number", *value);
      *seed = value->get<std::uint64_t>();
    } else if (seed) {
      json_.fail("mora_seed", "expected a whole number, found none");
    }
    double* const base = base_of(config_.op);
    if (const auto number = json_.number("mora_rotation_base")) {
      if (!base) json_.fail("mora_rotation_base", concat("expected none, as ", *name, " has none"));
      if (!(*number > 0.0)) {
        json_.fail("mora_rotation_base", concat("expected a number > 0, found ", *number));
      }
      *base = *number;
    }
  }

  void read_targets() {
    const auto* const targets = json_.find("target_modules");
    if (targets && targets->is_string()) {
      const std::string text = *json_.text("target_modules");
      if (text.empty()) json_.fail("target_modules", "expected names of modules, found ''");
      config_.all_linear = is_all_linear(text);
      if (!config_.all_linear) config_.target_pattern = pattern("target_modules", text);
    } else {
      config_.target_modules = names("target_modules");
      if (config_.target_modules.empty()) {
        json_.fail("target_modules", "expected names of modules, found none");
      }
    }
    const auto* const excluded = json_.find("exclude_modules");
    if (excluded && excluded->is_string()) {
      const std::string text = *json_.text("exclude_modules");
      if (!text.empty()) config_.exclude_pattern = pattern("exclude_modules", text);
    } else {
      config_.exclude_modules = names("exclude_modules");
    }
    config_.layers_to_transform =
        json_.wholes("layers_to_transform").value_or(std::vector<Index>{});
    const auto* const pattern = json_.find("layers_pattern");
    if (pattern && pattern->is_string()) {
      config_.layers_pattern.push_back(*json_.text("layers_pattern"));
      if (config_.layers_pattern.front().empty()) config_.layers_pattern.clear();
    } else {
      config_.layers_pattern = names("layers_pattern");
    }
    for (const std::string& each : config_.layers_pattern) {
      if (!config_.layers_to_transform.empty()) require_plain(json_, "layers_pattern", each);
    }
  }

  /// In capitals too, as for PEFT.
  [[nodiscard]] static bool is_all_linear(std::string_view text) {
    return std::ranges::equal(text, std::string_view("all-linear"), [](char found, char expected) {
      return found == expected || (found >= 'A' && found <= 'Z' && found - 'A' + 'a' == expected);
    });
  }

  [[nodiscard]] ModulePattern pattern(std::string_view key, const std::string& text) const {
    try {
      return ModulePattern(text);
    } catch (const ArgumentError& error) {
      json_.fail(key, error.what());
    }
  }

  void leave_out(std::string_view key, std::string_view why) {
    config_.warnings.push_back(
        concat(json_.path().string(), ": key '", key, "' is left out: ", why));
  }

  void warn() {
    const std::string start = json_.path().string() + ": ";
    for (const PeftKey& each : peft_left_out) {
      const auto* const value = json_.find(each.key);
      if (value && !is_off(*value)) leave_out(each.key, each.what);
    }
    if (const auto* const version = json_.find("peft_version"); version && is_newer(*version)) {
      config_.warnings.push_back(
          concat(start, "written by PEFT ", in_quotes(version->get<std::string>()), "; up to ",
                 peft_version_known[0], '.', peft_version_known[1], " all keys are known"));
    }
    const bool additive = !config_.dora && config_.dialect != PeftDialect::hira;
    if (config_.dropout > 0.0 && !additive) {
      leave_out(row_of(config_.dialect).dropout, "only additive adapters have dropout here");
    }
    for (const std::string_view key : peft_ignored) (void)json_.find(key);
    std::string unknown;
    for (const std::string& key : json_.unasked()) {
      unknown += (unknown.empty() ? "" : ", ") + in_quotes(key);
    }
    if (unknown.empty()) return;
    config_.warnings.push_back(concat(start, "keys that are not known and left out: ", unknown));
  }

  [[nodiscard]] static bool is_newer(const nlohmann::json& version) {
    if (!version.is_string()) return false;
    const auto text = version.get<std::string>();
    std::array<int, 2> found = {};
    const char* const end = text.data() + text.size();
    const auto major = std::from_chars(text.data(), end, found[0]);
    if (major.ec == std::errc() && major.ptr != end) {
      (void)std::from_chars(major.ptr + 1, end, found[1]);
    }
    return found > peft_version_known;
  }

  /// A list of names, none of them empty.
  [[nodiscard]] std::vector<std::string> names(std::string_view key) {
    std::vector<std::string> all = json_.texts(key).value_or(std::vector<std::string>{});
    if (std::find(all.begin(), all.end(), "") != all.end()) {
      json_.fail(key, "expected names of modules, found ''");
    }
    return all;
  }

  static void require_plain(const JsonObject& object, std::string_view key, std::string_view name) {
    const auto other = std::ranges::find_if_not(name, is_plain);
    if (!name.empty() && other == name.end()) return;
    object.fail(key, concat("expected the name of a module, found ", in_quotes(name),
                            name.empty() ? "" : " with ",
                            name.empty() ? "" : in_quotes(std::string(1, *other)),
                            ": regular expressions are not supported"));
  }

  /// PEFT looks for (.*\.)?(key)$, so that "^" says that nothing is in front, and "$" nothing new.
  [[nodiscard]] static std::string without_end(const std::string& key) {
    return key.ends_with('$') ? key.substr(0, key.size() - 1) : key;
  }

  [[nodiscard]] static std::vector<std::string> pattern_keys(JsonObject& patterns) {
    std::vector<std::string> keys = patterns.keys();
    for (const std::string& key : keys) {
      std::string_view name = key;
      if (name.starts_with('^')) name.remove_prefix(1);
      if (name.ends_with('$')) name.remove_suffix(1);
      require_plain(patterns, key, name);
      patterns.refuse_null(key, "a number");
    }
    return keys;
  }
  [[nodiscard]] std::vector<PeftPattern<double>> numbers(std::string_view key) {
    std::vector<PeftPattern<double>> all;
    if (auto patterns = json_.object(key)) {
      for (const std::string& name : pattern_keys(*patterns)) {
        all.push_back({without_end(name), *patterns->number(name)});
      }
    }
    return all;
  }
  [[nodiscard]] static std::optional<Index> rank(JsonObject& object, std::string_view key) {
    const auto value = object.whole(key);
    if (value && (*value < 1 || *value > max_rank)) {
      object.fail(key, concat("expected 1 to ", max_rank, ", found ", *value));
    }
    return value;
  }

  JsonObject json_;
  PeftConfig config_;
};

}  // namespace detail

/// Reads adapter_config.json of any dialect. Missing keys have PEFT's defaults (r 8, of HiRA 32 and
/// of MiSS 64; alpha 8; mora_type 1 as in the paper's code). What changes results and is not
/// there is refused by name (trained biases, starts that change the frozen weight, ...); keys that
/// are not known are one warning. Regular expressions may be in target_modules and exclude_modules,
/// as far as ModulePattern has them; in other places they are refused, but for "^" and "$" around a
/// plain name. Throws as JsonObject::read does, and FormatError with file, key and what was found.
[[nodiscard]] inline PeftConfig read_peft_config(const std::filesystem::path& path) {
  return detail::PeftConfigReader(JsonObject::read(path)).read();
}
/// The same of a text; `path` is for messages.
[[nodiscard]] inline PeftConfig parse_peft_config(std::string_view text,
                                                  const std::filesystem::path& path) {
  return detail::PeftConfigReader(JsonObject::parse(text, path)).read();
}

}  // namespace mora::inline MORA_ABI
