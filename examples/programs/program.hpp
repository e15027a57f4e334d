// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <mora/io/in_quotes.hpp>
#include <mora/io/llama/config_file.hpp>
#include <mora/io/peft/adapter_export.hpp>
#include <mora/io/peft/peft_folder.hpp>
#include <mora/io/sharded_tensors.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "programs/command_line.hpp"
#include "programs/compiled_once.hpp"

/// \file
/// What the programs about adapters share, above all how the modules of an adapter are found.

namespace programs {

inline void print_warnings(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) {
    std::cerr << "warning: " << mora::detail::without_controls(warning) << '\n';
  }
}

/// A name that a file says as a field of CSV: nothing in it is obeyed by a terminal.
[[nodiscard]] inline std::string csv_field(std::string_view name) {
  const std::string plain = mora::detail::without_controls(name);
  if (plain.find_first_of(",\"") == plain.npos) return plain;
  std::string quoted = "\"";
  for (const char c : plain) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

/// Throws for an option that was given and would have no effect.
inline void refuse_idle(const CLI::App& app, bool idle, const std::string& option,
                        const std::string& needs) {
  if (idle && app.count(option) > 0) throw mora::ArgumentError(option + " is for " + needs);
}

/// Nothing that is there is written over.
inline void require_new(const std::filesystem::path& place) {
  if (!std::filesystem::exists(place)) return;
  const bool has_contents =
      std::filesystem::is_directory(place) || std::filesystem::is_regular_file(place);
  if (!has_contents || !std::filesystem::is_empty(place)) {
    throw mora::FileError(place, "is there already; name another place");
  }
}

/// Whether its update depends on the weights that it was trained on.
[[nodiscard]] inline bool needs_weights(const mora::PeftFolder& adapter) {
  const auto method = adapter.config().method();
  return method == "DoRA" || method == "HiRA";
}

/// A model's folder, or its config.json alone.
[[nodiscard]] inline mora::LlamaConfig config_of(const std::filesystem::path& base) {
  const bool file = std::filesystem::is_regular_file(base);
  return mora::read_llama_config(file ? base : base / "config.json").config;
}

/// Says so where an adapter names another model as its base; names of hubs and paths differ in more
/// than their ends.
inline void warn_of_another_base(const mora::PeftFolder& adapter,
                                 const std::filesystem::path& base) {
  const auto end_of = [](const std::filesystem::path& path) {
    return (path.has_filename() ? path : path.parent_path()).filename();
  };
  const std::string& named = adapter.config().base_model;
  std::error_code ignored;
  const auto given = end_of(std::filesystem::weakly_canonical(base, ignored));
  if (named.empty() || end_of(named) == given) return;
  print_warnings({"the adapter names the base " + mora::detail::in_quotes(named) +
                  ", and this is " + mora::detail::in_quotes(given.string())});
}

/// Of the base model where there is one; else of a LoRA's own tensors, which say both sizes, and
/// that an embedding and a head are tied.
[[nodiscard]] inline std::vector<mora::LayerShape> shapes_of(
    const mora::PeftFolder& adapter, const std::optional<std::filesystem::path>& base) {
  if (base) return mora::layer_shapes(config_of(*base));
  if (adapter.config().dialect != mora::PeftDialect::lora) {
    throw mora::ArgumentError("only LoRA says how large its layers are: pass --base");
  }
  using mora::detail::PeftRole;
  std::map<std::string, mora::LayerShape> shapes;
  for (const mora::StoredTensor& tensor : adapter.tensors().tensors()) {
    const auto name = mora::detail::parse_peft_name(tensor.name());
    if (!name) continue;
    mora::LayerShape& shape = shapes[name->module];
    shape.module = name->module;
    const auto& sizes = tensor.shape();
    const bool whole = name->role == PeftRole::weight;
    if (name->role == PeftRole::bias) shape.bias = true;
    if (whole || name->role == PeftRole::a) shape.in_features = sizes.back();
    if (whole || name->role == PeftRole::b) shape.out_features = sizes.size() == 1 ? 1 : sizes[0];
  }
  const auto head = shapes.find("lm_head");
  if (adapter.config().ensure_weight_tying && head != shapes.end() &&
      shapes.contains("model.embed_tokens")) {
    head->second.tied_to = "model.embed_tokens";
  }
  std::vector<mora::LayerShape> all;
  for (auto& [module, shape] : shapes) all.push_back(std::move(shape));
  return all;
}

/// The base model's weights, where there is one: for DoRA and HiRA, whose updates depend on them.
/// `links`: see mora::ShardedTensorsSettings.
[[nodiscard]] inline mora::WeightOf<double> weights_of(
    const std::optional<std::filesystem::path>& base, bool links) {
  if (!base) return {};
  // Opened when the first is asked for, as most adapters need none.
  return [base = *base, links, tensors = std::shared_ptr<const mora::ShardedTensors>()](
             const std::string& module) mutable {
    if (!tensors) {
      tensors = std::make_shared<const mora::ShardedTensors>(
          base, mora::ShardedTensorsSettings{.access = mora::FileAccess::mapped, .links = links});
    }
    const mora::StoredTensor tensor = tensors->tensor(module + ".weight");
    const auto& shape = tensor.shape();
    if (shape.size() != 2) {
      throw mora::FormatError(tensor.file(), "tensor " + mora::detail::in_quotes(tensor.name()),
                              "expected rows and columns");
    }
    mora::Matrix<double> weight(shape[0], shape[1]);
    tensor.copy_to(std::span<double>(weight.data(), static_cast<std::size_t>(weight.size())));
    return mora::FrozenLinear<double>(std::move(weight));
  };
}

}  // namespace programs
