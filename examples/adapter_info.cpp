// SPDX-License-Identifier: MIT
//
// What an adapter has learnt, module by module:
//
//   adapter_info ADAPTER [--base MODEL] [--spectrum values.csv]

#include <concepts>
#include <iostream>
#include <mora/analysis/singular_values.hpp>
#include <mora/io/atomic_file.hpp>
#include <mora/io/peft/visit_adapter.hpp>
#include <optional>
#include <span>
#include <sstream>
#include <string>

#include "programs/program.hpp"

namespace {

[[nodiscard]] std::string kind_of(const mora::PeftConfig& config) {
  const std::string method(config.method());
  return method == "MoRA" ? method + ' ' + std::string(mora::name_of(config.op)) : method;
}

[[nodiscard]] mora::Index parameters_of(const mora::AnyAdapter<double>& adapter) {
  mora::Index count = 0;
  for (const auto& named : adapter.parameters()) count += named.parameter->value.size();
  return count;
}

}  // namespace

int main(int count, char** arguments) {
  CLI::App app(
      "Says of a PEFT adapter what it is, and of each module: size, parameters, norm of its "
      "update, numerical, effective and stable rank, and the singular values above 0.1 (the "
      "paper's figure 5).",
      "adapter_info");
  std::string adapter;
  std::optional<std::string> base, spectrum;
  bool transposed = false, links = false;
  app.add_option("adapter", adapter, "Folder with adapter_config.json")->required();
  app.add_option("--base", base,
                 "Folder of the model: its config.json for all but LoRA, its weights for DoRA and "
                 "HiRA");
  app.add_option("--spectrum", spectrum, "CSV file to write all singular values to");
  app.add_flag("--links", links, "Follow links to the weights, as in Hugging Face's cache");
  app.add_flag("--transposed", transposed, "The adapter is a MoRA of PaddleNLP");
  return programs::run(app, count, arguments, [&] {
    programs::refuse_idle(app, !base, "--links", "--base");
    if (spectrum) programs::require_new(*spectrum);
    const mora::PeftFolder folder(adapter, {.transposed = transposed});
    programs::refuse_idle(app, !programs::needs_weights(folder), "--links", "DoRA and HiRA");
    programs::print_warnings(folder.warnings());
    if (!base && programs::needs_weights(folder)) {
      std::cerr << "warning: the update of DoRA and HiRA depends on the weights: without --base "
                   "there are no norms and ranks\n";
    }
    const auto adapters = folder.adapters<double>(programs::shapes_of(folder, base));
    const auto weight = programs::weights_of(base, links);
    std::ostringstream values;
    values << "module,index,singular_value\n";
    mora::Index total = 0;
    std::cout
        << "module,kind,in,out,parameters,norm,largest,rank,effective_rank,stable_rank,above_0.1\n";
    for (const auto& each : adapters) {
      const mora::Index parameters = parameters_of(each.adapter);
      total += parameters;
      const std::string module = programs::csv_field(each.module);
      std::string kind = kind_of(folder.config());
      std::optional<mora::Spectrum> update;
      (void)mora::visit_adapter(each.adapter, [&]<class A>(const A& one) {
        if constexpr (std::same_as<A, mora::FullAdapter<double>>) {
          kind = "whole";
        } else if constexpr (A::additive) {
          update = mora::spectrum(one);
        } else if (weight) {
          mora::detail::name_module(each.module, [&] {
            update = mora::spectrum(mora::detail::update_on_weight(each, weight));
          });
        }
      });
      std::cout << module << ',' << kind << ',' << each.adapter.in_features() << ','
                << each.adapter.out_features() << ',' << parameters;
      if (update) {
        const mora::Spectrum& s = *update;
        std::cout << ',' << s.values.norm() << ',' << (s.values.size() == 0 ? 0.0 : s.values[0])
                  << ',' << s.numerical_rank() << ',' << s.effective_rank() << ','
                  << s.stable_rank() << ',' << s.count_above(0.1) << '\n';
      } else {
        std::cout << ",,,,,,\n";
      }
      for (mora::Index i = 0; spectrum && update && i < update->values.size(); ++i) {
        values << module << ',' << i << ',' << update->values[i] << '\n';
      }
    }
    std::cerr << adapters.size() << " modules, " << total << " parameters, rank "
              << folder.config().rank << '\n';
    if (spectrum) {
      const std::string text = values.str();
      mora::AtomicFile file(*spectrum);
      file.write(std::as_bytes(std::span(text)));
      file.commit();
    }
  });
}
