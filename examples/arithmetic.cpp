// SPDX-License-Identifier: MIT
//
// A task with steps that a small model can learn, scored by answers that are right as a whole: a
// LLaMA that knows chains of sums and differences of digits learns products by adapters.

#include "study/program.hpp"

int main(int count, char** arguments) {
  study::Grid full = study::arithmetic_grid();
  full.training.steps = 600;
  full.training.warm_up = 30;
  full.training.restart_every = 150;
  full.training.restart_warm_up = 8;
  full.methods = study::fine_tuning_methods();
  return study::run_program(
      {.name = "arithmetic",
       .description = "A LLaMA that knows sums and differences learns products by adapters",
       .quick = study::arithmetic_grid(),
       .full = full,
       .reads_files = false,
       .reads_general = false,
       .task = [](const auto& settings, const auto&,
                  const auto& place) { return study::arithmetic(settings, place); }},
      count, arguments);
}
