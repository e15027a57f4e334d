// SPDX-License-Identifier: MIT
//
// Writes any adapter as a plain LoRA, or for llama.cpp:
//
//   adapter_convert ADAPTER OUT --to lora --base MODEL --rank 16
//   adapter_convert ADAPTER adapter.gguf --to gguf --base MODEL

#include <iostream>
#include <mora/io/peft/gguf_adapter.hpp>
#include <mora/io/peft/lora_export.hpp>
#include <mora/io/peft/save.hpp>
#include <optional>
#include <string>

#include "programs/program.hpp"

int main(int count, char** arguments) {
  CLI::App app(
      "Writes a PEFT adapter (LoRA or MoRA) in another form. Without --rank and --error a plain "
      "LoRA "
      "has the same update: rank r^ for truncation and sharing, but as much as the weight itself "
      "for "
      "rotation. Prints each module's rank and relative error.",
      "adapter_convert");
  std::string adapter, out, form;
  std::optional<std::string> base;
  mora::LowRankSettings settings;
  bool transposed = false;
  app.add_option("adapter", adapter, "Folder with adapter_config.json")->required();
  app.add_option("out", out, "Folder, or a file for GGUF")->required();
  app.add_option("--to", form, "lora: a PEFT folder that every reader knows; gguf: for llama.cpp")
      ->required()
      ->check(CLI::IsMember({"lora", "gguf"}));
  app.add_option("--base", base, "Folder with the model's config.json; needed for MoRA and GGUF");
  app.add_option("--rank", settings.rank, "At most this rank");
  app.add_option("--error", settings.relative_error, "The smallest rank with this relative error");
  app.add_flag("--transposed", transposed, "The adapter is a MoRA of PaddleNLP");
  return programs::run(app, count, arguments, [&] {
    if (form == "gguf" && !base) throw mora::ArgumentError("--to gguf needs --base");
    const mora::PeftFolder folder(adapter, {.transposed = transposed});
    programs::print_warnings(folder.warnings());
    const auto shapes = programs::shapes_of(folder, base);
    const auto exported = mora::export_lora(folder.adapters<float>(shapes), settings);
    if (form == "gguf") {
      mora::save_gguf_adapter(
          exported.adapters,
          mora::read_llama_config(std::filesystem::path(*base) / "config.json").config, out);
    } else {
      mora::save_peft(exported.adapters, out);
    }
    std::cout << "module,rank,relative_error\n";
    for (const mora::ExportedModule& module : exported.modules) {
      std::cout << module.module << ',' << module.rank << ',' << module.relative_error << '\n';
    }
  });
}
