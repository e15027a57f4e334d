// SPDX-License-Identifier: MIT
#include "training.hpp"

struct OfAnotherEvent {
  void on_end(const mora::TrainResult&) {}
  void on_step(const mora::TrainResult&) {}
};

void run(Model& model, mora::Sgd<float>& optimizer, Source& source) {
  mora::train(model, optimizer, mora::ConstantSchedule{}, source, {.steps = 1}, OfAnotherEvent{});
}
