// SPDX-License-Identifier: MIT
// Once warmed up, a step of the training loop allocates nothing.
#include <fstream>

#include "support/allocations.hpp"
#include "support/misuse.hpp"
#include "support/toy_model.hpp"

#include <mora/mora.hpp>

namespace mora_tests {
namespace {

/// The allocations between the ends of two steps, the first ones left out.
struct CountAllocations {
  long before = 0;
  long found = 0;
  void on_step(const mora::StepInfo& info) {
    const long now = allocation_count();
    if (info.state.step > 3) found += now - before;
    before = allocation_count();
  }
};

template <class O>
void expect_no_allocations(const mora::TrainSettings& settings, O optimizer) {
  Random random(1);
  ToyModel<float> model(random);
  ToySource<float> source(toy_batches<float>(random, {8}));
  std::ofstream nowhere("/dev/null");
  mora::History history;
  CountAllocations count;
  mora::train(model, optimizer, mora::CosineSchedule{.steps = settings.steps, .warm_up = 5}, source,
              settings, history, mora::CsvLog(nowhere), mora::Progress(nowhere, 0.0), count);
  EXPECT_EQ(count.found, 0);
}

TEST(Training, AllocatesNothingOnceWarmedUp) {
  const mora::AdamWSettings settings{.weight_decay = 0.1};
  expect_no_allocations({.steps = 20}, mora::AdamW<float>(settings));
  expect_no_allocations({.steps = 20, .accumulate = 3, .clip_norm = 0.1},
                        mora::AdamW<float>(settings, {mora::lora_plus(settings, 4.0)}));
  expect_no_allocations({.steps = 20, .clip_norm = 10.0}, mora::Sgd<float>());
}

/// A part deep inside a model: names are longer than std::string keeps in place.
struct Nested {
  ToyModel<float>& model;
  template <class F>
  void visit_parameters(F&& f) {
    mora::visit_parameters("model.layers.11.self_attn.q_proj", model, f);
  }
};

TEST(Training, AllocatesNothingForLongNames) {
  Random random(2);
  ToyModel<float> model(random);
  (void)model.accumulate_gradients(toy_batch<float>(random, 3), 1.0);
  Nested nested{model};
  mora::AdamW<float> optimizer;
  optimizer.step(nested);
  EXPECT_TRUE(mora::clip_gradient_norm(nested, 1e-3).finite());  // its sums go into scratch memory
  const long before = allocation_count();
  optimizer.step(nested);
  EXPECT_TRUE(mora::clip_gradient_norm(nested, 1e-3).finite());
  mora::zero_gradients(nested);
  EXPECT_EQ(allocation_count(), before);
  bool seen = false;
  nested.visit_parameters([&](std::string_view name, const auto&) {
    seen |= name == "model.layers.11.self_attn.q_proj.second.A";
  });
  EXPECT_TRUE(seen);
}

}  // namespace
}  // namespace mora_tests
