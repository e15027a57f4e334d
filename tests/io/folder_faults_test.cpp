// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <mora/io/checkpoint_folder.hpp>
#include <mora/io/llama/llama_folder.hpp>
#include <mora/io/llama/merge_folder.hpp>
#include <mora/io/peft/save.hpp>
#include <mora/operators/truncation.hpp>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "support/compare.hpp"
#include "support/faults.hpp"
#include "support/files.hpp"

/// \file
/// Folders of several files while every open, write, fsync, close, rename and unlink fails once:
/// the old one, the new one, or none that loads. (Single files and shards: faults_test.)

namespace mora_tests {
namespace {

using mora::FileError;
using mora::Matrix;

/// Calls `prepare`, and `write` with its k-th call of the system failing, for k = 1, 2, ... until
/// none is left to fail. After each `look(thrown)` sees to it that what is there is as it has to
/// be. Every failure is told, with the system's reason, or has lost nothing.
template <class Prepare, class Write, class Look>
void fail_every_call(const Prepare& prepare, const Write& write, const Look& look) {
  for (int k = 1;; ++k) {
    ASSERT_LT(k, 1000);
    prepare();
    const auto files_before = open_files();
    Faults faults{.fail_at = k, .code = EIO};
    bool thrown = false;
    {
      const FaultyCalls faulty(faults);
      try {
        write();
      } catch (const FileError& error) {
        thrown = true;
        EXPECT_EQ(error.code(), std::errc::io_error) << error.what();
      }
    }
    SCOPED_TRACE(testing::Message() << "call " << k << ", " << faults.failed);
    EXPECT_EQ(open_files(), files_before);
    // Nobody knows then what is on the disk.
    if (faults.failed == "fsync") {
      EXPECT_TRUE(thrown);
    }
    look(thrown);
    if (faults.failed.empty()) {
      EXPECT_FALSE(thrown);
      return;
    }
    if (testing::Test::HasFailure()) return;
  }
}

void write_checkpoint(const path& folder, mora::Index step) {
  mora::CheckpointWriter writer(folder, step);
  for (const char* name : {"adapter", "optimizer"}) {
    mora::AtomicFile file(writer.path(name));
    const std::string text = std::string(name) + std::to_string(step);
    file.write(std::as_bytes(std::span(text)));
    file.commit();
  }
  writer.commit();
}

TEST(CheckpointWriter, LeavesWholeCheckpointsWhateverFails) {
  const TemporaryFolder folder;
  mora::Index outcomes[3] = {};
  fail_every_call(
      [&] {
        std::filesystem::remove_all(folder / "run");
        write_checkpoint(folder / "run", 1);
      },
      [&] { write_checkpoint(folder / "run", 2); },
      [&](bool thrown) {
        const auto found = mora::find_checkpoint(folder / "run");
        ASSERT_TRUE(found.newest);
        EXPECT_EQ(found.passed_over, std::vector<std::string>{});
        const std::string step = std::to_string(found.newest->step);
        EXPECT_EQ(read_file(found.newest->path / "adapter"), "adapter" + step);
        EXPECT_EQ(read_file(found.newest->path / "optimizer"), "optimizer" + step);
        EXPECT_TRUE(thrown || step == "2");
        ++outcomes[found.newest->step];
        EXPECT_TRUE(mora::list_checkpoints(folder / "run").leftovers.empty());
        // Done again, it is done right.
        if (step == "1") write_checkpoint(folder / "run", 2);
        EXPECT_EQ(mora::find_checkpoint(folder / "run").newest->step, 2);
      });
  EXPECT_GT(outcomes[1], 10);
  EXPECT_GT(outcomes[2], 0);
}

// One of its step that is not whole gives way.
TEST(CheckpointWriter, ReplacesABrokenOneOrSaysWhyNot) {
  const TemporaryFolder folder;
  fail_every_call(
      [&] {
        std::filesystem::remove_all(folder / "run");
        for (const mora::Index step : {1, 2}) write_checkpoint(folder / "run", step);
        write_file(folder / "run" / "ckpt-2" / "adapter", "broken");
      },
      [&] { write_checkpoint(folder / "run", 2); },
      [&](bool thrown) {
        const auto found = mora::find_checkpoint(folder / "run");
        ASSERT_TRUE(found.newest);
        EXPECT_TRUE(found.newest->step == 2 || thrown);
        EXPECT_TRUE(std::filesystem::exists(folder / "run" / "ckpt-1"));
        EXPECT_TRUE(mora::list_checkpoints(folder / "run").leftovers.empty());
      });
}

// What cannot be read now may be whole.
TEST(CheckpointWriter, RemovesNoneThatItCannotRead) {
  const TemporaryFolder folder;
  write_checkpoint(folder.where(), 1);
  int refused_at_once = 0;  // not after another was written, which would be for nothing
  for (int k = 1;; ++k) {
    ASSERT_LT(k, 100);
    Faults faults{.fail_at = k, .code = EMFILE};
    {
      const FaultyCalls faulty(faults);
      try {
        write_checkpoint(folder.where(), 1);
        ADD_FAILURE() << "written over";
      } catch (const FileError&) {
        ++refused_at_once;
      } catch (const mora::StateError&) {
      }
    }
    const auto found = mora::find_checkpoint(folder.where());
    ASSERT_TRUE(found.newest) << faults.failed << ", call " << k;
    EXPECT_EQ(found.newest->step, 1);
    if (faults.failed.empty()) break;
  }
  EXPECT_GT(refused_at_once, 3);
}

TEST(CheckpointWriter, KeepsTheNewestWhateverFailsInPruning) {
  const TemporaryFolder folder;
  fail_every_call(
      [&] {
        std::filesystem::remove_all(folder.where());
        for (const mora::Index step : {1, 2, 3}) write_checkpoint(folder.where(), step);
      },
      [&] { mora::prune_checkpoints(folder.where(), 1); },
      [&](bool thrown) {
        const auto found = mora::find_checkpoint(folder.where());
        ASSERT_TRUE(found.newest);
        EXPECT_EQ(found.newest->step, 3);
        // The newest stays, and where it could not be read the one before it is kept too.
        if (!thrown) {
          EXPECT_LE(mora::list_checkpoints(folder.where()).checkpoints.size(), 2u);
        }
      });
}

[[nodiscard]] std::vector<mora::NamedAdapter<float>> adapters_of(float value) {
  std::vector<mora::NamedAdapter<float>> adapters;
  for (const char* name : {"one", "two"}) {
    mora::MoraAdapter<float> adapter(8, 8, {.rank = 2});
    adapter.matrix().value.setConstant(value);
    adapters.push_back({name, mora::AnyAdapter<float>(std::move(adapter))});
  }
  return adapters;
}

TEST(SavePeft, LeavesTheOldAdapterTheNewOneOrNoneWhateverFails) {
  const TemporaryFolder folder;
  int outcomes[3] = {};
  fail_every_call([&] { mora::save_peft(adapters_of(1.0F), folder.where()); },
                  [&] { mora::save_peft(adapters_of(2.0F), folder.where()); },
                  [&](bool thrown) {
                    const auto names = folder.names();
                    for (const auto& name : names) EXPECT_TRUE(name.starts_with("adapter_"));
                    int found = 0;
                    if (std::ranges::find(names, "adapter_config.json") != names.end()) {
                      const mora::SafetensorsFile file(folder / "adapter_model.safetensors");
                      for (const mora::StoredTensor& tensor : file.tensors()) {
                        const auto numbers = tensor.numbers<float>();
                        if (found == 0) found = static_cast<int>(numbers.values.front());
                        for (const float value : numbers.values) EXPECT_EQ(value, float(found));
                      }
                    }
                    EXPECT_TRUE(thrown || found == 2);
                    ++outcomes[found];
                  });
  for (const int outcome : outcomes) EXPECT_GT(outcome, 0);
}

/// A model whose every weight is this number.
[[nodiscard]] mora::Llama<float> model_of(float value) {
  const mora::LlamaConfig config{.vocab_size = 6,
                                 .hidden_size = 4,
                                 .intermediate_size = 4,
                                 .num_hidden_layers = 1,
                                 .num_attention_heads = 1};
  std::vector<mora::FrozenLinear<float>> weights;
  const mora::LlamaTensors tensors(config);
  for (const mora::LlamaTensor& tensor : tensors.all()) {
    weights.emplace_back(Matrix<float>(Matrix<float>::Constant(tensor.rows, tensor.cols, value)));
  }
  return {config, std::move(weights)};
}

/// The number of all weights of the model in a folder; 0 where none loads.
[[nodiscard]] int value_in(const path& folder) {
  if (!std::filesystem::exists(folder / "config.json")) return 0;
  const auto model = mora::LlamaFolder(folder).model<float>();
  const float value = model.weights().front().weight()(0, 0);
  for (const auto& weight : model.weights()) {
    EXPECT_TRUE((weight.weight().array() == value).all());
  }
  return static_cast<int>(value);
}

TEST(SaveLlama, LeavesTheOldModelTheNewOneOrNoneWhateverFails) {
  const TemporaryFolder folder;
  int outcomes[3] = {};
  fail_every_call(
      [&] { mora::save_llama(model_of(1.0F), folder.where()); },
      [&] { mora::save_llama(model_of(2.0F), folder.where(), {.max_shard_bytes = 200}); },
      [&](bool thrown) {
        const int found = value_in(folder.where());
        EXPECT_TRUE(thrown || found == 2);
        ++outcomes[found];
        for (const auto& name : folder.names()) {
          EXPECT_TRUE(name.starts_with("model") || name == "config.json") << name;
        }
      });
  for (const int outcome : outcomes) EXPECT_GT(outcome, 0);
}

/// Every number of every weight.
void expect_merged(const path& folder, const mora::Llama<float>& expected) {
  const auto found = mora::LlamaFolder(folder).model<float>();
  for (std::size_t i = 0; i < expected.weights().size(); ++i) {
    EXPECT_TRUE(same_bits(found.weights()[i].weight(), expected.weights()[i].weight()))
        << expected.tensors()[i].name;
  }
}

TEST(MergeFolder, LeavesNothingOrAllOfItWhateverFails) {
  const TemporaryFolder folder;
  mora::save_llama(model_of(1.0F), folder / "base", {.max_shard_bytes = 200});
  std::vector<mora::NamedAdapter<float>> adapters;
  mora::MoraAdapter<float, mora::Truncation> adapter(4, 4, {.rank = 2});
  adapter.matrix().value.setConstant(1.0F);
  adapters.push_back({"model.layers.0.mlp.up_proj", mora::AnyAdapter<float>(std::move(adapter))});
  mora::Llama<float> expected = model_of(1.0F);
  expected.attach("adapter", adapters);
  ASSERT_TRUE(expected.merge());
  int outcomes[2] = {};
  fail_every_call([&] { std::filesystem::remove_all(folder / "merged"); },
                  [&] { (void)mora::merge_folder(folder / "base", adapters, folder / "merged"); },
                  [&](bool thrown) {
                    const auto names = folder.names();
                    const bool there = names.size() == 2;
                    EXPECT_EQ(names, there ? (std::vector<std::string>{"base", "merged"})
                                           : (std::vector<std::string>{"base"}));
                    EXPECT_TRUE(thrown || there);
                    if (there) expect_merged(folder / "merged", expected);
                    ++outcomes[there];
                  });
  for (const int outcome : outcomes) EXPECT_GT(outcome, 0);
}

}  // namespace
}  // namespace mora_tests
