// SPDX-License-Identifier: MIT
//
// The paper's Table 4: MoRA's operators beside each other, on the arithmetic task.

#include "study/program.hpp"

int main(int count, char** arguments) {
  study::Experiment experiment = study::arithmetic_experiment();
  experiment.name = "operators";
  experiment.description = "MoRA's operators on a task with steps";
  experiment.quick.methods = {"lora",           "truncation", "sharing",  "adjacent_sharing",
                              "random_sharing", "decoupling", "rotation", "covering_rotation"};
  experiment.full.methods = experiment.quick.methods;
  return study::run_program(experiment, count, arguments);
}
