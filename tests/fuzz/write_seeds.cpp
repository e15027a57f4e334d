// SPDX-License-Identifier: MIT
#include <exception>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "support/files.hpp"
#include "support/safetensors_cases.hpp"

/// \file
/// write_seeds <folder>: the files of the tests' cases, for fuzzing to start from, in a folder for
/// each target.

namespace {

void write(const std::filesystem::path& folder, const std::vector<mora_tests::FileCase>& cases) {
  std::filesystem::create_directories(folder);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    mora_tests::write_file(folder / ("case-" + std::to_string(i)), cases[i].bytes);
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::cerr << "write_seeds <folder>\n";
    return 2;
  }
  try {
    const std::filesystem::path folder = arguments[1];
    write(folder / "safetensors", mora_tests::safetensors_cases());
    write(folder / "shard_index", mora_tests::index_cases());
    for (const auto& file : std::filesystem::directory_iterator(MORA_FIXTURES "/safetensors")) {
      std::filesystem::copy_file(file, folder / "safetensors" / file.path().filename(),
                                 std::filesystem::copy_options::overwrite_existing);
    }
    std::filesystem::create_directories(folder / "peft_config");
    for (const auto& adapter : std::filesystem::directory_iterator(MORA_FIXTURES "/peft_folders")) {
      std::filesystem::copy_file(adapter.path() / "adapter_config.json",
                                 folder / "peft_config" / adapter.path().filename(),
                                 std::filesystem::copy_options::overwrite_existing);
    }
    mora_tests::write_file(folder / "peft_config" / "paper",
                           R"({"peft_type":"LORA","use_mora":true,"mora_type":6,"r":4,)"
                           R"("target_modules":["q_proj"],"layers_to_transform":[10]})");
    mora_tests::write_file(
        folder / "peft_config" / "mora",
        R"({"peft_type":"MORA","mora_operator":"random_sharing","mora_seed":7,)"
        R"("mora_rounding":"paper","mora_scale":0.5,"rank_pattern":{"q_proj":2},)"
        R"("mora_scale_pattern":{"q_proj":2},"target_modules":["q_proj"]})");
    const std::vector<std::string> targets = {
        R"json("all-linear")json",
        R"json(".*\\.(q|v)_proj","exclude_modules":"^(?:model\\.)?layers\\.\\d{1,2}\\..*$")json",
        R"json("(?P<any>[^]a-c\\w-]+?|\\A\\S{2,}\\Z)*(.*)*q_proj")json",
        R"json("((((a{9}){9}){9}?|()b?)*[)")json",
    };
    for (std::size_t i = 0; i < targets.size(); ++i) {
      mora_tests::write_file(folder / "peft_config" / ("targets-" + std::to_string(i)),
                             R"({"peft_type":"LORA","target_modules":)" + targets[i] + "}");
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
