// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <mora/optim/adamw.hpp>
#include <mora/optim/sgd.hpp>
#include <mora/train/callbacks/early_stop.hpp>
#include <mora/train/callbacks/history.hpp>
#include <mora/train/evaluate.hpp>
#include <mora/train/train.hpp>
#include <string>
#include <vector>

#include "support/misuse.hpp"
#include "support/not_finite.hpp"
#include "support/toy_model.hpp"

/// \file
/// The training loop: that it is the loop one would write out, and what it does with faults.

namespace mora_tests {
namespace {

using mora::AdamW;
using mora::ArgumentError;
using mora::Control;
using mora::History;
using mora::LossSum;
using mora::Matrix;
using mora::NumericError;
using mora::Sgd;
using mora::TrainResult;
using mora::TrainSettings;
using mora::TrainState;

static_assert(mora::TrainableModel<ToyModel<float>> && mora::TrainableModel<ToyModel<double>>);

constexpr mora::ConstantSchedule constant{};

/// All values of a model's parameters.
template <class M>
[[nodiscard]] Bits values_of(const M& model) {
  Bits bits;
  model.visit_parameters([&](std::string_view name, const auto& p) {
    bits.bytes.append(name).append(bits_of(p.value).bytes);
  });
  return bits;
}
template <class R>
[[nodiscard]] Bits state_of(const mora::Optimizer<R>& optimizer) {
  Bits bits;
  optimizer.visit_state([&](std::string_view name, const auto& state) {
    bits.bytes.append(name).append(std::to_string(state.steps));
    for (const auto& moment : state.moments) bits.bytes += bits_of(moment).bytes;
  });
  return bits;
}

template <class T>
[[nodiscard]] AdamW<T> make_adamw() {
  return AdamW<T>({.learning_rate = 0.02, .weight_decay = 0.01});
}

/// A model, its optimizer and its batches.
template <class T>
struct Training {
  explicit Training(std::uint64_t seed, const std::vector<Index>& rows = {3, 5, 2, 4, 6})
      : random(seed), model(random), source(toy_batches<T>(random, rows)) {}
  Random random;
  ToyModel<T> model;
  AdamW<T> optimizer = make_adamw<T>();
  ToySource<T> source;
};

template <class T>
class Train : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Train, Scalars);

TYPED_TEST(Train, IsTheLoopWrittenOut) {
  using T = TypeParam;
  const mora::CosineSchedule schedule{.steps = 12, .warm_up = 3, .minimum = 0.1};
  Training<T> by_loop(1);
  Training<T> by_hand(1);
  History history;
  const TrainResult result = mora::train(by_loop.model, by_loop.optimizer, schedule, by_loop.source,
                                         {.steps = 12, .clip_norm = 2.0}, history);
  EXPECT_EQ(result.state, (TrainState{.step = 12,
                                      .skipped = 0,
                                      .targets = 3 + 5 + 2 + 4 + 6 + 3 + 5 + 2 + 4 + 6 + 3 + 5}));
  EXPECT_FALSE(result.stopped);
  ASSERT_EQ(history.steps().size(), 12u);
  for (Index step = 0; step < 12; ++step) {
    const ToyBatch<T>& batch = by_hand.source.next();
    mora::zero_gradients(by_hand.model);
    const LossSum loss =
        by_hand.model.accumulate_gradients(batch, 1.0 / double(batch.target_count()));
    const double norm = mora::clip_gradient_norm(by_hand.model, 2.0).norm;
    by_hand.optimizer.step(by_hand.model, schedule(step));
    const History::Step& told = history.steps()[static_cast<std::size_t>(step)];
    EXPECT_EQ(told.step, step + 1);
    EXPECT_EQ(told.loss, loss.sum / double(loss.count));
    EXPECT_EQ(told.factor, schedule(step));
    EXPECT_EQ(told.gradient_norm, norm);
    EXPECT_FALSE(told.skipped);
  }
  EXPECT_EQ(values_of(by_loop.model), values_of(by_hand.model));
  EXPECT_EQ(state_of(by_loop.optimizer), state_of(by_hand.optimizer));
}

TYPED_TEST(Train, LowersTheLoss) {
  using T = TypeParam;
  Training<T> training(2, {8});
  const double before = training.model.loss(training.source.next()).mean();
  mora::train(training.model, training.optimizer, constant, training.source, {.steps = 200});
  EXPECT_LT(training.model.loss(training.source.next()).mean(), 0.5 * before);
}

// Several batches of different sizes, an empty one too, are the large batch of all their rows.
TYPED_TEST(Train, AccumulatesTheGradientOfTheLargeBatch) {
  using T = TypeParam;
  const std::vector<Index> rows{3, 1, 0, 4};
  Random random(3);
  const ToyModel<T> model(random);
  const auto parts = toy_batches<T>(random, rows);
  ToyBatch<T> whole{Matrix<T>(8, ToyModel<T>::inputs), Matrix<T>(8, ToyModel<T>::outputs)};
  Index row = 0;
  for (const ToyBatch<T>& part : parts) {
    whole.x.middleRows(row, part.x.rows()) = part.x;
    whole.y.middleRows(row, part.y.rows()) = part.y;
    row += part.x.rows();
  }
  ASSERT_EQ(row, 8);
  ToySource<T> in_parts(parts);
  ToySource<T> at_once({whole});
  auto accumulated = model;
  auto expected = model;
  History history;
  History expected_history;
  // Gradient descent: what differs in the gradient differs as much in the weights.
  Sgd<T> optimizer({.learning_rate = 0.1});
  Sgd<T> twin = optimizer;
  mora::train(accumulated, optimizer, constant, in_parts, {.steps = 3, .accumulate = 4}, history);
  mora::train(expected, twin, constant, at_once, {.steps = 3}, expected_history);
  std::vector<Matrix<T>> values;
  expected.visit_parameters([&](std::string_view, const auto& p) { values.push_back(p.value); });
  std::size_t i = 0;
  accumulated.visit_parameters([&](std::string_view name, const auto& p) {
    EXPECT_TRUE(near(p.value, values[i++])) << name;
  });
  for (std::size_t step = 0; step < 3; ++step) {
    const History::Step& found = history.steps()[step];
    const History::Step& wanted = expected_history.steps()[step];
    EXPECT_TRUE(near<T>(found.loss, wanted.loss, wanted.loss));
    EXPECT_TRUE(near<T>(found.gradient_norm, wanted.gradient_norm, wanted.gradient_norm));
  }
  EXPECT_EQ(in_parts.position(), 12u);
}

TYPED_TEST(Train, ComputesTheSameBitsAgain) {
  using T = TypeParam;
  const auto run = [](std::uint64_t seed) {
    Training<T> training(seed);
    mora::train(training.model, training.optimizer, mora::LinearSchedule{.steps = 30},
                training.source, {.steps = 30, .accumulate = 2, .clip_norm = 1.0});
    return values_of(training.model);
  };
  EXPECT_EQ(run(4), run(4));
  EXPECT_NE(run(4), run(5));
}

// From every step on, with a copy of everything that is passed in, and nothing else.
TYPED_TEST(Train, GoesOnFromAnyStep) {
  using T = TypeParam;
  const mora::JaggedSchedule schedule{
      .steps = 9, .warm_up = 2, .restart_every = 4, .restart_warm_up = 2};
  TrainSettings settings{.steps = 9, .accumulate = 2, .clip_norm = 1.0, .evaluate_every = 2};
  Training<T> whole(6);
  auto held_out = toy_batches<T>(whole.random, {2, 3});
  History history;
  const TrainResult expected =
      mora::train(whole.model, whole.optimizer, schedule, whole.source, settings, history,
                  mora::EvaluateOn("held out", held_out));
  for (Index stop = 0; stop <= 9; ++stop) {
    Training<T> first(6);
    struct StopAt {
      Index step;
      Control on_begin(const TrainSettings&) const {
        return step == 0 ? Control::stop : Control::go_on;
      }
      Control on_step(const mora::StepInfo& info) const {
        return info.state.step == step ? Control::stop : Control::go_on;
      }
    };
    settings.start = {};
    const TrainResult half = mora::train(first.model, first.optimizer, schedule, first.source,
                                         settings, StopAt{stop}, mora::EvaluateOn("", held_out));
    ASSERT_EQ(half.state.step, stop);
    EXPECT_TRUE(half.stopped);

    ToyModel<T> model = first.model;
    AdamW<T> optimizer = make_adamw<T>();
    first.optimizer.visit_state(
        [&](std::string_view name, const auto& state) { optimizer.set_state(name, state); });
    ToySource<T> source = first.source;
    settings.start = half.state;
    History rest;
    const TrainResult result = mora::train(model, optimizer, schedule, source, settings, rest,
                                           mora::EvaluateOn("held out", held_out));
    EXPECT_EQ(result.state, expected.state);
    EXPECT_EQ(values_of(model), values_of(whole.model)) << stop;
    EXPECT_EQ(state_of(optimizer), state_of(whole.optimizer)) << stop;
    ASSERT_EQ(rest.steps().size(), static_cast<std::size_t>(9 - stop));
    for (std::size_t i = 0; i < rest.steps().size(); ++i) {
      const History::Step& wanted = history.steps()[i + static_cast<std::size_t>(stop)];
      EXPECT_EQ(rest.steps()[i].step, wanted.step);
      EXPECT_EQ(rest.steps()[i].loss, wanted.loss);
      EXPECT_EQ(rest.steps()[i].factor, wanted.factor);
    }
  }
}

// What a checkpoint has of EarlyStop includes the evaluation of its step.
TYPED_TEST(Train, StopsEarlyAtTheSameStepFromAnyCheckpoint) {
  using T = TypeParam;
  struct Point {
    mora::TrainState state;
    mora::EarlyStop::State early;
    ToySource<T> source;
  };
  struct Keep {
    std::vector<Point>* points;
    const mora::EarlyStop* early;
    const ToySource<T>* source;
    void on_step_end(const mora::StepInfo& info) const {
      points->push_back({info.state, early->state(), *source});
    }
  };
  Training<T> training(6);
  auto held_out = toy_batches<T>(training.random, {2, 3});
  AdamW<T> frozen({.learning_rate = 0.0});
  TrainSettings settings{.steps = 20, .evaluate_every = 2};
  mora::EarlyStop early({.patience = 3});
  std::vector<Point> points;
  const TrainResult expected = mora::train(training.model, frozen, constant, training.source,
                                           settings, mora::EvaluateOn("held out", held_out), early,
                                           Keep{&points, &early, &training.source});
  ASSERT_TRUE(expected.stopped);
  ASSERT_EQ(expected.state.step, 8);
  ASSERT_EQ(points.size(), 8u);
  for (Point& point : points) {
    mora::EarlyStop again({.patience = 3}, point.early);
    settings.start = point.state;
    const TrainResult result = mora::train(training.model, frozen, constant, point.source, settings,
                                           mora::EvaluateOn("held out", held_out), again);
    EXPECT_TRUE(result.stopped) << point.state.step;
    EXPECT_EQ(result.state, expected.state) << point.state.step;
    EXPECT_EQ(again.state().waited, 3) << point.state.step;
  }
  EXPECT_TRUE(throws<ArgumentError>({"since the best", "found -1"},
                                    [] { mora::EarlyStop({}, {.waited = -1}); }));
}

TYPED_TEST(Train, RefusesAStepWithoutTargets) {
  using T = TypeParam;
  Training<T> training(7, {3, 2, 0, 0});
  Training<T> expected(7, {3, 2, 0, 0});
  EXPECT_TRUE(throws<ArgumentError>({"step 2", "no targets", "2 batches"}, [&] {
    mora::train(training.model, training.optimizer, constant, training.source,
                {.steps = 5, .accumulate = 2});
  }));
  mora::train(expected.model, expected.optimizer, constant, expected.source,
              {.steps = 1, .accumulate = 2});
  EXPECT_EQ(values_of(training.model), values_of(expected.model));
  EXPECT_EQ(state_of(training.optimizer), state_of(expected.optimizer));
}

TYPED_TEST(Train, RefusesAnEvaluationWithoutTargetsBeforeTheFirstStep) {
  using T = TypeParam;
  Training<T> training(7);
  const Bits before = values_of(training.model);
  const auto held_out = toy_batches<T>(training.random, {0, 0});
  EXPECT_TRUE(throws<ArgumentError>({"\"held out\"", "no targets in 2 batches"}, [&] {
    mora::train(training.model, training.optimizer, constant, training.source, {.steps = 5},
                mora::EvaluateOn("held out", held_out));
  }));
  EXPECT_EQ(values_of(training.model), before);
}

/// A model that counts otherwise than its batches do, and one that spoils its gradient for batches
/// of four targets.
template <class T>
struct Miscounting : ToyModel<T> {
  using ToyModel<T>::ToyModel;
  LossSum accumulate_gradients(const ToyBatch<T>& batch, double weight) {
    LossSum loss = ToyModel<T>::accumulate_gradients(batch, weight);
    ++loss.count;
    return loss;
  }
};
template <class T>
struct Spoiling : ToyModel<T> {
  using ToyModel<T>::ToyModel;
  T number = T(0);  // what the gradient of second.A has then
  LossSum accumulate_gradients(const ToyBatch<T>& batch, double weight) {
    const LossSum loss = ToyModel<T>::accumulate_gradients(batch, weight);
    if (batch.target_count() == 4) {
      this->visit_parameters([&](std::string_view name, auto& p) {
        if (name == "second.A") p.gradient(1, 2) = number;
      });
    }
    return loss;
  }
};

TYPED_TEST(Train, RefusesAModelThatCountsOtherwise) {
  using T = TypeParam;
  Random random(8);
  Miscounting<T> model(random);
  const Bits before = values_of(model);
  ToySource<T> source(toy_batches<T>(random, {3}));
  auto optimizer = make_adamw<T>();
  EXPECT_TRUE(throws<mora::ShapeError>({"targets", "expected 3, found 4"}, [&] {
    mora::train(model, optimizer, constant, source, {.steps = 1});
  }));
  EXPECT_EQ(values_of(model), before);
}

/// The weights and the optimizer after steps 1 and 2, and then from the fourth batch on for two
/// more: what is left of a run whose third step was skipped.
template <class T, class M>
void expect_skipped_third(M model, const std::vector<ToyBatch<T>>& batches,
                          std::initializer_list<std::string_view> fault,
                          const TrainSettings& more = {}) {
  TrainSettings settings = more;
  settings.steps = 5;
  const M start = model;
  M expected = start;
  ToySource<T> source(batches);
  auto optimizer = make_adamw<T>();
  auto twin = make_adamw<T>();

  // Stopping is the default; what threw has changed nothing.
  History history;
  EXPECT_TRUE(throws<NumericError>(
      fault, [&] { mora::train(model, optimizer, constant, source, settings, history); }));
  EXPECT_EQ(history.steps().size(), 2u);
  ToySource<T> twins(batches);
  settings.steps = 2;
  mora::train(expected, twin, constant, twins, settings);
  EXPECT_EQ(values_of(model), values_of(expected));
  EXPECT_EQ(state_of(optimizer), state_of(twin));

  // Skipping goes on with weights and moments that have not seen the step.
  (void)twins.next();
  mora::train(expected, twin, constant, twins, settings);
  model = start;
  optimizer = make_adamw<T>();
  ToySource<T> again(batches);
  settings.steps = 5;
  settings.skips_allowed = 1;
  History skipping;
  const TrainResult result = mora::train(model, optimizer, constant, again, settings, skipping);
  EXPECT_EQ(result.state.step, 5);
  EXPECT_EQ(result.state.skipped, 1);
  EXPECT_EQ(values_of(model), values_of(expected));
  EXPECT_EQ(state_of(optimizer), state_of(twin));
  ASSERT_EQ(skipping.steps().size(), 5u);
  for (const History::Step& step : skipping.steps()) EXPECT_EQ(step.skipped, step.step == 3);
  Index targets = 0;
  for (const std::size_t i : {0, 1, 3, 4}) targets += batches[i].target_count();
  EXPECT_EQ(result.state.targets, targets);
}

TYPED_TEST(Train, StopsAtOrSkipsALossThatIsNotFinite) {
  using T = TypeParam;
  for (const double clip : {0.0, 1.0}) {
    for (const double bad : {nan<double>, infinity<double>}) {
      Random random(9);
      const ToyModel<T> model(random);
      auto batches = toy_batches<T>(random, {3, 2, 4, 3, 5});
      batches[2].y(1, 1) = static_cast<T>(bad);
      expect_skipped_third<T>(model, batches,
                              {"step 3", "the loss is ", std::isnan(bad) ? "nan" : "inf",
                               "gradient of first.M: not finite"},
                              {.clip_norm = clip});
    }
  }
}

TYPED_TEST(Train, StopsAtOrSkipsAGradientThatIsNotFinite) {
  using T = TypeParam;
  for (const double clip : {0.0, 1.0}) {
    Random random(10);
    Spoiling<T> model(random);
    model.number = infinity<T>;
    const auto batches = toy_batches<T>(random, {3, 2, 4, 3, 5});
    expect_skipped_third<T>(model, batches, {"step 3: gradient of second.A: not finite"},
                            {.clip_norm = clip});
  }
}

/// One that would take any step.
struct Counting {
  std::vector<Index> stepped;
  void step(ToyModel<double>&, double factor) { stepped.push_back(static_cast<Index>(factor)); }
};

// An optimizer that checks nothing is not asked for a step that cannot be.
TEST(TrainInDouble, AsksNoOptimizerForAStepThatIsNotFinite) {
  Random random(17);
  Spoiling<double> model(random);
  model.number = nan<double>;
  auto batches = toy_batches<double>(random, {3, 2, 4, 3, 5});
  batches[1].y(0, 0) = nan<double>;
  ToySource<double> source(batches);
  Counting optimizer;
  const auto number = [](Index step) { return double(step + 1); };
  mora::train(model, optimizer, number, source, {.steps = 5, .skips_allowed = 2});
  EXPECT_EQ(optimizer.stepped, (std::vector<Index>{1, 4, 5}));
}

// Finite, but not its square, which AdamW would remember for good.
TEST(TrainInFloat, StopsAtOrSkipsAGradientThatOverflowsAMoment) {
  Random random(11);
  Spoiling<float> model(random);
  model.number = 1e30f;
  const auto batches = toy_batches<float>(random, {3, 2, 4, 3, 5});
  expect_skipped_third<float>(model, batches, {"step 3: gradient of second.A: too large"});
}

TYPED_TEST(Train, StopsWhenMoreThanAllowedWasSkipped) {
  using T = TypeParam;
  Random random(12);
  ToyModel<T> model(random);
  auto batches = toy_batches<T>(random, {3, 2});
  batches[1].x(0, 0) = static_cast<T>(nan<double>);
  ToySource<T> source(batches);
  auto optimizer = make_adamw<T>();
  EXPECT_TRUE(throws<NumericError>({"step 6: ", "skipped before: 2, allowed: 2"}, [&] {
    mora::train(model, optimizer, constant, source, {.steps = 20, .skips_allowed = 2});
  }));
  // Those before the beginning count.
  ToySource<T> again(batches, 1);
  EXPECT_TRUE(throws<NumericError>({"step 5: ", "skipped before: 2, allowed: 2"}, [&] {
    mora::train(model, optimizer, constant, again,
                {.steps = 20, .skips_allowed = 2, .start = {.step = 4, .skipped = 2}});
  }));
}

/// Writes every hook down.
struct Recorder {
  std::string name;
  std::string* log;
  Control answer = Control::go_on;
  std::string answers_at{};

  Control say(const std::string& what) {
    *log += name + ":" + what + " ";
    return what == answers_at ? answer : Control::go_on;
  }
  Control on_begin(const TrainSettings& settings) {
    return say("begin" + std::to_string(settings.start.step));
  }
  Control on_step(const mora::StepInfo& info) {
    return say("step" + std::to_string(info.state.step));
  }
  Control on_evaluation(const mora::EvaluationInfo& info) {
    return say(std::string(info.name) + std::to_string(info.state.step));
  }
  void on_end(const TrainResult& result) {
    (void)say("end" + std::to_string(result.state.step) + (result.stopped ? "!" : ""));
  }
};
/// One hook alone, which returns nothing.
struct StepOnly {
  std::string* log;
  void on_step(const mora::StepInfo&) { *log += "- "; }
};

TEST(Callbacks, AreCalledInOrder) {
  const auto run = [](TrainSettings settings, const std::string& stops_at) {
    Training<double> training(13);
    auto batches = toy_batches<double>(training.random, {2});
    std::string log;
    Recorder a{"a", &log, Control::stop, stops_at};
    mora::train(training.model, training.optimizer, constant, training.source, settings, a,
                StepOnly{&log}, mora::EvaluateOn("x", batches), Recorder{"b", &log},
                mora::EvaluateOn("y", batches));
    return log;
  };
  EXPECT_EQ(run({.steps = 3, .evaluate_every = 2}, ""),
            "a:begin0 b:begin0 a:step1 - b:step1 a:step2 - b:step2 a:x2 b:x2 a:y2 b:y2 "
            "a:step3 - b:step3 a:x3 b:x3 a:y3 b:y3 a:end3 b:end3 ");
  EXPECT_EQ(run({.steps = 1}, ""),
            "a:begin0 b:begin0 a:step1 - b:step1 a:x1 b:x1 a:y1 b:y1 "
            "a:end1 b:end1 ");
  EXPECT_EQ(run({.steps = 3, .start = {.step = 3}}, ""), "a:begin3 b:begin3 a:end3 b:end3 ");
  EXPECT_EQ(run({.steps = 0}, ""), "a:begin0 b:begin0 a:end0 b:end0 ");
  EXPECT_EQ(run({.steps = 3}, "begin0"), "a:begin0 b:begin0 a:end0! b:end0! ");
  EXPECT_EQ(run({.steps = 3, .evaluate_every = 1}, "step1"),
            "a:begin0 b:begin0 a:step1 - b:step1 a:end1! b:end1! ");
  EXPECT_EQ(run({.steps = 3, .evaluate_every = 1}, "x1"),
            "a:begin0 b:begin0 a:step1 - b:step1 a:x1 b:x1 a:y1 b:y1 a:end1! b:end1! ");
}

TEST(Callbacks, HandOnTheirExceptions) {
  Training<double> training(14);
  struct Thrower {
    void on_step(const mora::StepInfo& info) const {
      if (info.state.step == 2) throw std::domain_error("hook");
    }
  };
  EXPECT_TRUE(throws<std::domain_error>({"hook"}, [&] {
    mora::train(training.model, training.optimizer, constant, training.source, {.steps = 5},
                Thrower{});
  }));
}

TYPED_TEST(Train, EvaluatesTheMeanOverTargets) {
  using T = TypeParam;
  Random random(15);
  const ToyModel<T> model(random);
  const auto batches = toy_batches<T>(random, {3, 0, 1, 7});
  LossSum expected;
  for (const ToyBatch<T>& batch : batches) {
    for (Index row = 0; row < batch.x.rows(); ++row) {
      expected += model.loss({batch.x.row(row), batch.y.row(row)});
    }
  }
  const LossSum found = mora::evaluate(model, batches);
  EXPECT_EQ(found.count, 11);
  EXPECT_TRUE(near<T>(found.mean(), expected.sum / 11.0, expected.sum / 11.0));
  const std::vector<ToyBatch<T>> empty = toy_batches<T>(random, {0, 0});
  EXPECT_TRUE(throws<ArgumentError>({"evaluation", "no targets in 2 batches"},
                                    [&] { (void)mora::evaluate(model, empty); }));
}

TYPED_TEST(Train, RefusesSettingsOutOfRange) {
  using T = TypeParam;
  Training<T> training(16);
  const Bits before = values_of(training.model);
  const auto refused = [&](const TrainSettings& settings,
                           std::initializer_list<std::string_view> parts) {
    EXPECT_TRUE(throws<ArgumentError>(parts, [&] {
      mora::train(training.model, training.optimizer, constant, training.source, settings);
    }));
  };
  refused({.steps = -1}, {"steps", "0", "found -1"});
  refused({.steps = 1, .accumulate = 0}, {"accumulate", "1", "found 0"});
  for (const double clip : {-1.0, nan<double>, infinity<double>}) {
    refused({.steps = 1, .clip_norm = clip}, {"clip_norm"});
  }
  refused({.steps = 1, .skips_allowed = -1}, {"skips_allowed", "found -1"});
  refused({.steps = 1, .evaluate_every = -1}, {"evaluate_every", "found -1"});
  refused({.steps = 4, .start = {.step = 5}}, {"start.step", "<= 4", "found 5"});
  refused({.steps = std::numeric_limits<Index>::max(), .start = {.step = -1}},
          {"start.step", "found -1"});
  refused({.steps = 4, .start = {.step = -1}}, {"start.step", "found -1"});
  refused({.steps = 4, .start = {.step = 2, .skipped = 3}}, {"start.skipped", "found 3"});
  refused({.steps = 4, .start = {.targets = -1}}, {"start.targets", "found -1"});
  refused({.steps = 4, .evaluate_every = 2}, {"evaluate_every", "found 2", "no callback"});
  EXPECT_TRUE(throws<ArgumentError>({"warm_up"}, [&] {
    mora::train(training.model, training.optimizer, mora::ConstantSchedule{.warm_up = -1},
                training.source, {.steps = 1});
  }));
  // A schedule is any function; the optimizer looks at what it gives.
  EXPECT_TRUE(throws<ArgumentError>({"factor", "found -2"}, [&] {
    mora::train(training.model, training.optimizer, [](Index) { return -2.0; }, training.source,
                {.steps = 1});
  }));
  EXPECT_EQ(values_of(training.model), before);
  EXPECT_EQ(training.source.position(), 1u);
}

}  // namespace
}  // namespace mora_tests
