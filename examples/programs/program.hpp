// SPDX-License-Identifier: MIT
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <exception>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <mora/io/llama/config_file.hpp>
#include <mora/io/peft/peft_folder.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// \file
/// What the programs about adapters share: exit codes, and how the modules of an adapter are found.

namespace programs {

/// Parses the command line and calls `work`. Exit codes: 0 done, 1 a file or an argument's value is
/// at fault (one line on stderr says which), 2 the command line itself.
inline int run(CLI::App& app, int count, char** arguments, const std::function<void()>& work) {
  try {
    app.parse(count, arguments);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    work();
    std::cout.flush();
    if (!std::cout) throw std::runtime_error("cannot write to the standard output");
    return 0;
  } catch (const std::exception& error) {
    std::cerr << app.get_name() << ": " << error.what() << '\n';
    return 1;
  }
}

inline void print_warnings(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) std::cerr << "warning: " << warning << '\n';
}

/// Nothing that is there is written over.
inline void require_new(const std::filesystem::path& place) {
  if (std::filesystem::exists(place) && !std::filesystem::is_empty(place)) {
    throw mora::FileError(place, "is there already; name another place");
  }
}

/// Of the base model where there is one; else of a LoRA's own tensors, which say both sizes.
[[nodiscard]] inline std::vector<mora::LayerShape> shapes_of(
    const mora::PeftFolder& adapter, const std::optional<std::filesystem::path>& base) {
  if (base) return mora::layer_shapes(mora::read_llama_config(*base / "config.json").config);
  if (adapter.config().dialect != mora::PeftDialect::lora) {
    throw mora::ArgumentError("a MoRA adapter does not say how large its layers are: pass --base");
  }
  std::map<std::string, mora::LayerShape> shapes;
  for (const std::string& module : adapter.modules()) shapes[module] = {.module = module};
  for (const mora::StoredTensor& tensor : adapter.tensors().tensors()) {
    for (auto& [module, shape] : shapes) {
      const bool its_a = tensor.name().ends_with("." + module + ".lora_A.weight");
      const bool its_b = tensor.name().ends_with("." + module + ".lora_B.weight");
      if (!its_a && !its_b && !tensor.name().ends_with("." + module + ".weight")) continue;
      if (!its_b) shape.in_features = tensor.shape().back();
      if (!its_a) shape.out_features = tensor.shape().size() == 1 ? 1 : tensor.shape().front();
    }
  }
  std::vector<mora::LayerShape> all;
  for (auto& [module, shape] : shapes) all.push_back(std::move(shape));
  return all;
}

}  // namespace programs
