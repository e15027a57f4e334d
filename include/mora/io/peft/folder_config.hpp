// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mora/io/dtype.hpp"
#include "mora/io/peft/config.hpp"
#include "mora/io/peft/peft_part.hpp"

/// \file
/// The one config that says the settings of all of a folder's adapters.

namespace mora::inline MORA_ABI {

struct PeftSaveSettings {
  std::optional<Dtype> dtype = std::nullopt;  ///< F64, F32, F16 or BF16; none: the adapters' own.
  /// Whether MoRA is written in this library's dialect also where the paper's could say it. The
  /// paper's has no scale, which is multiplied into M there: rounded, unless it is a power of two.
  bool own_dialect = false;
  /// For adapters without a model: an embedding that trains (model.embed_tokens) is the head too.
  bool tied_head = false;
  std::string base_model = {};          ///< base_model_name_or_path.
  std::string task_type = "CAUSAL_LM";  ///< PEFT's; may be empty.
};

namespace detail {

/// Settings of all modules as a default and patterns. Where they differ every module has a pattern,
/// longer names first: no module's name then ends in one that stands before its own.
template <class Value, class Part, class Get>
void put_values(const std::vector<const Part*>& parts, const Get& get, Value& value,
                std::vector<PeftPattern<Value>>& patterns) {
  value = get(*parts.front());
  if (std::all_of(parts.begin(), parts.end(), [&](auto* part) { return get(*part) == value; })) {
    return;
  }
  for (const Part* part : parts) {
    if (std::any_of(part->module.begin(), part->module.end(), [](char c) {
          return std::string_view("\\^$*+?()[]{}|").find(c) != std::string_view::npos;
        })) {
      throw ArgumentError(concat(part->module,
                                 ": modules of such names must all have one rank and ",
                                 "scale, as patterns for them are regular expressions"));
    }
    patterns.push_back({part->module, get(*part)});
  }
  std::stable_sort(patterns.begin(), patterns.end(),
                   [](const auto& a, const auto& b) { return a.key.size() > b.key.size(); });
}

/// Throws ArgumentError unless all adapters of a folder have one value.
template <Real T, class Get>
void require_common(const std::vector<const PeftPart<T>*>& parts, const char* what,
                    const Get& get) {
  for (const PeftPart<T>* part : parts) {
    if (get(*part) == get(*parts.front())) continue;
    throw ArgumentError(concat("a folder has one ", what, ", and those of ", parts.front()->module,
                               " and ", part->module, " differ: save them apart"));
  }
}

template <Real T>
[[nodiscard]] bool all_sides_are(const std::vector<const PeftPart<T>*>& parts,
                                 SideRounding rounding) {
  return std::all_of(parts.begin(), parts.end(), [rounding](const PeftPart<T>* part) {
    const auto& mora = *part->mora;
    return side_of(mora.op, mora.in, mora.out, part->rank, rounding) == mora.side;
  });
}

template <Real T>
void put_mora(const std::vector<const PeftPart<T>*>& parts, bool own_dialect, PeftConfig& config) {
  const PeftOperator& first = parts.front()->mora->op;
  require_common<T>(parts, "operator",
                    [&](const PeftPart<T>& part) { return part.mora->op == first; });
  config.op = first;
  const bool reference = all_sides_are<T>(parts, SideRounding::reference);
  if (reference && !own_dialect && mora_type_of(first)) {
    config.dialect = PeftDialect::paper;
    return;
  }
  config.dialect = PeftDialect::mora;
  config.rounding = reference ? SideRounding::reference : SideRounding::paper;
  if (!reference && !all_sides_are<T>(parts, SideRounding::paper)) {
    require_common<T>(parts, "rounding of the side",
                      [](const PeftPart<T>& part) { return part.mora->rounding; });
  }
  put_values(
      parts, [](const PeftPart<T>& part) { return part.mora->scale; }, config.scale,
      config.scale_pattern);
}

template <Real T>
void put_lokr(const std::vector<const PeftPart<T>*>& parts, PeftConfig& config) {
  config.dialect = PeftDialect::lokr;
  require_common<T>(parts, "decompose_factor",
                    [](const PeftPart<T>& part) { return part.lokr->decompose_factor; });
  require_common<T>(parts, "decompose_both",
                    [](const PeftPart<T>& part) { return part.lokr->decompose_both; });
  config.decompose_factor = parts.front()->lokr->decompose_factor;
  config.decompose_both = parts.front()->lokr->decompose_both;
  put_values(
      parts, [](const PeftPart<T>& part) { return part.lokr->alpha; }, config.alpha,
      config.alpha_pattern);
  if (config.dropout == 0.0) return;
  throw ArgumentError(concat(parts.front()->module,
                             ": PEFT's LoKr has no dropout of inputs, found ", config.dropout));
}

/// Throws ArgumentError where one folder cannot say all of it.
template <Real T>
[[nodiscard]] PeftConfig peft_config_of(const std::vector<PeftPart<T>>& parts,
                                        const PeftSaveSettings& settings) {
  PeftConfig config;
  std::vector<const PeftPart<T>*> adapters;
  for (const PeftPart<T>& part : parts) {
    auto& names = part.saved() ? config.modules_to_save : config.target_modules;
    names.push_back(part.module);
    if (!part.saved()) adapters.push_back(&part);
  }
  if (adapters.empty()) {
    throw ArgumentError(
        "expected an adapter, found none: a model that trains as a "
        "whole is merged and saved itself");
  }
  require_common<T>(adapters, "kind of adapter", [](const PeftPart<T>& part) { return part.kind; });
  require_common<T>(adapters, "dropout", [](const PeftPart<T>& part) { return part.dropout; });
  config.dropout = adapters.front()->dropout;
  put_values(
      adapters, [](const PeftPart<T>& part) { return part.rank; }, config.rank,
      config.rank_pattern);
  using Kind = typename PeftPart<T>::Kind;
  const Kind kind = adapters.front()->kind;
  if (kind == Kind::hira || kind == Kind::miss) {
    config.dialect = kind == Kind::hira ? PeftDialect::hira : PeftDialect::miss;
    require_common<T>(adapters, "rank of HiRA or MiSS",
                      [](const PeftPart<T>& part) { return part.rank; });
  } else if (kind == Kind::lokr) {
    put_lokr<T>(adapters, config);
  } else if (adapters.front()->lora) {
    config.dora = kind == Kind::dora;
    require_common<T>(adapters, "scaling of LoRA",
                      [](const PeftPart<T>& part) { return part.lora->scaling; });
    config.scaling = adapters.front()->lora->scaling;
    put_values(
        adapters, [](const PeftPart<T>& part) { return part.lora->alpha; }, config.alpha,
        config.alpha_pattern);
  } else {
    put_mora<T>(adapters, settings.own_dialect, config);
  }
  config.base_model = settings.base_model;
  config.task_type = settings.task_type;
  return config;
}

}  // namespace detail
}  // namespace mora::inline MORA_ABI
