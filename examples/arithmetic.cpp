// SPDX-License-Identifier: MIT
//
// A task with steps that a small model can learn, scored by answers that are right as a whole: a
// LLaMA that knows chains of sums and differences of digits learns products by adapters.

#include "study/program.hpp"

int main(int count, char** arguments) {
  study::Experiment experiment = study::arithmetic_experiment();
  experiment.name = "arithmetic";
  experiment.description = "A LLaMA that knows sums and differences learns products by adapters";
  return study::run_program(experiment, count, arguments);
}
