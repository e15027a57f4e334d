// SPDX-License-Identifier: MIT
//
// The paper's Table 3 at the size of a CPU: a LLaMA trained from random weights, its linear layers
// in full or through LoRA, ReLoRA, MoRA and ReMoRA, with the same data, steps and number of
// trainable parameters; norms and embedding train with all of them.
//
//   pretraining --train=wikitext2_train.txt --held-out=wikitext2_test.txt

#include "study/program.hpp"

namespace {

[[nodiscard]] study::Grid quick() {
  return {.training =
              {.batch = 8, .steps = 300, .warm_up = 20, .restart_every = 60, .restart_warm_up = 6},
          .methods = {"lora", "relora", "sharing", "remora", "remora_fresh", "full"},
          .ranks = {8},
          .rates = {1e-3, 3e-3, 1e-2, 3e-2}};
}

/// With the paper's number of restarts.
[[nodiscard]] study::Grid full() {
  study::Grid grid = quick();
  grid.training.steps = 1000;
  grid.training.warm_up = 50;
  grid.training.restart_every = 200;
  grid.training.restart_warm_up = 10;
  grid.methods = {"lora", "relora", "sharing", "rotation", "remora", "remora_fresh", "full"};
  return grid;
}

}  // namespace

int main(int count, char** arguments) {
  return study::run_program(
      {.name = "pretraining",
       .description = "A LLaMA trained from scratch through LoRA, ReLoRA, MoRA and ReMoRA",
       .quick = quick(),
       .full = full(),
       .reads_general = false,
       .task = [](const auto& settings, const auto& files,
                  const auto&) { return study::pretraining(settings, files); }},
      count, arguments);
}
