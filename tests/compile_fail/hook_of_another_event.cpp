// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>

struct Batch {
  mora::Index target_count() const { return 1; }
};
struct Model {
  using Batch = ::Batch;
  template <class F>
  void visit_parameters(F&&) {}
  mora::LossSum accumulate_gradients(const Batch&, double) { return {}; }
  mora::LossSum loss(const Batch&) const { return {}; }
};
struct Source {
  Batch batch;
  const Batch& next() { return batch; }
};
struct OfAnotherEvent {
  void on_end(const mora::TrainResult&) {}
  void on_step(const mora::TrainResult&) {}
};

void run(Model& model, mora::Sgd<float>& optimizer, Source& source) {
  mora::train(model, optimizer, mora::ConstantSchedule{}, source, {.steps = 1}, OfAnotherEvent{});
}
