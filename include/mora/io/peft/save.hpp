// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "mora/adapters/full.hpp"
#include "mora/adapters/lora.hpp"
#include "mora/adapters/mora.hpp"
#include "mora/adapters/named_adapter.hpp"
#include "mora/io/atomic_file.hpp"
#include "mora/io/peft/adapter_tensors.hpp"
#include "mora/io/peft/config_file.hpp"
#include "mora/io/peft/config_text.hpp"
#include "mora/io/peft/tensor_names.hpp"
#include "mora/io/peft/visit_adapter.hpp"
#include "mora/io/safetensors_writer.hpp"
#include "mora/models/llama/llama.hpp"

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

/// What is written of one module.
template <Real T>
struct PeftPart {
  struct Tensor {
    PeftRole role;
    std::vector<Index> shape;
    const T* data;
  };
  struct Mora {
    PeftOperator op;
    SideRounding rounding;
    double scale;
    Index in;
    Index out;
    Index side;
  };
  enum class Kind { whole, lora, dora, hira, miss, mora };

  std::string module;
  Kind kind = Kind::whole;
  Index rank = 0;                                   // but of a whole module
  std::optional<LoraSettings> lora = std::nullopt;  // of DoRA too
  std::optional<Mora> mora = std::nullopt;
  std::vector<Tensor> tensors = {};
  double dropout = 0.0;
  [[nodiscard]] bool saved() const { return kind == Kind::whole; }
};

template <Real T>
[[nodiscard]] typename PeftPart<T>::Tensor peft_tensor(PeftRole role, const Matrix<T>& matrix) {
  return {role, {matrix.rows(), matrix.cols()}, matrix.data()};
}

template <Real T>
[[nodiscard]] PeftPart<T> part_of(std::string module, const LoraAdapter<T>& adapter) {
  return {.module = std::move(module),
          .kind = PeftPart<T>::Kind::lora,
          .rank = adapter.settings().rank,
          .lora = adapter.settings(),
          .tensors = {peft_tensor(PeftRole::a, adapter.a().value),
                      peft_tensor(PeftRole::b, adapter.b().value)}};
}

template <Real T>
[[nodiscard]] PeftPart<T> part_of(std::string module, const DoraAdapter<LoraAdapter<T>>& adapter) {
  PeftPart<T> part = part_of(std::move(module), adapter.direction());
  part.kind = PeftPart<T>::Kind::dora;
  const Matrix<T>& magnitude = adapter.magnitude().value;
  part.tensors.push_back({PeftRole::magnitude, {magnitude.size()}, magnitude.data()});
  return part;
}

template <Real T>
[[nodiscard]] PeftPart<T> part_of(std::string module, const HiraAdapter<T>& adapter) {
  return {.module = std::move(module),
          .kind = PeftPart<T>::Kind::hira,
          .rank = adapter.settings().rank,
          .tensors = {peft_tensor(PeftRole::hira_a, adapter.a().value),
                      peft_tensor(PeftRole::hira_b, adapter.b().value)}};
}

template <Real T>
[[nodiscard]] PeftPart<T> part_of(std::string module, const MissAdapter<T>& adapter) {
  if (adapter.settings().rank > adapter.in_features()) {
    throw ArgumentError(concat(module, ": PEFT has MiSS of a rank up to in_features, ",
                               adapter.in_features(), ", found ", adapter.settings().rank));
  }
  return {.module = std::move(module),
          .kind = PeftPart<T>::Kind::miss,
          .rank = adapter.settings().rank,
          .tensors = {peft_tensor(PeftRole::miss, adapter.matrix().value)}};
}

template <Real T, class Op>
[[nodiscard]] PeftPart<T> part_of(std::string module, const MoraAdapter<T, Op>& adapter) {
  const MoraSettings<Op>& settings = adapter.settings();
  return {.module = std::move(module),
          .kind = PeftPart<T>::Kind::mora,
          .rank = settings.rank,
          .mora = {{settings.op, settings.rounding, settings.scale, adapter.in_features(),
                    adapter.out_features(), adapter.side()}},
          .tensors = {peft_tensor(PeftRole::m, adapter.matrix().value)}};
}

template <Real T>
[[nodiscard]] PeftPart<T> part_of(std::string module, const FullAdapter<T>& adapter) {
  PeftPart<T> part{.module = std::move(module),
                   .tensors = {peft_tensor(PeftRole::weight, adapter.weight().value)}};
  const Matrix<T>& bias = adapter.bias().value;
  if (bias.size() != 0) part.tensors.push_back({PeftRole::bias, {bias.size()}, bias.data()});
  return part;
}

/// Throws ArgumentError for an adapter of a type that no folder can name.
template <Real T>
[[nodiscard]] PeftPart<T> part_of(const AttachedModule<T>& attached) {
  std::string module(attached.module);
  if (attached.trained) {
    PeftPart<T> part{.module = std::move(module),
                     .tensors = {peft_tensor(PeftRole::weight, *attached.trained)}};
    if (attached.vector) part.tensors.front().shape = {attached.trained->size()};
    return part;
  }
  attached.adapter->require_shapes();
  std::optional<PeftPart<T>> part;
  const bool known = visit_adapter(
      *attached.adapter, [&](const auto& adapter) { part.emplace(part_of(module, adapter)); });
  if (!known) {
    throw ArgumentError(
        concat(module, ": its adapter is of a type that an adapter folder cannot name"));
  }
  part->dropout = attached.dropout;
  return *std::move(part);
}

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

/// The numbers of M times its scale. Throws NumericError where one becomes infinite.
template <Real T>
[[nodiscard]] Matrix<T> scaled(const PeftPart<T>& part) {
  const auto& tensor = part.tensors.front();
  const ConstMap<T> m(tensor.data, tensor.shape[0], tensor.shape[1],
                      Eigen::OuterStride<>(tensor.shape[1]));
  Matrix<T> result = m * static_cast<T>(part.mora->scale);
  for (Index i = 0; i < result.size(); ++i) {
    if (std::isfinite(tensor.data[i]) && !std::isfinite(result.data()[i])) {
      throw NumericError(concat(part.module, ": number ", i, " of M, ", tensor.data[i],
                                ", times the scale ", part.mora->scale, " is too large"));
    }
  }
  return result;
}

/// Throws ArgumentError, naming the module, where this library's own reader would refuse a config
/// or take it for another.
template <Real T>
void require_readable(const std::vector<PeftPart<T>>& parts, const std::string& text,
                      const std::filesystem::path& path) {
  const PeftConfig config = [&] {
    try {
      PeftConfig read = parse_peft_config(text, path);
      Index names = 0;
      for (const PeftPart<T>& part : parts) {
        for (const auto& tensor : part.tensors) {
          names += parts_of_name(peft_name(part.module, tensor.role));
        }
      }
      require_few_comparisons(read, names, path);
      return read;
    } catch (const FormatError& error) {
      throw ArgumentError(concat("a folder cannot say this: ", error.what()));
    }
  }();
  for (const PeftPart<T>& part : parts) {
    const auto fail = [&](const auto&... what) {
      throw ArgumentError(concat(in_quotes(part.module), ": ", what...));
    };
    for (const auto& tensor : part.tensors) {
      const std::string name = peft_name(part.module, tensor.role);
      const auto again = parse_peft_name(name);
      if (!again || again->module != part.module || again->role != tensor.role ||
          !peft_stranger(name).empty()) {
        fail("a tensor called ", in_quotes(name), " would be read as another");
      }
    }
    // Ranks and scales are its own: of patterns the longest that fits stands first.
    if (!part.saved() && !config.targets(part.module)) {
      fail("would not be read as an adapter, as its name ends in that of one stored whole, ",
           "or is in one: save them apart");
    }
  }
}

template <Real T>
void write_peft(const std::filesystem::path& folder, std::vector<PeftPart<T>> parts,
                const PeftConfig& config, Dtype dtype) {
  const std::string text = peft_config_json(config);
  const std::filesystem::path config_path = folder / "adapter_config.json";
  require_readable(parts, text, config_path);
  std::vector<Matrix<T>> folded;
  folded.reserve(parts.size());  // their numbers stay where they are
  if (config.dialect == PeftDialect::paper) {
    for (PeftPart<T>& part : parts) {
      if (!part.mora) continue;
      if (part.mora->scale != 1.0) {
        folded.push_back(scaled(part));
        part.tensors.front().data = folded.back().data();
      }
      // The paper's code has the one matrix under both names.
      part.tensors.front().role = PeftRole::a;
      part.tensors.push_back(part.tensors.front());
      part.tensors.back().role = PeftRole::b;
    }
  }
  std::vector<TensorInfo> infos;
  std::map<std::string, std::span<const T>, std::less<>> numbers;
  for (const PeftPart<T>& part : parts) {
    for (const auto& tensor : part.tensors) {
      infos.push_back({peft_name(part.module, tensor.role), dtype, tensor.shape});
      const auto count = static_cast<std::size_t>(number_count(infos.back()));
      if (!numbers.emplace(infos.back().name, std::span<const T>(tensor.data, count)).second) {
        throw ArgumentError(concat(part.module, ": is there twice"));
      }
    }
  }
  make_folder(folder);
  AtomicFile config_file(config_path);
  config_file.write(std::as_bytes(std::span(text)));
  config_file.finish();
  SafetensorsWriter writer(folder / "adapter_model.safetensors", std::move(infos),
                           {{"format", "pt"}});
  for (const TensorInfo& info : writer.tensors()) writer.write(info.name, numbers.at(info.name));
  writer.finish();
  // So that an old config never describes the new tensors: the folder has none in between.
  remove_file(config_path);
  writer.commit();
  config_file.commit();
}

/// What belongs together: a tied embedding that trains goes under both names, as PEFT does.
template <Real T>
void write_peft(const std::filesystem::path& folder, std::vector<PeftPart<T>> parts, bool tied_head,
                const PeftSaveSettings& settings) {
  const auto embedding = std::find_if(parts.begin(), parts.end(), [](const auto& part) {
    return part.module == "model.embed_tokens";
  });
  const bool tied = embedding != parts.end() && tied_head;
  if (tied) {
    PeftPart<T> head = *embedding;
    head.module = "lm_head";
    parts.push_back(std::move(head));
  }
  PeftConfig config = peft_config_of(parts, settings);
  // PEFT's HiRA and MiSS do not have that key; there both are named.
  const bool has_key = config.dialect != PeftDialect::hira && config.dialect != PeftDialect::miss;
  config.ensure_weight_tying = tied && has_key;
  if (config.ensure_weight_tying) std::erase(config.modules_to_save, "lm_head");
  write_peft(folder, std::move(parts), config, settings.dtype.value_or(dtype_of<T>()));
}

template <Real T>
[[nodiscard]] std::vector<PeftPart<T>> parts_of(std::span<const AttachedModule<T>> modules) {
  std::vector<PeftPart<T>> parts;
  for (const AttachedModule<T>& module : modules) parts.push_back(part_of(module));
  return parts;
}

}  // namespace detail

/// Writes adapters as a PEFT folder, which is made when it is not there: LoRA's, DoRA's over it,
/// HiRA's and MiSS's as PEFT does; MoRA's as the paper's fork of PEFT does where that has the
/// operator and the sides, else in this library's dialect ("peft_type": "MORA"); a FullAdapter as a
/// whole module (modules_to_save). A crash leaves the old adapter, the new one, or a folder without
/// adapter_config.json, which does not load. Throws ArgumentError for what one folder cannot say
/// (several operators, scalings or dropouts; an adapter of a type of the caller's; no adapter;
/// names that would be read as others'), NumericError for numbers that the dtype cannot hold,
/// FileError as AtomicFile does; the folder is then as it was, but for a failure of the last
/// renamings.
template <Real T>
void save_peft(const std::vector<NamedAdapter<T>>& adapters, const std::filesystem::path& folder,
               const PeftSaveSettings& settings = {}) {
  std::vector<AttachedModule<T>> modules;
  for (const NamedAdapter<T>& each : adapters) {
    modules.push_back({.module = each.module, .adapter = &each.adapter, .dropout = each.dropout});
  }
  detail::write_peft(folder, detail::parts_of<T>(modules), settings.tied_head, settings);
}

/// The same with what a LLaMA has under `name`. An embedding that trains and is the head too is
/// written under both names, as PEFT does. Throws StateError while the model is merged: its weights
/// and the adapter, both saved, would count the update twice.
template <Real T>
void save_peft(const Llama<T>& model, const std::string& name, const std::filesystem::path& folder,
               const PeftSaveSettings& settings = {}) {
  if (model.merged()) throw StateError("save_peft: the model is merged; unmerge it first");
  const std::vector<AttachedModule<T>> modules = model.attached(name);
  detail::write_peft(folder, detail::parts_of<T>(modules), model.config().tie_word_embeddings,
                     settings);
}

}  // namespace mora::inline MORA_ABI
