// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mora/io/checkpoint_folder.hpp>
#include <mora/io/llama/frozen_weights.hpp>
#include <mora/io/llama/llama_folder.hpp>
#include <mora/io/train/training_state.hpp>
#include <mora/operators/sharing.hpp>
#include <mora/optim/adamw.hpp>
#include <mora/optim/sgd.hpp>
#include <mora/train/callbacks/restart.hpp>
#include <mora/train/train.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "support/compare.hpp"
#include "support/files.hpp"
#include "support/llama.hpp"
#include "support/throws.hpp"
#include "support/toy_model.hpp"

/// \file
/// Cases 157 and 159 to 164 of checkpoints, and resuming through them.

namespace mora_tests {
namespace {

using mora::CheckpointWriter;
using mora::find_checkpoint;
using mora::FormatError;
using mora::StateError;
using mora::TextMap;

void write_checkpoint(const path& folder, Index step) {
  CheckpointWriter writer(folder, step);
  for (const char* name : {"adapter", "optimizer"}) {
    mora::AtomicFile file(writer.path(name));
    const std::string text = std::string(name) + " of step " + std::to_string(step);
    file.write(std::as_bytes(std::span(text)));
    file.commit();
  }
  writer.commit();
}

[[nodiscard]] Index newest_step(const path& folder) {
  const auto found = find_checkpoint(folder);
  return found.newest ? found.newest->step : -1;
}

TEST(Crc32, IsThatOfZlib) {
  const std::string_view digits = "123456789";
  EXPECT_EQ(mora::detail::crc32(std::as_bytes(std::span(digits))), 0xcbf43926u);
  EXPECT_EQ(mora::detail::crc32({}), 0u);
}

TEST(Checkpoints, AreOrderedByStepAsANumber) {
  const TemporaryFolder folder;
  EXPECT_EQ(newest_step(folder / "none"), -1);
  for (const Index step : {9, 10, 1'000'000, 0}) write_checkpoint(folder.where(), step);
  for (const char* other :
       {"ckpt-", "ckpt-07", "ckpt--1", "ckpt-2000000x", "ckpt-99999999999999999999"}) {
    std::filesystem::create_directory(folder / other);
  }
  const auto found = find_checkpoint(folder.where());
  ASSERT_TRUE(found.newest);
  EXPECT_EQ(found.newest->step, 1'000'000);
  EXPECT_EQ(read_file(found.newest->path / "adapter"), "adapter of step 1000000");
  EXPECT_TRUE(found.passed_over.empty());
  const auto list = mora::list_checkpoints(folder.where()).checkpoints;
  ASSERT_EQ(list.size(), 4u);
  EXPECT_EQ(list[1].step, 10);
  EXPECT_EQ(list[2].step, 9);
  EXPECT_EQ(list[3].step, 0);
}

/// The newest is not whole: the one before is found, and the text says why.
void expect_passed_over(const path& folder, std::string_view word) {
  const auto found = find_checkpoint(folder);
  ASSERT_TRUE(found.newest);
  EXPECT_EQ(found.newest->step, 1);
  ASSERT_EQ(found.passed_over.size(), 1u);
  EXPECT_NE(found.passed_over[0].find("ckpt-2"), std::string::npos) << found.passed_over[0];
  EXPECT_NE(found.passed_over[0].find(word), std::string::npos) << found.passed_over[0];
}

TEST(Checkpoints, WithAnyBitOrByteWrongArePassedOver) {
  const TemporaryFolder folder;
  write_checkpoint(folder.where(), 1);
  write_checkpoint(folder.where(), 2);
  for (const char* name : {"adapter", "optimizer", "MANIFEST"}) {
    const path file = folder / "ckpt-2" / name;
    const std::string good = read_file(file);
    for (std::size_t at = 0; at < good.size(); ++at) {
      for (int bit = 0; bit < 8; ++bit) {
        std::string bad = good;
        bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
        write_file(file, bad);
        const std::string first = bad.substr(0, bad.find('\n'));
        if (first != good.substr(0, first.size()) &&
            first.starts_with("mora checkpoint, version ") && first.size() == 26 &&
            first[25] >= '0' && first[25] <= '9') {
          // Another version: not known to be damaged.
          EXPECT_TRUE(throws<FormatError>({"version 1", first},
                                          [&] { (void)find_checkpoint(folder.where()); }));
          continue;
        }
        ASSERT_EQ(newest_step(folder.where()), 1) << name << ", byte " << at << ", bit " << bit;
      }
      write_file(file, good.substr(0, at));
      ASSERT_EQ(newest_step(folder.where()), 1) << name << ", " << at << " bytes";
    }
    write_file(file, good + "x");
    EXPECT_EQ(newest_step(folder.where()), 1);
    write_file(file, good);
  }
  EXPECT_EQ(newest_step(folder.where()), 2);
}

TEST(Checkpoints, OfOtherFilesStepOrFormatArePassedOver) {
  const TemporaryFolder folder;
  const path two = folder / "ckpt-2";
  const auto fresh = [&] {
    std::filesystem::remove_all(folder.where());
    write_checkpoint(folder.where(), 1);
    write_checkpoint(folder.where(), 2);
  };
  fresh();
  write_file(two / "more", "");
  expect_passed_over(folder.where(), "more");
  fresh();
  std::filesystem::remove(two / "adapter");
  expect_passed_over(folder.where(), "adapter");
  fresh();
  std::filesystem::create_directory(two / "sub");
  expect_passed_over(folder.where(), "sub");
  fresh();
  std::filesystem::remove(two / "MANIFEST");
  expect_passed_over(folder.where(), "no MANIFEST");
  fresh();
  std::filesystem::copy_file(folder / "ckpt-1/MANIFEST", two / "MANIFEST",
                             std::filesystem::copy_options::overwrite_existing);
  expect_passed_over(folder.where(), "step 1");
  fresh();
  std::filesystem::remove(two / "MANIFEST");
  std::filesystem::create_directory(two / "MANIFEST");
  expect_passed_over(folder.where(), "MANIFEST");
}

// Neither read, nor passed over for an older one, replaced or removed.
TEST(Checkpoints, OfAnotherVersionAreRefusedAndStay) {
  const TemporaryFolder folder;
  for (const Index step : {1, 2, 3}) write_checkpoint(folder.where(), step);
  for (const char* name : {"ckpt-1", "ckpt-3"}) {
    std::string manifest = read_file(folder / name / "MANIFEST");
    manifest.replace(manifest.find("version 1"), 9, "version 12");
    write_file(folder / name / "MANIFEST", manifest);
  }
  const std::initializer_list<std::string_view> both = {
      "ckpt-3", "expected 'mora checkpoint, version 1', found 'mora checkpoint, version 12'"};
  EXPECT_TRUE(throws<FormatError>(both, [&] { (void)find_checkpoint(folder.where()); }));
  EXPECT_TRUE(throws<FormatError>(both, [&] { write_checkpoint(folder.where(), 3); }));
  mora::prune_checkpoints(folder.where(), 1);
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"ckpt-1", "ckpt-2", "ckpt-3"}));
}

TEST(CheckpointWriter, LeavesNothingWithoutCommit) {
  const TemporaryFolder folder;
  {
    CheckpointWriter writer(folder.where(), 3);
    write_file(writer.path("a"), "text");
    EXPECT_EQ(mora::list_checkpoints(folder.where()).leftovers.size(), 1u);
  }
  EXPECT_TRUE(folder.names().empty());
}

TEST(CheckpointWriter, TakesThePlaceOfWhatIsNotWholeAlone) {
  const TemporaryFolder folder;
  write_checkpoint(folder.where(), 3);
  EXPECT_TRUE(throws<StateError>({"ckpt-3", "there already"},
                                 [&] { CheckpointWriter writer(folder.where(), 3); }));
  EXPECT_EQ(folder.names(), std::vector<std::string>{"ckpt-3"});
  write_file(folder / "ckpt-3/adapter", "broken");
  write_checkpoint(folder.where(), 3);
  EXPECT_EQ(newest_step(folder.where()), 3);

  CheckpointWriter writer(folder.where(), 4);
  writer.commit();
  EXPECT_TRUE(throws<StateError>({"ckpt-4", "committed"}, [&] { writer.commit(); }));
  EXPECT_EQ(newest_step(folder.where()), 4);
  EXPECT_TRUE(throws<mora::ArgumentError>({"step", "-1"},
                                          [&] { CheckpointWriter wrong(folder.where(), -1); }));
  for (const char* name : {"", ".", "..", "a/b", "/a", ".hidden", "a\nb", "MANIFEST"}) {
    EXPECT_TRUE(throws<mora::ArgumentError>({"name of a file"}, [&] { (void)writer.path(name); }));
  }
}

TEST(Checkpoints, ArePrunedDownToWholeOnes) {
  const TemporaryFolder folder;
  for (const Index step : {1, 2, 3, 4, 5}) write_checkpoint(folder.where(), step);
  write_file(folder / "ckpt-2/adapter", "broken");
  std::filesystem::remove(folder / "ckpt-2/MANIFEST");
  std::filesystem::create_directory(folder / "ckpt-2/MANIFEST");
  write_file(folder / "ckpt-5/adapter", "broken");
  std::filesystem::remove(folder / "ckpt-5/MANIFEST");
  std::filesystem::create_directory(folder / "ckpt-5/MANIFEST");
  mora::prune_checkpoints(folder.where(), 2);
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"ckpt-3", "ckpt-4", "ckpt-5"}));
  mora::prune_checkpoints(folder.where(), 1);
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"ckpt-4", "ckpt-5"}));
  EXPECT_TRUE(throws<mora::ArgumentError>({"keep", "0"},
                                          [&] { mora::prune_checkpoints(folder.where(), 0); }));
}

TEST(Checkpoints, LeftoversOfTheDeadAloneAreRemoved) {
  const TemporaryFolder folder;
  write_checkpoint(folder.where(), 4);
  const auto half = [&](const std::string& name) {
    std::filesystem::create_directory(folder / name);
    write_file(folder / name / "adapter", "half");
    return name;
  };
  const auto of = [](pid_t process) { return "ckpt-6.tmp-" + std::to_string(process) + "-0"; };
  const std::string dead = half(of(ended_process()));
  const std::string own = half(of(::getpid()));
  const std::string living = half(of(::getppid()));
  // Somebody's own folders.
  std::vector<std::string> stay = {half("ckpt-6.tmp-mine"), half("ckpt-x.tmp-1-0"),
                                   half("ckpt-6.tmp-1"), living, "ckpt-4"};
  EXPECT_EQ(newest_step(folder.where()), 4);
  EXPECT_EQ(mora::list_checkpoints(folder.where()).leftovers.size(), 3u);
  std::vector<path> removed = {folder / dead, folder / own};
  std::ranges::sort(removed);
  EXPECT_EQ(mora::remove_leftovers(folder.where()), removed);
  std::ranges::sort(stay);
  EXPECT_EQ(folder.names(), stay);
}

TEST(Checkpoints, AreFoldersAndNoFilesOrLinks) {
  const TemporaryFolder folder;
  const path other = folder / "other";
  write_checkpoint(other, 9);
  write_file(folder / "ckpt-7", "text");
  write_file(folder / "ckpt-7.tmp-1-0", "text");
  for (const char* name : {"ckpt-0", "ckpt-9", "ckpt-9.tmp-1-0"}) {
    std::filesystem::create_directory_symlink(other / "ckpt-9", folder / name);
  }
  for (const Index step : {1, 2}) write_checkpoint(folder.where(), step);
  EXPECT_EQ(newest_step(folder.where()), 2);
  mora::prune_checkpoints(folder.where(), 1);
  mora::remove_leftovers(folder.where());
  EXPECT_EQ(folder.names(),
            (std::vector<std::string>{"ckpt-0", "ckpt-2", "ckpt-7", "ckpt-7.tmp-1-0", "ckpt-9",
                                      "ckpt-9.tmp-1-0", "other"}));
  for (const Index step : {7, 9}) {
    EXPECT_TRUE(throws<mora::FileError>({"ckpt-", "expected a folder"},
                                        [&] { write_checkpoint(folder.where(), step); }));
  }
  EXPECT_EQ(newest_step(other), 9);  // is whole, with its manifest
}

TEST(Checkpoints, WithFoldersInThemAreNotWhole) {
  const TemporaryFolder folder;
  for (const Index step : {1, 2, 3, 4}) write_checkpoint(folder.where(), step);
  for (const char* name : {"ckpt-1", "ckpt-4"}) {
    std::filesystem::create_directory(folder / name / "more");
  }
  const auto found = find_checkpoint(folder.where());
  EXPECT_EQ(found.newest->step, 3);
  ASSERT_EQ(found.passed_over.size(), 1u);
  EXPECT_NE(found.passed_over[0].find("expected files, found 'more'"), std::string::npos);
  mora::prune_checkpoints(folder.where(), 1);
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"ckpt-3", "ckpt-4"}));
}

// A process writes one checkpoint after another, keeps one, and is ended at some moment by a
// signal: the newest whole one is of one step in all its files, and no step that the process has
// reported is lost.
void expect_to_survive(int signal, int kills) {
  const TemporaryFolder folder;
  Random random(1);
  for (int kill = 0; kill < kills; ++kill) {
    std::array<int, 2> pipe{};
    ASSERT_EQ(::pipe(pipe.data()), 0);
    const Index before = newest_step(folder.where());
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(pipe[0]);
      std::signal(signal, SIG_DFL);  // whoever runs the tests may ignore it
      for (Index step = before + 1;; ++step) {
        write_checkpoint(folder.where(), step);
        if (::write(pipe[1], &step, sizeof step) != sizeof step) ::_exit(1);
        mora::prune_checkpoints(folder.where(), 1);
      }
    }
    ::close(pipe[1]);
    // After the first one, so that the next process does not write the same again.
    Index reported = before;
    ASSERT_EQ(::read(pipe[0], &reported, sizeof reported), static_cast<ssize_t>(sizeof reported));
    ::usleep(static_cast<useconds_t>(random.generator()() % 20'000));
    ASSERT_EQ(::kill(child, signal), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signal) << "status " << status;
    while (::read(pipe[0], &reported, sizeof reported) == sizeof reported) {
    }
    ::close(pipe[0]);
    const auto found = find_checkpoint(folder.where());
    ASSERT_TRUE(found.newest) << "kill " << kill;
    ASSERT_GE(found.newest->step, reported) << "kill " << kill;
    const std::string step = " of step " + std::to_string(found.newest->step);
    ASSERT_EQ(read_file(found.newest->path / "adapter"), "adapter" + step);
    ASSERT_EQ(read_file(found.newest->path / "optimizer"), "optimizer" + step);
  }
  mora::remove_leftovers(folder.where());
  mora::prune_checkpoints(folder.where(), 1);
  EXPECT_EQ(folder.names().size(), 1u);
}

TEST(Checkpoints, SurviveKills) { expect_to_survive(SIGKILL, 300); }
TEST(Checkpoints, SurviveSignals) {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) expect_to_survive(signal, 50);
}

[[nodiscard]] std::string bytes_of(const mora::Matrix<double>& matrix) {
  return {reinterpret_cast<const char*>(matrix.data()),
          static_cast<std::size_t>(matrix.size()) * sizeof(double)};
}

/// A model, its optimizer and batches in a seeded order that `at` is the position in.
struct TrainingRun {
  struct Source {
    std::vector<ToyBatch<double>> batches;
    std::uint64_t at = 0;
    const ToyBatch<double>& next() { return batches[at++ % batches.size()]; }
  };
  explicit TrainingRun(std::uint64_t seed = 6) : random(seed), model(random) {
    source.batches = toy_batches<double>(random, {3, 5, 2, 4, 6});
  }
  mora::TrainResult train(Index from, Index steps, Index skipped = 0) {
    mora::TrainSettings settings{.steps = steps, .accumulate = 2, .clip_norm = 1.0};
    settings.start = {.step = from, .skipped = skipped};
    return mora::train(model, optimizer,
                       mora::CosineSchedule{.steps = 9, .warm_up = 2, .minimum = 0.1}, source,
                       settings);
  }
  [[nodiscard]] std::string bits() const {
    std::string all;
    model.visit_parameters([&](std::string_view, const auto& p) { all += bytes_of(p.value); });
    optimizer.visit_state([&](std::string_view name, const auto& state) {
      all += std::string(name) + std::to_string(state.steps);
      for (const auto& moment : state.moments) all += bytes_of(moment);
    });
    return all;
  }
  [[nodiscard]] mora::TrainingPosition position(Index step) const {
    return {.state = {.step = step, .skipped = 1, .targets = 70},
            .data = {.epoch = 2, .example = 3},
            .counters = {{"source", source.at}, {"seed", ~std::uint64_t{0}}}};
  }
  void save(const path& folder, Index step, const TextMap& description = {}) const {
    CheckpointWriter writer(folder, step);
    mora::save_training_state(writer, model, optimizer, position(step), description);
    writer.commit();
  }

  Random random;
  ToyModel<double> model;
  mora::AdamW<double> optimizer{{.learning_rate = 0.02, .weight_decay = 0.01}};
  Source source;
};

TEST(TrainingState, GoesOnFromEveryStepBitForBit) {
  TrainingRun whole;
  (void)whole.train(0, 9);
  for (Index stop = 0; stop <= 9; ++stop) {
    SCOPED_TRACE(stop);
    const TemporaryFolder folder;
    TrainingRun first;
    (void)first.train(0, stop);
    first.save(folder.where(), stop);
    TrainingRun second;
    second.model.visit_parameters([](std::string_view, auto& p) { p.value.setConstant(7.0); });
    const auto found = find_checkpoint(folder.where());
    ASSERT_TRUE(found.newest);
    const auto position =
        mora::load_training_state(found.newest->path, second.model, second.optimizer);
    EXPECT_EQ(position, first.position(stop));
    EXPECT_EQ(second.bits(), first.bits());
    second.source.at = position.counters.at("source");
    (void)second.train(position.state.step, 9);
    EXPECT_EQ(second.bits(), whole.bits());
  }
}

/// Files of version 1 by other programs: fixtures/make_checkpoint.py. Later versions read them too.
TEST(TrainingState, OfVersionOneIsRead) {
  const auto found = find_checkpoint(path(MORA_FIXTURES) / "checkpoint");
  ASSERT_TRUE(found.newest) << found.passed_over.at(0);
  EXPECT_EQ(found.newest->step, 7);
  TrainingRun run;
  const mora::TrainingPosition position = mora::load_training_state(
      found.newest->path, run.model, run.optimizer, {{"adapter", "sharing, strided"}});
  EXPECT_EQ(position,
            (mora::TrainingPosition{.state = {.step = 7, .skipped = 1, .targets = 123'456'789'012},
                                    .data = {.epoch = 2, .example = 3},
                                    .counters = {{"dropout.passes", ~std::uint64_t{0}}}}));
  const auto expect_steps = [](const mora::Matrix<double>& read, double first, double step) {
    for (Index i = 0; i < read.size(); ++i) {
      EXPECT_EQ(read.data()[i], first + step * static_cast<double>(i)) << i;
    }
  };
  run.model.visit_parameters(
      [&](std::string_view, const auto& p) { expect_steps(p.value, -1, 0.125); });
  std::map<std::string, Index> steps;
  run.optimizer.visit_state([&](std::string_view name, const auto& state) {
    steps[std::string(name)] = state.steps;
    expect_steps(state.moments[0], 0.25, -0.0625);
    expect_steps(state.moments[1], 0, 0.03125);
  });
  EXPECT_EQ(steps,
            (std::map<std::string, Index>{{"first.M", 7}, {"second.A", 6}, {"second.B", 5}}));
}

/// One parameter of a shape of its own.
struct Smaller {
  mora::Parameter<double> one{mora::Matrix<double>::Zero(2, 2), {}};
  std::string name = "first.M";
  void visit_parameters(const auto& f) { f(std::string_view(name), one); }
  void visit_parameters(const auto& f) const { f(std::string_view(name), one); }
};

/// A model without most of its parameters.
struct Part {
  ToyModel<double>& whole;
  void visit_parameters(const auto& f) { std::as_const(*this).visit_parameters(f); }
  void visit_parameters(const auto& f) const {
    whole.visit_parameters([&](std::string_view name, auto& p) {
      if (name == "first.M") f(name, p);
    });
  }
};

TEST(TrainingState, OfAnotherRunIsRefusedAndChangesNothing) {
  const TemporaryFolder folder;
  TrainingRun run;
  (void)run.train(0, 3);
  run.save(folder.where(), 3, {{"adapter", "rotation"}, {"examples", "70"}});
  const path checkpoint = folder / "ckpt-3";
  const std::string before = run.bits();
  const auto refused = [&](const TextMap& description,
                           std::initializer_list<std::string_view> words, auto& model,
                           auto& optimizer) {
    EXPECT_TRUE(throws<FormatError>(words, [&] {
      (void)mora::load_training_state(checkpoint, model, optimizer, description);
    }));
    EXPECT_EQ(run.bits(), before);
  };
  refused({{"adapter", "rotation"}, {"examples", "71"}},
          {"description 'examples'", "expected '71', found '70'"}, run.model, run.optimizer);
  refused({{"adapter", "rotation"}}, {"'examples'", "expected nothing, found '70'"}, run.model,
          run.optimizer);
  const TextMap good = {{"adapter", "rotation"}, {"examples", "70"}};
  refused({{"adapter", "rotation"}, {"examples", "70"}, {"x", ""}},
          {"'x'", "expected '', found nothing"}, run.model, run.optimizer);
  mora::Sgd<double> sgd({.learning_rate = 0.1, .momentum = 0.9});
  refused(good, {"optimizer.safetensors", "moments", "found 'mean, square'"}, run.model, sgd);
  ToyModel<float> other(run.random);
  mora::AdamW<float> of_float;
  refused(good, {"first.M", "expected F32, found F64"}, other, of_float);

  Smaller smaller;
  refused(good, {"first.M", "expected shape [2, 2], found [4, 4]"}, smaller, run.optimizer);
  smaller.name = "third.M";
  refused(good, {"third.M"}, smaller, run.optimizer);
  Part part{run.model};
  refused(good, {"parameters.safetensors", "second.", "none of this model's 1"}, part,
          run.optimizer);
  EXPECT_NO_THROW((void)mora::load_training_state(checkpoint, run.model, run.optimizer, good));
}

/// ReMoRA with fresh groups: a decoder whose adapters are folded into its weights every three
/// steps.
struct RestartingRun {
  static constexpr Index period = 3;
  using Groups = mora::MoraSettings<mora::RandomSharing>;
  struct Source {
    std::vector<Batch> batches;
    std::uint64_t at = 0;
    const Batch& next() { return batches[at++ % batches.size()]; }
  };

  [[nodiscard]] static Groups groups(Index restarts) {
    return {.rank = 2, .op = {.seed = static_cast<std::uint64_t>(restarts) + 1}};
  }
  /// As after that many restarts.
  explicit RestartingRun(Index restarts = 0) {
    model.attach("a", groups(restarts), {.all_linear = true});
    model.attach("a", mora::FullSettings{}, {.modules = {"norm"}});
    for (const std::uint64_t seed : {1, 2, 3})
      source.batches.push_back(random_batch({5, 7}, 13, seed));
  }
  void restart(Index number) {
    model.restart([&](const std::string&, const mora::FrozenLinear<double>& weight) {
      return mora::AnyAdapter<double>(
          mora::MoraAdapter<double, mora::RandomSharing>(weight, groups(number)));
    });
    (void)optimizer.reset_state("M");
  }
  void train(Index from, Index steps) {
    const mora::JaggedSchedule jagged{
        .steps = 9, .warm_up = 1, .restart_every = period, .restart_warm_up = 1};
    mora::RestartEvery restarts(period, [&](Index number) { restart(number); });
    mora::TrainSettings settings{.steps = steps, .clip_norm = 1.0};
    settings.start = {.step = from};
    (void)mora::train(model, optimizer, jagged, source, settings, restarts);
  }
  void save(const path& folder, Index step) const {
    CheckpointWriter writer(folder, step);
    mora::save_frozen_weights(writer, model);
    mora::save_training_state(writer, model, optimizer,
                              {.state = {.step = step},
                               .data = {},
                               .counters = {{"source", source.at}, {"restarts", done(step)}}});
    writer.commit();
  }
  /// The last step of a run has no restart behind it.
  [[nodiscard]] static std::uint64_t done(Index step) {
    return static_cast<std::uint64_t>(step / period);
  }
  [[nodiscard]] std::string bits() const {
    std::string all;
    for (const auto& weight : model.weights()) all += bytes_of(weight.read_weight());
    model.visit_parameters([&](std::string_view, const auto& p) { all += bytes_of(p.value); });
    optimizer.visit_state([&](std::string_view name, const auto& state) {
      all += std::string(name) + std::to_string(state.steps);
      for (const auto& moment : state.moments) all += bytes_of(moment);
    });
    return all;
  }

  Llama<double> model = random_model();
  mora::AdamW<double> optimizer{{.learning_rate = 0.02}};
  Source source;
};

TEST(TrainingState, GoesOnAcrossRestartsBitForBit) {
  RestartingRun whole;
  whole.train(0, 9);
  for (Index stop = 0; stop < 9; ++stop) {
    SCOPED_TRACE(stop);
    const TemporaryFolder folder;
    RestartingRun first;
    first.train(0, stop);
    // A run that goes on restarts where a shorter one ends.
    if (stop > 0 && stop % RestartingRun::period == 0) first.restart(stop / RestartingRun::period);
    first.save(folder.where(), stop);
    const auto found = find_checkpoint(folder.where());
    ASSERT_TRUE(found.newest);
    RestartingRun second(stop / RestartingRun::period);
    mora::load_frozen_weights(found.newest->path, second.model);
    const auto position =
        mora::load_training_state(found.newest->path, second.model, second.optimizer);
    EXPECT_EQ(second.bits(), first.bits());
    EXPECT_EQ(position.counters.at("restarts"), RestartingRun::done(stop));
    second.source.at = position.counters.at("source");
    second.train(position.state.step, 9);
    EXPECT_EQ(second.bits(), whole.bits());
  }
}

TEST(FrozenWeights, StayInTheNumbersThatTheyAreKeptIn) {
  const TemporaryFolder folder;
  const mora::LlamaFolder stored(stored_llama("tied_bf16_shards"));
  const auto model = stored.model<float>(mora::SmallWeights::keep);
  CheckpointWriter writer(folder.where(), 1);
  mora::save_frozen_weights(writer, model);
  writer.commit();
  auto loaded = stored.model<float>();
  mora::load_frozen_weights(folder / "ckpt-1", loaded);
  for (std::size_t i = 0; i < model.weights().size(); ++i) {
    EXPECT_EQ(loaded.weights()[i].weight_bits(), model.weights()[i].weight_bits());
    EXPECT_TRUE(same_bits(loaded.weights()[i].read_weight(), model.weights()[i].read_weight()));
  }
}

TEST(FrozenWeights, OfAnotherModelAreRefused) {
  const TemporaryFolder folder;
  const RestartingRun run;
  run.save(folder.where(), 0);
  const auto refused = [&](auto model, std::initializer_list<std::string_view> words) {
    const auto before = model.weights();
    EXPECT_TRUE(
        throws<FormatError>(words, [&] { mora::load_frozen_weights(folder / "ckpt-0", model); }));
    for (std::size_t i = 0; i < before.size(); ++i) {
      EXPECT_EQ(model.weights()[i].weight().data(), before[i].weight().data());
    }
  };
  mora::LlamaConfig wide = small_config();
  wide.intermediate_size = 12;
  refused(random_model(wide), {"gate_proj", "expected shape [12, 10], found [11, 10]"});
  refused(random_model(small_config(true)), {"lm_head.weight", "none of this model's"});
  refused(random_model<float>(), {"expected F32, F16 or BF16, found F64"});
  auto merged = random_model();
  merged.attach("a", RestartingRun::groups(0), {.all_linear = true});
  merged.merge();
  EXPECT_TRUE(throws<StateError>({"merged"},
                                 [&] { mora::load_frozen_weights(folder / "ckpt-0", merged); }));
  CheckpointWriter writer(folder.where(), 1);
  EXPECT_TRUE(throws<StateError>({"merged"}, [&] { mora::save_frozen_weights(writer, merged); }));
}

}  // namespace
}  // namespace mora_tests
