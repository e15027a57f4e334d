// SPDX-License-Identifier: MIT
//
// Writes any adapter as a plain LoRA, for llama.cpp, or as MoRA of another operator:
//
//   adapter_convert ADAPTER OUT --to lora --base MODEL --rank 16
//   adapter_convert ADAPTER adapter.gguf --to gguf --base MODEL
//   adapter_convert ADAPTER OUT --to sharing --base MODEL --rank 8

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <mora/io/peft/gguf_adapter.hpp>
#include <mora/io/peft/lora_export.hpp>
#include <mora/io/peft/mora_export.hpp>
#include <mora/io/peft/save.hpp>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "programs/program.hpp"

namespace {

struct Options {
  std::string adapter, out, form;
  std::optional<std::string> base;
  mora::LowRankSettings low_rank;
  std::optional<std::uint64_t> seed;
  bool transposed = false, links = false;
};

void print(const std::vector<mora::ExportedModule>& modules) {
  std::cout << "module,rank,relative_error\n";
  for (const mora::ExportedModule& module : modules) {
    std::cout << programs::csv_field(module.module) << ',' << module.rank << ','
              << module.relative_error << '\n';
  }
}

/// Both bounds may be given; then the rank is the one that holds.
void print_misses(const std::vector<mora::ExportedModule>& modules,
                  const mora::LowRankSettings& bounds) {
  if (!bounds.rank || !bounds.relative_error) return;
  const auto misses = std::count_if(modules.begin(), modules.end(), [&](const auto& module) {
    return !(module.relative_error <= *bounds.relative_error);
  });
  if (misses == 0) return;
  std::cerr << "warning: " << misses << " of " << modules.size()
            << " modules need more than --rank " << *bounds.rank << " for --error "
            << *bounds.relative_error << '\n';
}

/// What the folder says besides its adapters goes on to the new one.
[[nodiscard]] mora::PeftSaveSettings settings_of(const Options& o, const mora::PeftFolder& folder) {
  mora::PeftSaveSettings settings{.dtype = mora::Dtype::f32,
                                  .tied_head = folder.config().ensure_weight_tying,
                                  .base_model = folder.config().base_model,
                                  .task_type = folder.config().task_type};
  if (o.base) {
    settings.tied_head = programs::config_of(*o.base).tie_word_embeddings;
  }
  return settings;
}

void write_mora(const Options& o, const mora::PeftFolder& folder, mora::PeftOperator op) {
  if (o.low_rank.relative_error) {
    throw mora::ArgumentError("--error is for --to lora and gguf; MoRA has --rank");
  }
  mora::MoraExportSettings settings{.op = op};
  if (o.low_rank.rank) settings.rank = *o.low_rank.rank;
  std::visit(
      [&](auto& each) {
        if constexpr (requires { each.seed; }) {
          each.seed = o.seed.value_or(0);
        } else if (o.seed) {
          throw mora::ArgumentError("--seed is for random_sharing");
        }
      },
      settings.op);
  const auto adapters = folder.adapters<double>(programs::shapes_of(folder, o.base));
  const auto exported =
      mora::export_mora(adapters, settings, programs::weights_of(o.base, o.links));
  mora::save_peft(exported.adapters, o.out, settings_of(o, folder));
  print(exported.modules);
}

void write_lora(const Options& o, const mora::PeftFolder& folder) {
  const bool gguf = o.form == "gguf";
  if (gguf && !o.base) throw mora::ArgumentError("--to gguf needs --base");
  if (o.seed) throw mora::ArgumentError("--seed is for random_sharing");
  const auto adapters = folder.adapters<double>(programs::shapes_of(folder, o.base));
  const auto exported =
      mora::export_lora(adapters, o.low_rank, programs::weights_of(o.base, o.links));
  if (gguf) {
    mora::save_gguf_adapter(exported.adapters, programs::config_of(*o.base), o.out);
  } else {
    mora::save_peft(exported.adapters, o.out, settings_of(o, folder));
  }
  print_misses(exported.modules, o.low_rank);
  print(exported.modules);
}

}  // namespace

int main(int count, char** arguments) {
  CLI::App app(
      "Writes a PEFT adapter in another form. Without --rank and --error a plain LoRA has the same "
      "update: rank r^ for truncation and sharing, but for rotation up to the layer's smaller "
      "size, "
      "which is more numbers than the weight has. MoRA of another operator has the nearest update, "
      "which as a rule is "
      "far away: look at the errors. Prints each module's rank and relative error.",
      "adapter_convert");
  Options o;
  app.add_option("adapter", o.adapter, "Folder with adapter_config.json")->required();
  app.add_option("out", o.out, "Folder, or a file for GGUF")->required();
  app.add_option("--to", o.form,
                 "lora: a PEFT folder that every reader knows; gguf: for llama.cpp; or MoRA of an "
                 "operator: " +
                     mora::peft_operator_names())
      ->required();
  app.add_option("--base", o.base,
                 "Folder of the model: its config.json (which may be named alone) for GGUF and all "
                 "but LoRA, its weights for DoRA and HiRA");
  app.add_option("--rank", o.low_rank.rank, "At most this rank; MoRA's r, else 8");
  app.add_option("--error", o.low_rank.relative_error,
                 "The smallest rank with this relative error");
  app.add_option("--seed", o.seed, "Of random_sharing; else 0");
  app.add_flag("--links", o.links, "Follow links to the weights, as in Hugging Face's cache");
  app.add_flag("--transposed", o.transposed, "The adapter is a MoRA of PaddleNLP");
  return programs::run(app, count, arguments, [&] {
    programs::refuse_idle(app, !o.base, "--links", "--base");
    const auto op = mora::peft_operator(o.form);
    if (!op && o.form != "lora" && o.form != "gguf") {
      throw mora::ArgumentError("--to: expected lora, gguf, " + mora::peft_operator_names() +
                                ", found " + o.form);
    }
    programs::require_new(o.out);
    const mora::PeftFolder folder(o.adapter, {.transposed = o.transposed});
    programs::refuse_idle(app, !programs::needs_weights(folder), "--links", "DoRA and HiRA");
    programs::print_warnings(folder.warnings());
    if (!o.base && programs::needs_weights(folder)) {
      throw mora::ArgumentError("the update of DoRA and HiRA depends on the weights: pass --base");
    }
    if (op) {
      write_mora(o, folder, *op);
    } else {
      write_lora(o, folder);
    }
  });
}
