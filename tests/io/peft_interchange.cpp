// SPDX-License-Identifier: MIT
#include <exception>
#include <filesystem>
#include <iostream>
#include <mora/io/llama/llama_folder.hpp>
#include <mora/io/peft/attach.hpp>
#include <mora/io/peft/save.hpp>

/// \file
/// peft_interchange <fixtures> <folder>: reads the adapters of the fixtures, and writes each of
/// them into a folder of its name, and one of this library's own dialect into "mora". For
/// peft_interchange.py.

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "peft_interchange <fixtures> <folder>\n";
    return 2;
  }
  try {
    const std::filesystem::path fixtures = arguments[1];
    const std::filesystem::path target = arguments[2];
    for (const auto& entry : std::filesystem::directory_iterator(fixtures / "peft_folders")) {
      const mora::PeftFolder folder(entry.path());
      const std::string& base = folder.config().base_model;
      auto model = mora::LlamaFolder(fixtures / "llama_folders" / base).model<float>();
      mora::attach_peft(model, "read", folder);
      mora::save_peft(model, "read", target / entry.path().filename(), {.base_model = base});
    }
    auto model = mora::LlamaFolder(fixtures / "llama_folders" / "untied_f32").model<float>();
    model.attach("own", mora::MoraSettings<mora::CoveringRotation>{.rank = 2},
                 {.all_linear = true});
    mora::save_peft(model, "own", target / "mora");
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
