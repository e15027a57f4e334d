// SPDX-License-Identifier: MIT
//
// The paper's Table 4: MoRA's operators beside each other, on the arithmetic task.

#include "study/program.hpp"

int main(int count, char** arguments) {
  study::Grid quick = study::arithmetic_grid();
  quick.methods = {"lora",           "truncation", "sharing",  "adjacent_sharing",
                   "random_sharing", "decoupling", "rotation", "covering_rotation"};
  study::Grid full = quick;
  full.training.steps = 600;
  full.training.warm_up = 30;
  return study::run_program(
      {.name = "operators",
       .description = "MoRA's operators on a task with steps",
       .quick = quick,
       .full = full,
       .reads_files = false,
       .reads_general = false,
       .task = [](const auto& settings, const auto&,
                  const auto& place) { return study::arithmetic(settings, place); }},
      count, arguments);
}
