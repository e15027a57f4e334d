// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <mora/io/peft/attach.hpp>
#include <mora/io/peft/save.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "support/files.hpp"
#include "support/tensor_files.hpp"
#include "support/throws.hpp"

// Adapters of every kind, which take long to compile: once, in peft.cpp.
extern template std::vector<mora::NamedAdapter<float>> mora::PeftFolder::adapters<float>(
    std::span<const mora::LayerShape>) const;
extern template std::vector<mora::NamedAdapter<double>> mora::PeftFolder::adapters<double>(
    std::span<const mora::LayerShape>) const;

namespace mora_tests {

using Json = nlohmann::ordered_json;

/// One of those that PEFT wrote: fixtures/README.md.
[[nodiscard]] inline path stored_peft(std::string_view name) {
  return path(MORA_FIXTURES) / "peft_folders" / name;
}

/// Adapter folders that may be changed, at first a copy of fixtures/peft_folders/lora.
class PeftFolderTest : public testing::Test {
 protected:
  void SetUp() override { copy("lora"); }
  void copy(std::string_view name) {
    for (const char* const file : {"adapter_config.json", "adapter_model.safetensors"}) {
      write_file(folder_ / file, read_file(stored_peft(name) / file));
    }
  }
  [[nodiscard]] path config_path() const { return folder_ / "adapter_config.json"; }
  [[nodiscard]] path tensors_path() const { return folder_ / "adapter_model.safetensors"; }
  void change_config(const std::function<void(Json&)>& change) {
    Json json = Json::parse(read_file(config_path()));
    change(json);
    write_file(config_path(), json.dump());
  }
  /// The config of `lora` with one key changed.
  void set(const char* key, const Json& value) {
    write_file(config_path(), read_file(stored_peft("lora") / "adapter_config.json"));
    change_config([&](Json& json) { json[key] = value; });
  }
  [[nodiscard]] mora::PeftConfig config() const { return mora::read_peft_config(config_path()); }

  using Tensors = std::vector<mora::TensorBytes>;
  void change_tensors(const std::function<void(Tensors&)>& change) {
    const mora::SafetensorsFile file(tensors_path(), mora::FileAccess::copied);
    Tensors tensors = as_bytes(file.tensors());
    change(tensors);
    mora::write_safetensors(tensors_path(), tensors, file.metadata());
  }
  /// The tensor whose name ends so.
  [[nodiscard]] static Tensors::iterator find(Tensors& tensors, std::string_view end) {
    const auto at = std::find_if(tensors.begin(), tensors.end(), [end](const auto& tensor) {
      return tensor.info.name.ends_with(end);
    });
    if (at == tensors.end()) throw std::runtime_error("no such tensor in the fixture");
    return at;
  }
  [[nodiscard]] mora::PeftFolder open(const mora::PeftFolderSettings& settings = {}) const {
    return mora::PeftFolder(folder_.where(), settings);
  }
  /// Whether opening the folder is a FormatError with these parts in its text.
  [[nodiscard]] testing::AssertionResult is_refused(
      std::initializer_list<std::string_view> parts) const {
    return throws<mora::FormatError>(parts, [&] { (void)open(); });
  }

  TemporaryFolder folder_;
};

}  // namespace mora_tests
