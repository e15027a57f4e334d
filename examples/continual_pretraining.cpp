// SPDX-License-Identifier: MIT
//
// Continual pretraining, as in the paper's Table 1: a LLaMA trained on general text learns another
// kind of text. What it learns, and what it forgets of the first.
//
//   continual_pretraining --general=wikitext2_train.txt --general-held-out=wikitext2_test.txt
//                         --train=pubmed_train.txt --held-out=pubmed_test.txt

#include "study/program.hpp"

namespace {

[[nodiscard]] study::Grid quick() {
  return {.training =
              {.batch = 8, .steps = 200, .warm_up = 10, .restart_every = 50, .restart_warm_up = 5},
          .methods = {"lora", "sharing", "rotation", "full"},
          .ranks = {2, 8},
          .rates = {1e-3, 3e-3, 1e-2, 3e-2}};
}

[[nodiscard]] study::Grid full() {
  study::Grid grid = quick();
  grid.task.base.steps = 4000;
  grid.training.steps = 240;
  grid.training.warm_up = 12;
  grid.training.restart_every = 60;
  grid.training.restart_warm_up = 6;
  grid.methods = study::fine_tuning_methods();
  return grid;
}

}  // namespace

int main(int count, char** arguments) {
  return study::run_program(
      {.name = "continual_pretraining",
       .description = "A LLaMA trained on general text learns another kind of text by adapters",
       .quick = quick(),
       .full = full(),
       .task = study::continual_pretraining},
      count, arguments);
}
