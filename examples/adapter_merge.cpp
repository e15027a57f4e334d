// SPDX-License-Identifier: MIT
//
// Merges a PEFT adapter into a LLaMA checkpoint on the disk, of any size:
//
//   adapter_merge BASE ADAPTER MERGED

#include <algorithm>
#include <iomanip>
#include <iostream>
#include <mora/io/llama/llama_folder.hpp>
#include <mora/io/llama/merge_folder.hpp>
#include <optional>
#include <string>

#include "programs/program.hpp"

int main(int count, char** arguments) {
  CLI::App app(
      "Merges a PEFT adapter into a Hugging Face LLaMA folder and writes the result "
      "as "
      "a new folder: shard by shard, with the base's dtypes, rounded once. Prints what rounding "
      "took "
      "from each module's update.",
      "adapter_merge");
  std::string base, adapter, merged;
  bool links = false, transposed = false, quiet = false, finite = false;
  std::optional<double> most_error;
  app.add_option("base", base, "Folder with config.json and model.safetensors or shards")
      ->required();
  app.add_option("adapter", adapter, "Folder with adapter_config.json")->required();
  app.add_option("merged", merged, "New folder, which must not be there or be empty")->required();
  app.add_flag("--links", links, "Follow links, as in Hugging Face's cache");
  app.add_flag("--transposed", transposed, "The adapter is a MoRA of PaddleNLP");
  app.add_option("--most-error", most_error,
                 "Refuse to merge where rounding changes a module's update by more, relatively")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--finite", finite, "Refuse a base with numbers that are NaN or infinite");
  app.add_flag("--quiet", quiet, "No progress on stderr");
  return programs::run(app, count, arguments, [&] {
    const mora::PeftFolder folder(adapter, {.transposed = transposed});
    programs::print_warnings(folder.warnings());
    const mora::LlamaFolder model(base, {.links = links});
    programs::print_warnings(model.warnings());
    programs::warn_of_another_base(folder, base);
    if (finite) model.require_finite();
    mora::Index percent = 0;
    mora::MergeFolderSettings settings{.links = links};
    settings.warning = [](const std::string& text) { programs::print_warnings({text}); };
    if (most_error) settings.most_rounding_error = *most_error;
    settings.progress = [&](mora::Index done, mora::Index all) {
      if (quiet || done * 100 / all < percent + 5) return;
      percent = done * 100 / all;
      std::cerr << percent << " %\n";
    };
    const auto merge_in = [&]<class T>(T) {
      const auto updates = folder.updates<T>(mora::layer_shapes(model.config()));
      return mora::merge_folder(base, updates, merged, settings);
    };
    // Float is exact enough where the weights have 16 bits or fewer.
    const bool narrow = std::ranges::all_of(model.tensors().tensors(), [](const auto& tensor) {
      return mora::bits_of(tensor.dtype()) <= 16;
    });
    const auto report = narrow ? merge_in(float{}) : merge_in(double{});
    std::cout << "module,dtype,update_norm,rounding_error\n" << std::setprecision(4);
    for (const mora::MergedModule& module : report) {
      std::cout << programs::csv_field(module.module) << ',' << mora::name_of(module.dtype) << ','
                << module.update_norm << ',' << module.rounding_error << '\n';
    }
  });
}
