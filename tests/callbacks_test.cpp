// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <iomanip>
#include <iostream>
#include <mora/optim/adamw.hpp>
#include <mora/train/callbacks/checkpoint.hpp>
#include <mora/train/callbacks/csv_log.hpp>
#include <mora/train/callbacks/early_stop.hpp>
#include <mora/train/callbacks/progress.hpp>
#include <mora/train/evaluate.hpp>
#include <mora/train/train.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "support/misuse.hpp"
#include "support/not_finite.hpp"
#include "support/toy_model.hpp"

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::CheckpointEvery;
using mora::Control;
using mora::CsvHeader;
using mora::CsvLog;
using mora::EarlyStop;
using mora::EvaluationCsvLog;
using mora::EvaluationInfo;
using mora::NumericError;
using mora::Progress;
using mora::StepInfo;
using mora::TrainState;

[[nodiscard]] StepInfo step_info(Index step, double loss = 0.5) {
  return {.state = {.step = step, .skipped = 0, .targets = 10 * step},
          .steps = 1000,
          .loss = loss,
          .factor = 1.0,
          .gradient_norm = 2.0,
          .targets = 10,
          .tokens = 20,
          .fault = {}};
}
[[nodiscard]] EvaluationInfo evaluation(Index step, double mean, std::string_view name = "test") {
  return {.state = {.step = step}, .name = name, .loss = {4.0 * mean, 4}};
}

TEST(Progress, PrintsSpeedAndTimeLeftOfTheStepsSinceTheLastLine) {
  std::ostringstream out;
  double now = 100.0;
  Progress progress(out, 10.0, [&] { return now; });
  progress.on_begin({.steps = 1000});
  const auto step = [&](Index number, double seconds, double loss = 0.5) {
    now += seconds;
    progress.on_step(step_info(number, loss));
    const std::string text = out.str();
    out.str("");
    return text;
  };
  EXPECT_EQ(step(1, 2.0, 1.0 / 3.0),
            "step 1 of 1000, loss 0.3333, 10 tokens/s, 33 min 18 s left\n");
  EXPECT_EQ(step(2, 5.0), "");
  EXPECT_EQ(step(3, 4.9), "");
  // Three steps of 20 tokens in 12 seconds.
  EXPECT_EQ(step(4, 2.1), "step 4 of 1000, loss 0.5, 5 tokens/s, 1 h 6 min left\n");
  EXPECT_EQ(step(5, 9.0), "");
  EXPECT_EQ(step(990, 1.0), "step 990 of 1000, loss 0.5, 4 tokens/s, 0 s left\n");
  EXPECT_EQ(step(1000, 0.5, 12345.678), "step 1000 of 1000, loss 1.235e+04, 40 tokens/s\n");
}

TEST(Progress, BeginsItsWindowWhereTheRunBegins) {
  std::ostringstream out;
  double now = 0.0;
  Progress progress(out, 10.0, [&] { return now; });
  progress.on_begin({.steps = 1000, .start = {.step = 900}});
  now = 1.0;
  progress.on_step(step_info(901));
  EXPECT_EQ(out.str(), "step 901 of 1000, loss 0.5, 20 tokens/s, 1 min 39 s left\n");
}

TEST(Progress, SaysWhatWasSkippedEvaluatedAndStopped) {
  std::ostringstream out;
  out << std::setprecision(2) << std::fixed << std::showpos;  // of no effect
  double now = 0.0;
  Progress progress(out, 10.0, [&] { return now; });
  progress.on_begin({.steps = 1000});
  StepInfo info = step_info(1, nan<double>);
  progress.on_step(info);
  info.state.step = 2;
  info.fault = "the loss is nan";
  progress.on_step(info);
  progress.on_evaluation(evaluation(2, 1.5, "held out"));
  progress.on_end({.state = {.step = 2}, .stopped = true});
  progress.on_end({.state = {.step = 2}, .stopped = false});
  EXPECT_EQ(out.str(),
            "step 1 of 1000, loss nan\n"
            "step 2 of 1000, loss nan, skipped: the loss is nan\n"
            "step 2, held out: loss 1.5\n"
            "stopped after step 2\n");
}

TEST(CsvLog, WritesTheHeaderOnceAndNumbersThatReadBack) {
  std::ostringstream out;
  out << std::setprecision(2) << std::fixed;  // of no effect
  CsvLog log(out);
  const double loss = 0.1 + 0.2;
  log.on_step(step_info(1, loss));
  StepInfo info = step_info(2, nan<double>);
  info.fault = "why";
  log.on_step(info);
  EXPECT_EQ(out.str(),
            "step,loss,factor,gradient_norm,targets,tokens,skipped\n"
            "1,0.30000000000000004,1,2,10,20,0\n"
            "2,nan,1,2,10,20,1\n");
  std::istringstream in(out.str());
  std::string line;
  std::getline(in, line);
  std::getline(in, line);
  EXPECT_EQ(std::stod(line.substr(2)), loss);

  std::ostringstream more;
  CsvLog resumed(more, CsvHeader::leave_out);
  resumed.on_step(step_info(3));
  EXPECT_EQ(more.str(), "3,0.5,1,2,10,20,0\n");
}

TEST(CsvLog, WritesNumbersOfEverySizeSuchThatTheyReadBack) {
  Random random(1);
  for (int i = 0; i < 1000; ++i) {
    const double number =
        std::ldexp(mora::normal(random.generator()),
                   static_cast<int>(mora::uniform_below(1600, random.generator())) - 800);
    std::ostringstream out;
    CsvLog log(out, CsvHeader::leave_out);
    log.on_step(step_info(1, number));
    EXPECT_EQ(std::stod(out.str().substr(2)), number);
  }
}

TEST(EvaluationCsvLog, HasARowForEachEvaluation) {
  std::ostringstream out;
  EvaluationCsvLog log(out);
  log.on_evaluation(evaluation(10, 0.1, "old domain"));
  log.on_evaluation(evaluation(10, 2.5, "new domain"));
  EXPECT_EQ(out.str(),
            "step,evaluation,loss,targets\n"
            "10,old domain,0.1,4\n"
            "10,new domain,2.5,4\n");
  for (const char* name : {"a,b", "a\"b", "a\nb"}) {
    EXPECT_TRUE(throws<ArgumentError>({"csv log", name},
                                      [&] { log.on_evaluation(evaluation(1, 1, name)); }));
  }
}

/// Counts how often it is flushed.
struct FlushCounter : std::stringbuf {
  int flushes = 0;
  int sync() override {
    ++flushes;
    return 0;
  }
};

TEST(CsvLog, FlushesEveryRowAndDoesNotFailInSilence) {
  FlushCounter buffer;
  std::ostream out(&buffer);
  CsvLog log(out);
  log.on_step(step_info(1));
  EXPECT_EQ(buffer.flushes, 1);
  log.on_step(step_info(2));
  EXPECT_EQ(buffer.flushes, 2);
  out.setstate(std::ios::badbit);
  EXPECT_TRUE(throws<mora::Error>({"csv log", "written"}, [&] { log.on_step(step_info(3)); }));
}

TEST(EarlyStop, WaitsForAnImprovement) {
  EarlyStop stop({.patience = 2, .minimum_improvement = 0.125});
  EXPECT_EQ(stop.on_evaluation(evaluation(1, 2.0)), Control::go_on);
  EXPECT_EQ(stop.on_evaluation(evaluation(2, 1.875)), Control::go_on);  // not below by enough
  EXPECT_EQ(stop.state().waited, 1);
  EXPECT_EQ(stop.on_evaluation(evaluation(3, 1.75)), Control::go_on);
  EXPECT_EQ(stop.state().best, 1.75);
  EXPECT_EQ(stop.state().best_step, 3);
  EXPECT_EQ(stop.state().waited, 0);
  EXPECT_EQ(stop.on_evaluation(evaluation(4, nan<double>)), Control::go_on);
  EXPECT_EQ(stop.on_evaluation(evaluation(5, 1.7)), Control::stop);
}

TEST(EarlyStop, LooksAtOneEvaluation) {
  EarlyStop first({.patience = 1});
  EXPECT_EQ(first.on_evaluation(evaluation(1, 1.0, "a")), Control::go_on);
  EXPECT_EQ(first.on_evaluation(evaluation(1, 9.0, "b")), Control::go_on);
  EXPECT_EQ(first.on_evaluation(evaluation(2, 9.0, "b")), Control::go_on);
  EXPECT_EQ(first.on_evaluation(evaluation(2, 1.0, "a")), Control::stop);
  EarlyStop named({.patience = 1, .evaluation = "b"});
  EXPECT_EQ(named.on_evaluation(evaluation(1, 1.0, "a")), Control::go_on);
  EXPECT_EQ(named.on_evaluation(evaluation(1, 1.0, "b")), Control::go_on);
  EXPECT_EQ(named.on_evaluation(evaluation(2, 1.0, "a")), Control::go_on);
  EXPECT_EQ(named.on_evaluation(evaluation(2, 1.0, "b")), Control::stop);
}

TEST(EarlyStop, GoesOnFromItsState) {
  EarlyStop first({.patience = 2});
  (void)first.on_evaluation(evaluation(1, 1.0));
  (void)first.on_evaluation(evaluation(2, 1.0));
  EarlyStop second({.patience = 2}, first.state());
  EXPECT_EQ(second.on_evaluation(evaluation(3, 1.0)), Control::stop);
}

TEST(EarlyStop, RefusesSettingsOutOfRange) {
  EXPECT_TRUE(throws<ArgumentError>({"patience", "found 0"}, [] { EarlyStop({.patience = 0}); }));
  for (const double bad : {-0.1, nan<double>, infinity<double>}) {
    EXPECT_TRUE(throws<ArgumentError>({"minimum_improvement"},
                                      [&] { EarlyStop({.minimum_improvement = bad}); }));
  }
}

TEST(EarlyStop, StopsARun) {
  Random random(2);
  ToyModel<double> model(random);
  ToySource<double> source(toy_batches<double>(random, {4}));
  auto held_out = toy_batches<double>(random, {2});
  mora::AdamW<double> frozen({.learning_rate = 0.0});
  EarlyStop stop({.patience = 3});
  const auto result = mora::train(model, frozen, mora::ConstantSchedule{}, source,
                                  {.steps = 100, .evaluate_every = 5},
                                  mora::EvaluateOn("held out", held_out), stop);
  EXPECT_TRUE(result.stopped);
  EXPECT_EQ(result.state.step, 20);
  EXPECT_EQ(stop.state().best_step, 5);
}

/// A run of ten steps whose checkpoints are counted; the steps of `bad` have a NaN.
[[nodiscard]] std::vector<Index> checkpoints_of_run(Index period, const std::vector<Index>& bad,
                                                    TrainState start = {}) {
  Random random(3);
  ToyModel<double> model(random);
  auto batches = toy_batches<double>(random, std::vector<Index>(10, 2));
  for (const Index step : bad) batches[static_cast<std::size_t>(step - 1)].y(0, 0) = nan<double>;
  ToySource<double> source(batches, static_cast<std::size_t>(start.step));
  mora::AdamW<double> optimizer;
  std::vector<Index> saved;
  mora::train(model, optimizer, mora::ConstantSchedule{}, source,
              {.steps = 10, .skips_allowed = 10, .start = start},
              CheckpointEvery(period, model, [&](const TrainState& state) {
                EXPECT_TRUE(std::isfinite(model.loss(batches[0]).sum) || bad.front() == 1);
                saved.push_back(state.step);
              }));
  return saved;
}

TEST(CheckpointEvery, SavesAfterGoodStepsAlone) {
  using Steps = std::vector<Index>;
  EXPECT_EQ(checkpoints_of_run(3, {}), (Steps{3, 6, 9, 10}));
  EXPECT_EQ(checkpoints_of_run(5, {}), (Steps{5, 10}));
  EXPECT_EQ(checkpoints_of_run(100, {}), (Steps{10}));
  // The next good step takes the place of one that was skipped.
  EXPECT_EQ(checkpoints_of_run(3, {3, 4, 7}), (Steps{5, 6, 9, 10}));
  // At the end those are saved that came before the skipped ones.
  EXPECT_EQ(checkpoints_of_run(4, {8, 9, 10}), (Steps{4, 10}));
  EXPECT_EQ(checkpoints_of_run(4, {5, 6, 7, 8, 9, 10}), (Steps{4}));
  EXPECT_EQ(checkpoints_of_run(2, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}), Steps{});
  // A run that goes on keeps the period, and has nothing to save when it is at its end.
  EXPECT_EQ(checkpoints_of_run(3, {}, {.step = 5}), (Steps{6, 9, 10}));
  EXPECT_EQ(checkpoints_of_run(3, {}, {.step = 6}), (Steps{9, 10}));
  EXPECT_EQ(checkpoints_of_run(3, {}, {.step = 10}), Steps{});
}

TEST(CheckpointEvery, SavesNoWeightThatIsNotFinite) {
  Random random(4);
  ToyModel<double> model(random);
  int saved = 0;
  CheckpointEvery checkpoint(2, model, [&](const TrainState&) { ++saved; });
  checkpoint.on_begin({.steps = 10});
  checkpoint.on_step_end(step_info(2));
  EXPECT_EQ(saved, 1);
  model.visit_parameters([](std::string_view name, auto& p) {
    if (name == "second.B") p.value(0, 1) = nan<double>;
  });
  checkpoint.on_step_end(step_info(3));
  const std::initializer_list<std::string_view> text = {"after step 4", "second.B is not finite"};
  EXPECT_TRUE(throws<NumericError>(text, [&] { checkpoint.on_step_end(step_info(4)); }));
  EXPECT_TRUE(throws<NumericError>({"after step 5", "second.B"},
                                   [&] { checkpoint.on_end({.state = {.step = 5}}); }));
  EXPECT_EQ(saved, 1);
  EXPECT_TRUE(throws<ArgumentError>({"period", "found 0"},
                                    [&] { CheckpointEvery(0, model, [](const TrainState&) {}); }));
}

// The run that stops at a NaN has the checkpoint before it as its last one.
TEST(CheckpointEvery, KeepsTheLastGoodOneWhenTheRunStops) {
  Random random(5);
  ToyModel<double> model(random);
  auto batches = toy_batches<double>(random, {2, 2, 2, 2});
  batches[2].x(0, 0) = nan<double>;
  ToySource<double> source(batches);
  mora::AdamW<double> optimizer;
  std::vector<Index> saved;
  EXPECT_TRUE(throws<NumericError>({"step 3"}, [&] {
    mora::train(model, optimizer, mora::ConstantSchedule{}, source, {.steps = 4},
                CheckpointEvery(1, model, [&](const TrainState& s) { saved.push_back(s.step); }));
  }));
  EXPECT_EQ(saved, (std::vector<Index>{1, 2}));
}

}  // namespace
}  // namespace mora_tests
