// SPDX-License-Identifier: MIT
#include "training.hpp"

struct Misspelt {
  void on_steps(const mora::StepInfo&) {}
};

void run(Model& model, mora::Sgd<float>& optimizer, Source& source) {
  mora::train(model, optimizer, mora::ConstantSchedule{}, source, {.steps = 1}, Misspelt{});
}
