// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mora/adapters/full.hpp>
#include <mora/adapters/lora.hpp>
#include <mora/adapters/mora.hpp>
#include <mora/io/llama/llama_folder.hpp>
#include <mora/io/llama/merge_folder.hpp>
#include <mora/io/peft/peft_folder.hpp>
#include <mora/operators/sharing.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/compare.hpp"
#include "support/files.hpp"
#include "support/not_finite.hpp"
#include "support/random.hpp"
#include "support/throws.hpp"

/// \file
/// Adapters merged into checkpoints on the disk, against the same merge in memory.

namespace mora_tests {
namespace {

using mora::AnyAdapter;
using mora::Matrix;
using mora::NamedAdapter;
using mora::ShardedTensors;

template <class A>
[[nodiscard]] AnyAdapter<double> filled(A adapter, Random& random, double deviation) {
  adapter.visit_parameters([&](std::string_view, auto& p) {
    mora::fill_normal(p.value, deviation, random.generator());
  });
  return AnyAdapter<double>(std::move(adapter));
}

/// LoRA, two kinds of MoRA, DoRA, HiRA, MiSS, LoKr and a whole norm.
[[nodiscard]] std::vector<NamedAdapter<double>> some_adapters(const mora::LlamaConfig& config,
                                                              double deviation = 0.1) {
  Random random(3);
  const mora::Index hidden = config.hidden_size;
  const mora::Index query = config.query_size();
  std::vector<NamedAdapter<double>> adapters;
  adapters.push_back({"model.layers.0.self_attn.q_proj",
                      filled(mora::LoraAdapter<double>(hidden, query, {.rank = 2, .alpha = 3.0},
                                                       random.generator()),
                             random, deviation)});
  adapters.push_back(
      {"model.layers.1.mlp.gate_proj",
       filled(mora::MoraAdapter<double>(hidden, config.intermediate_size, {.rank = 2}), random,
              deviation)});
  adapters.push_back({"model.layers.1.mlp.down_proj",
                      filled(mora::MoraAdapter<double, mora::RandomSharing>(
                                 config.intermediate_size, hidden, {.rank = 2, .scale = 0.5}),
                             random, deviation)});
  adapters.push_back({"model.layers.1.self_attn.q_proj",
                      AnyAdapter<double>(mora::DoraAdapter<mora::LoraAdapter<double>>(
                          {random.matrix<double>(2, hidden, deviation),
                           random.matrix<double>(query, 2, deviation),
                           {.rank = 2}},
                          Matrix<double>::Constant(1, query, 1.0 + deviation)))});
  adapters.push_back(
      {"model.layers.1.self_attn.o_proj",
       AnyAdapter<double>(mora::HiraAdapter<double>(random.matrix<double>(2, query, deviation),
                                                    random.matrix<double>(hidden, 2, deviation)))});
  adapters.push_back({"model.layers.1.mlp.up_proj",
                      AnyAdapter<double>(mora::MissAdapter<double>(
                          hidden, random.matrix<double>(3, config.intermediate_size, deviation)))});
  adapters.push_back(
      {"model.layers.0.self_attn.o_proj",
       filled(mora::LokrAdapter<double>(query, hidden, {.rank = 1}, random.generator()), random,
              deviation)});
  adapters.push_back(
      {"model.norm", AnyAdapter<double>(mora::FullAdapter<double>(mora::FrozenLinear<double>(
                         Matrix<double>(Matrix<double>::Constant(1, hidden, 0.75)))))});
  return adapters;
}

TEST(MergeFolder, IsTheMergeInMemoryRoundedOnce) {
  int folders = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(path(MORA_FIXTURES) / "llama_folders")) {
    if (!entry.is_directory()) continue;
    SCOPED_TRACE(entry.path().filename().string());
    ++folders;
    const TemporaryFolder out;
    const mora::LlamaFolder base(entry.path());
    const auto adapters = some_adapters(base.config());
    mora::Index last = 0;
    const auto report = mora::merge_folder(entry.path(), adapters, out / "merged",
                                           {.progress = [&](mora::Index done, mora::Index all) {
                                             EXPECT_LE(done, all);
                                             EXPECT_GT(done, last);
                                             last = done;
                                           }});
    const mora::LlamaFolder merged(out / "merged");
    EXPECT_EQ(read_file(out / "merged/config.json"), read_file(entry.path() / "config.json"));
    ASSERT_EQ(report.size(), adapters.size());
    for (const mora::StoredTensor& tensor : base.tensors().tensors()) {
      SCOPED_TRACE(tensor.name());
      const auto found = merged.tensors().tensor(tensor.name());
      EXPECT_EQ(found.dtype(), tensor.dtype());
      EXPECT_EQ(found.shape(), tensor.shape());
      const auto adapter = std::ranges::find_if(
          adapters, [&](const auto& each) { return each.module + ".weight" == tensor.name(); });
      if (adapter == adapters.end()) {
        EXPECT_TRUE(std::ranges::equal(found.bytes(), tensor.bytes()));
        continue;
      }
      const mora::Index rows = adapter->adapter.out_features();
      const mora::Index cols = adapter->adapter.in_features();
      const auto numbers = [&](const mora::StoredTensor& from) {
        Matrix<double> matrix(rows, cols);
        from.copy_to(std::span<double>(matrix.data(), static_cast<std::size_t>(matrix.size())));
        return matrix;
      };
      const Matrix<double> w = numbers(tensor);
      const Matrix<double> wanted =
          w + adapter->adapter.update(mora::FrozenLinear<double>(Matrix<double>(w)));
      const Matrix<double> result = numbers(found);
      // Half a unit in the last place of the dtype.
      const double unit = tensor.dtype() == mora::Dtype::bf16  ? 0x1p-8
                          : tensor.dtype() == mora::Dtype::f16 ? 0x1p-11
                                                               : 0x1p-24;
      EXPECT_TRUE(
          ((result - wanted).array().abs() <= unit * 1.0001 * wanted.array().abs() + 1e-7).all());
      const auto line = std::ranges::find(report, adapter->module, &mora::MergedModule::module);
      ASSERT_NE(line, report.end());
      EXPECT_EQ(line->dtype, tensor.dtype());
      const double norm = (wanted - w).norm();
      EXPECT_TRUE(near<double>(line->update_norm, norm, norm));
      EXPECT_NEAR(line->rounding_error, (result - wanted).norm() / norm, 1e-9);
    }
  }
  EXPECT_GE(folders, 3);
}

/// A folder with `large.weight` of the dtype and `other.weight`, which has no adapter; both of more
/// than is treated at a time.
void write_large_base(const path& folder, mora::Dtype dtype, const Matrix<float>& weight) {
  std::filesystem::create_directory(folder);
  mora::SafetensorsWriter writer(folder / "model.safetensors",
                                 {{"large.weight", dtype, {weight.rows(), weight.cols()}},
                                  {"other.weight", mora::Dtype::bf16, {1000, weight.cols()}}});
  writer.write("large.weight", std::span<const float>(weight.data(), std::size_t(weight.size())));
  writer.write("other.weight",
               std::span<const float>(weight.data(), std::size_t(1000 * weight.cols())));
  writer.commit();
}

// By all threads. Of the columns 2000 leave blocks of rows that do not fill a piece, and 768 do
// with F32.
TEST(MergeFolder, MergesALargeTensorPieceByPiece) {
  struct Case {
    mora::Dtype dtype;
    mora::Index rows, cols;
    double unit;
  };
  for (const Case& c :
       {Case{mora::Dtype::bf16, 2100, 2000, 0x1p-8}, Case{mora::Dtype::f32, 1500, 768, 0x1p-24}}) {
    SCOPED_TRACE(mora::name_of(c.dtype));
    const TemporaryFolder folder;
    Random random(5);
    const Matrix<float> weight = random.matrix<float>(c.rows, c.cols);
    write_large_base(folder / "base", c.dtype, weight);
    mora::LoraAdapter<double> lora(Matrix<double>(random.matrix<double>(2, c.cols)),
                                   Matrix<double>(random.matrix<double>(c.rows, 2)), {.rank = 2});
    const Matrix<double> update = lora.settings().scale() * lora.b().value * lora.a().value;
    const std::vector<NamedAdapter<double>> adapters = {
        {"large", AnyAdapter<double>(std::move(lora))}};
    mora::Index told = 0, all = 0;
    const auto report = mora::merge_folder(folder / "base", adapters, folder / "merged",
                                           {.progress = [&](mora::Index now, mora::Index of) {
                                             EXPECT_GT(now, told);
                                             told = now;
                                             all = of;
                                           }});
    EXPECT_EQ(told, all);

    const ShardedTensors before(folder / "base");
    const ShardedTensors after(folder / "merged");
    EXPECT_TRUE(after.tensor("other.weight").equals(before.tensor("other.weight")));
    const auto numbers = [&](const ShardedTensors& tensors) {
      Matrix<double> matrix(c.rows, c.cols);
      tensors.tensor("large.weight")
          .copy_to(std::span<double>(matrix.data(), std::size_t(matrix.size())));
      return matrix;
    };
    const Matrix<double> wanted = numbers(before) + update;
    const Matrix<double> found = numbers(after);
    EXPECT_TRUE(
        ((found - wanted).array().abs() <= 1.0001 * c.unit * wanted.array().abs() + 1e-12).all());
    // Every row counts, once.
    ASSERT_EQ(report.size(), 1u);
    EXPECT_TRUE(near<double>(report[0].update_norm, update.norm(), update.norm()));
    EXPECT_NEAR(report[0].rounding_error, (found - wanted).norm() / update.norm(), 1e-9);
  }
}

/// A folder with one file of matrices of ones, and what it says of itself.
void write_ones(const path& folder, const std::vector<std::string>& modules, mora::Index rows,
                mora::Index cols, mora::Dtype dtype, const mora::TextMap& metadata = {}) {
  std::filesystem::create_directory(folder);
  std::vector<mora::TensorInfo> infos;
  for (const std::string& module : modules) {
    infos.push_back({module + ".weight", dtype, {rows, cols}});
  }
  mora::SafetensorsWriter writer(folder / "model.safetensors", infos, metadata);
  const std::vector<float> ones(static_cast<std::size_t>(cols), 1.0f);
  for (const std::string& module : modules) {
    for (mora::Index row = 0; row < rows; ++row) {
      writer.write(module + ".weight", std::span<const float>(ones));
    }
  }
  writer.commit();
}

/// A LoRA that adds 1 to every number of a matrix.
[[nodiscard]] AnyAdapter<float> plus_one(mora::Index rows, mora::Index cols) {
  return AnyAdapter<float>(mora::LoraAdapter<float>(
      Matrix<float>::Ones(1, cols), Matrix<float>::Ones(rows, 1), {.rank = 1, .alpha = 1.0}));
}

TEST(MergeFolder, HasOneAdapterInMemoryAtATime) {
  const TemporaryFolder out;
  write_ones(out / "base", {"a", "b", "c"}, 3, 2, mora::Dtype::f32);
  int alive = 0, most = 0, made = 0;
  std::vector<mora::ModuleUpdate<float>> updates;
  for (const char* module : {"a", "b", "c"}) {
    updates.push_back({.module = module, .out_features = 3, .in_features = 2, .adapter = [&] {
                         ++made;
                         most = std::max(most, ++alive);
                         return std::shared_ptr<const AnyAdapter<float>>(
                             new AnyAdapter<float>(plus_one(3, 2)),
                             [&](const AnyAdapter<float>* adapter) {
                               --alive;
                               delete adapter;
                             });
                       }});
  }
  EXPECT_EQ(mora::merge_folder(out / "base", updates, out / "merged").size(), 3u);
  EXPECT_EQ(alive, 0);
  EXPECT_EQ(most, 1);
  EXPECT_EQ(made, 3);
  EXPECT_EQ(ShardedTensors(out / "merged").tensor("c.weight").numbers<float>().values[5], 2.0f);
}

TEST(MergeFolder, TakesFromAPeftFolderWhatItsAdaptersAre) {
  const std::pair<const char*, const char*> folders[] = {{"modules_to_save", "untied_f16"},
                                                         {"tied_embedding", "tied_bf16_shards"}};
  for (const auto& [adapter, model] : folders) {
    SCOPED_TRACE(adapter);
    const TemporaryFolder out;
    const path base = stored_llama(model);
    const mora::PeftFolder folder(path(MORA_FIXTURES) / "peft_folders" / adapter);
    const auto layers = mora::layer_shapes(mora::LlamaFolder(base).config());
    const auto one = mora::merge_folder(base, folder.adapters<float>(layers), out / "one");
    const auto two = mora::merge_folder(base, folder.updates<float>(layers), out / "two");
    ASSERT_EQ(one.size(), two.size());
    for (std::size_t i = 0; i < one.size(); ++i) {
      EXPECT_EQ(one[i].module, two[i].module);
      EXPECT_EQ(one[i].update_norm, two[i].update_norm);
      EXPECT_EQ(one[i].rounding_error, two[i].rounding_error);
    }
    const ShardedTensors expected(out / "one"), found(out / "two");
    ASSERT_EQ(expected.size(), found.size());
    for (const mora::StoredTensor& tensor : expected.tensors()) {
      EXPECT_TRUE(found.tensor(tensor.name()).equals(tensor)) << tensor.name();
    }
  }
}

#if defined(__linux__)
/// Of this process, in bytes.
[[nodiscard]] mora::Index resident_memory() {
  std::ifstream status("/proc/self/status");
  constexpr std::string_view what = "VmRSS:";
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(what)) return 1024 * std::stoll(line.substr(what.size()));
  }
  return 0;
}

// Whole weights of 16 MB each in float: neither a matrix of one nor its file's pages stay.
TEST(MergeFolder, KeepsNoWholeWeightInMemory) {
  const TemporaryFolder out;
  const mora::Index rows = 4096, cols = 1024;
  const std::vector<std::string> modules = {"a", "b", "c"};
  write_ones(out / "base", modules, rows, cols, mora::Dtype::bf16);
  write_ones(out / "whole", modules, rows, cols, mora::Dtype::f32);
  const mora::SafetensorsFile whole(out / "whole/model.safetensors");
  std::vector<mora::ModuleUpdate<float>> updates;
  for (const std::string& module : modules) {
    updates.push_back({.module = module,
                       .out_features = rows,
                       .in_features = cols,
                       .weight = whole.tensor(module + ".weight")});
  }
  const mora::Index before = resident_memory();
  mora::Index most = 0;
  (void)mora::merge_folder(out / "base", updates, out / "merged", {.progress = [&](auto, auto) {
                             most = std::max(most, resident_memory());
                           }});
  EXPECT_GT(most, 0);
  EXPECT_LT(most - before, 12 << 20);
}
#endif

TEST(MergeFolder, RefusesWholeWeightsThatDoNotFit) {
  const TemporaryFolder out;
  write_ones(out / "base", {"a"}, 3, 2, mora::Dtype::f32);
  write_ones(out / "other", {"a"}, 2, 3, mora::Dtype::f32);
  const mora::SafetensorsFile other(out / "other/model.safetensors");
  const std::vector<mora::ModuleUpdate<float>> updates = {
      {.module = "a", .out_features = 2, .in_features = 3, .weight = other.tensor("a.weight")}};
  EXPECT_TRUE(throws<mora::FormatError>({"base", "expected shape [2, 3], found [3, 2]"}, [&] {
    (void)mora::merge_folder(out / "base", updates, out / "merged");
  }));
  EXPECT_EQ(out.names(), (std::vector<std::string>{"base", "other"}));
}

// 138: what any file of the machine contains is not for a model that others get.
TEST(MergeFolder, CopiesNoLinksUnlessAsked) {
  const TemporaryFolder out;
  write_ones(out / "base", {"a"}, 3, 2, mora::Dtype::f32);
  write_file(out / "secret", "secret");
  write_file(out / "base/notes", "notes");
  std::filesystem::create_symlink("notes", out / "base/same");
  const std::vector<NamedAdapter<float>> adapters = {{"a", plus_one(3, 2)}};
  const auto merge = [&](bool links) {
    (void)mora::merge_folder(out / "base", adapters, out / "merged", {.links = links});
  };
  const path file = out / "base/tokenizer.json";
  const auto expect_refused = [&](std::string_view found) {
    EXPECT_TRUE(throws<mora::FormatError>(
        {file.string(), found, "links = true in the library, --links of the programs"},
        [&] { merge(false); }));
    EXPECT_FALSE(std::filesystem::exists(out / "merged"));
  };
  std::filesystem::create_symlink("../secret", file);
  expect_refused("found a link to");
  std::filesystem::remove(file);
  std::filesystem::create_hard_link(out / "secret", file);
  expect_refused("found 2 hard links");
  merge(true);
  EXPECT_EQ(read_file(out / "merged/tokenizer.json"), "secret");
  EXPECT_EQ(read_file(out / "merged/same"), "notes");
}

// 156: also what is left of a process that was killed.
TEST(MergeFolder, SaysWhatItLeavesAlone) {
  const TemporaryFolder out;
  write_ones(out / "base", {"a"}, 3, 2, mora::Dtype::f32, {{"format", "np"}, {"by", "somebody"}});
  for (const char* folder : {"base/original", "base/.cache"}) {
    std::filesystem::create_directory(out / folder);
  }
  write_file(out / "base/training.bin", "weights?");
  // Weights in other formats, and a config that would make an adapter of the folder.
  const std::vector<std::string> others = {"consolidated.00.pth", "ggml.gguf",
                                           "pytorch_model.bin.index.json", "adapter_config.json"};
  for (const std::string& name : others) write_file(out / "base" / name, "{}");
  write_file(out / "base/.mora-1-0.tmp", "half a file");
  write_file(out / "base/tokenizer.json", "{}");
  const std::string dead = "merged.tmp-" + std::to_string(ended_process()) + "-0";
  const std::string own = "merged.tmp-" + std::to_string(::getpid()) + "-0";
  const std::string living = "merged.tmp-" + std::to_string(::getppid()) + "-1";
  for (const std::string& name : {dead, own, living, std::string("merged.tmp-x-0")}) {
    std::filesystem::create_directory(out / name);
  }
  std::vector<std::string> warnings;
  (void)mora::merge_folder<float>(
      out / "base", std::vector<NamedAdapter<float>>{{"a", plus_one(3, 2)}}, out / "merged",
      {.warning = [&](const std::string& text) { warnings.push_back(text); }});
  const auto warned = [&](const std::string& name, std::string_view of) {
    return std::ranges::count_if(warnings, [&](const std::string& text) {
      return text.starts_with((out / name).string() + ": ") && text.find(of) != text.npos;
    });
  };
  EXPECT_EQ(warnings.size(), 9u) << testing::PrintToString(warnings);
  for (const std::string& name : others) EXPECT_EQ(warned("base/" + name, "not copied"), 1);
  EXPECT_TRUE(std::filesystem::exists(out / "merged/tokenizer.json"));
  for (const path& entry : std::filesystem::directory_iterator(out / "merged")) {
    EXPECT_TRUE(entry.extension() == ".safetensors" || entry.filename() == "tokenizer.json")
        << entry;
  }
  EXPECT_EQ(warned("base/original", "not copied, as it is a folder"), 1);
  EXPECT_EQ(warned("base/training.bin", "not copied"), 1);
  EXPECT_EQ(warned(dead, "left by a process that ended"), 1);
  EXPECT_EQ(warned(living, "or still written"), 1);
  // Containers number their processes alike: it may be an earlier one's.
  EXPECT_EQ(warned(own, "or still written"), 1);
  for (const std::string& name : {dead, own, living}) {
    EXPECT_TRUE(std::filesystem::exists(out / name));
  }
  EXPECT_EQ(mora::SafetensorsFile(out / "merged/model.safetensors").metadata(),
            (mora::TextMap{{"format", "np"}, {"by", "somebody"}}));
}

// Each thread writes its own pieces, of which those beyond the limit fail.
TEST(MergeFolder, BeyondALimitOfAFilesSizeLeavesNothing) {
  const TemporaryFolder folder;
  const mora::Index rows = 2100, cols = 2000;
  write_large_base(folder / "base", mora::Dtype::bf16, Matrix<float>::Ones(rows, cols));
  const std::vector<NamedAdapter<float>> adapters = {
      {"large", AnyAdapter<float>(mora::LoraAdapter<float>(
                    Matrix<float>::Ones(1, cols), Matrix<float>::Ones(rows, 1), {.rank = 1}))}};
  const FileSizeLimit limit(3 << 20);
  EXPECT_TRUE(throws<mora::FileError>({"cannot write"}, [&] {
    (void)mora::merge_folder(folder / "base", adapters, folder / "merged");
  }));
  EXPECT_EQ(folder.names(), std::vector<std::string>{"base"});
}

TEST(MergeFolder, AFileThatCannotBeCopiedLeavesNothing) {
  const TemporaryFolder folder;
  write_ones(folder / "base", {"a"}, 3, 2, mora::Dtype::f32);
  write_file(folder / "base/tokenizer.json", std::string(100'000, ' '));
  const FileSizeLimit limit(50'000);
  EXPECT_TRUE(throws<mora::FileError>({"base/tokenizer.json", "cannot copy"}, [&] {
    (void)mora::merge_folder<float>(folder / "base",
                                    std::vector<NamedAdapter<float>>{{"a", plus_one(3, 2)}},
                                    folder / "merged");
  }));
  EXPECT_EQ(folder.names(), std::vector<std::string>{"base"});
}

// A link could not be replaced, which is to be known before the work.
TEST(MergeFolder, TakesItsPlaceBeforeItWrites) {
  const TemporaryFolder folder;
  write_ones(folder / "base", {"a"}, 3, 2, mora::Dtype::f32);
  std::filesystem::create_directory(folder / "empty");
  std::filesystem::create_directory_symlink(folder / "empty", folder / "link");
  const auto merge = [&](const path& target) {
    mora::Index written = 0;
    const auto call = [&] {
      (void)mora::merge_folder<float>(
          folder / "base", std::vector<NamedAdapter<float>>{{"a", plus_one(3, 2)}}, target,
          {.progress = [&](mora::Index done, mora::Index) { written = done; }});
    };
    EXPECT_TRUE(throws<mora::FileError>({"is there already"}, call));
    EXPECT_EQ(written, 0);
  };
  merge(folder / "link");
  merge(folder / "link/");
  EXPECT_TRUE(std::filesystem::is_empty(folder / "empty"));
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"base", "empty", "link"}));
  (void)mora::merge_folder<float>(
      folder / "base", std::vector<NamedAdapter<float>>{{"a", plus_one(3, 2)}}, folder / "empty");
  EXPECT_TRUE(std::filesystem::exists(folder / "empty/model.safetensors"));
}

/// Nothing is left of it.
void expect_nothing_in(const TemporaryFolder& folder) { EXPECT_TRUE(folder.names().empty()); }

TEST(MergeFolder, RefusesWhatDoesNotFitAndLeavesNothing) {
  const TemporaryFolder out;
  const path base = stored_llama("untied_f32");
  const auto config = mora::LlamaFolder(base).config();
  const auto merge = [&](const std::vector<NamedAdapter<double>>& adapters) {
    return [&out, &base, adapters] { (void)mora::merge_folder(base, adapters, out / "merged"); };
  };
  auto adapters = some_adapters(config);
  adapters[0].module = "model.layers.9.self_attn.q_proj";
  EXPECT_TRUE(throws<mora::ArgumentError>({"layers.9"}, merge(adapters)));
  adapters = some_adapters(config);
  adapters.push_back(adapters[0]);
  EXPECT_TRUE(throws<mora::ArgumentError>({"q_proj", "two adapters"}, merge(adapters)));
  adapters = some_adapters(config);
  adapters[0].module = "model.layers.0.mlp.gate_proj";
  EXPECT_TRUE(throws<mora::FormatError>({"gate_proj", "expected shape"}, merge(adapters)));
  // A bias has no place in the tensor of the weight.
  adapters = some_adapters(config);
  const auto& first = adapters[0].adapter;
  adapters[0].adapter = AnyAdapter<double>(mora::FullAdapter<double>(
      {Matrix<double>(Matrix<double>::Zero(first.out_features(), first.in_features())),
       mora::RowVector<double>::Ones(first.out_features())}));
  EXPECT_TRUE(throws<mora::ArgumentError>({adapters[0].module, "bias"}, merge(adapters)));
  expect_nothing_in(out);
  adapters = some_adapters(config, infinity<double>);
  EXPECT_TRUE(throws<mora::NumericError>({"not finite"}, merge(adapters)));
  expect_nothing_in(out);
  // Finite in double, beyond the file's float.
  adapters = some_adapters(config, 1e30);
  EXPECT_TRUE(throws<mora::NumericError>({"_proj"}, merge(adapters)));
  expect_nothing_in(out);
}

// In one tensor [2, 2] of some dtype, to which LoRA adds `delta` everywhere.
TEST(MergeFolder, KnowsWhatADtypeHolds) {
  const TemporaryFolder out;
  mora::MergeFolderSettings settings;
  const auto merge = [&](mora::Dtype dtype, std::span<const std::byte> bytes, double delta) {
    std::filesystem::create_directories(out / "base");
    mora::SafetensorsWriter writer(out / "base/model.safetensors", {{"one.weight", dtype, {2, 2}}});
    writer.write("one.weight", bytes);
    writer.commit();
    mora::LoraAdapter<double> lora(Matrix<double>(Matrix<double>::Ones(1, 2)),
                                   Matrix<double>(Matrix<double>::Constant(2, 1, delta)),
                                   {.rank = 1, .alpha = 1.0});
    return mora::merge_folder<double>(out / "base", {{"one", AnyAdapter<double>(std::move(lora))}},
                                      out / "merged", settings);
  };
  // Beyond the largest half, of two finite numbers.
  const std::vector<mora::Float16> large(4, mora::narrow<mora::Float16>(60000.0f));
  EXPECT_TRUE(throws<mora::NumericError>({"one", "F16"}, [&] {
    (void)merge(mora::Dtype::f16, std::as_bytes(std::span(large)), 10000.0);
  }));
  // Numbers that merging does not convert, as those of quantised weights.
  const std::vector<std::int8_t> integers(4, 1);
  EXPECT_TRUE(throws<mora::FormatError>({"one.weight", "I8"}, [&] {
    (void)merge(mora::Dtype::i8, std::as_bytes(std::span(integers)), 1.0);
  }));
  EXPECT_EQ(out.names(), std::vector<std::string>{"base"});
  // Less than half a unit in the last place: nothing is left of it, and the report says so.
  const std::vector<mora::BFloat16> ones(4, mora::narrow<mora::BFloat16>(1.0f));
  settings.most_rounding_error = 0.99;
  EXPECT_TRUE(throws<mora::NumericError>({"one", "BF16", "at most 0.99, found 1"}, [&] {
    (void)merge(mora::Dtype::bf16, std::as_bytes(std::span(ones)), 0x1p-12);
  }));
  EXPECT_EQ(out.names(), std::vector<std::string>{"base"});
  settings.most_rounding_error = 1.0;
  const auto report = merge(mora::Dtype::bf16, std::as_bytes(std::span(ones)), 0x1p-12);
  ASSERT_EQ(report.size(), 1u);
  EXPECT_EQ(report[0].update_norm, 0x1p-11);
  EXPECT_EQ(report[0].rounding_error, 1.0);
}

/// The report on `adapter`, merged into one tensor of ones in float32.
template <class A>
[[nodiscard]] mora::MergedModule merged_into_ones(A adapter) {
  const TemporaryFolder out;
  std::filesystem::create_directory(out / "base");
  const mora::Index rows = adapter.out_features(), cols = adapter.in_features();
  mora::SafetensorsWriter writer(out / "base/model.safetensors",
                                 {{"one.weight", mora::Dtype::f32, {rows, cols}}});
  writer.write("one.weight", std::span<const float>(
                                 std::vector<float>(static_cast<std::size_t>(rows * cols), 1.0f)));
  writer.commit();
  const auto report = mora::merge_folder<float>(
      out / "base", {{"one", AnyAdapter<float>(std::move(adapter))}}, out / "merged");
  return report.at(0);
}

// In the weight's own float it would read as nothing that was there to be lost.
TEST(MergeFolder, ReportsAnUpdateBelowHalfAUnitAsLost) {
  const auto report = merged_into_ones(mora::LoraAdapter<float>(
      Matrix<float>(Matrix<float>::Ones(1, 8)),
      Matrix<float>(Matrix<float>::Constant(2, 1, 0x1p-30f)), {.rank = 1, .alpha = 1.0}));
  EXPECT_EQ(report.update_norm, 0x1p-28);
  EXPECT_EQ(report.rounding_error, 1.0);
}

// 4096 squares of 1 + 2^-11: a sum in float keeps none of the last bits.
TEST(MergeFolder, SumsItsReportInDouble) {
  const mora::Index rows = 64, cols = 4096;
  const float change = 1.0f + 0x1p-11f;
  const double norm = std::sqrt(static_cast<double>(rows * cols)) * double{change};
  const auto lora = merged_into_ones(mora::LoraAdapter<float>(
      Matrix<float>(Matrix<float>::Constant(1, cols, change)),
      Matrix<float>(Matrix<float>::Ones(rows, 1)), {.rank = 1, .alpha = 1.0}));
  EXPECT_NEAR(lora.update_norm, norm, 1e-12 * norm);
  EXPECT_EQ(lora.rounding_error, 0.0);
  const auto full = merged_into_ones(mora::FullAdapter<float>(mora::FrozenLinear<float>(
      Matrix<float>(Matrix<float>::Constant(rows, cols, 1.0f + change)))));
  EXPECT_NEAR(full.update_norm, norm, 1e-12 * norm);
  EXPECT_EQ(full.rounding_error, 0.0);
}

TEST(MergeFolder, ChangesNoBitWhereTheUpdateIsZero) {
  const TemporaryFolder out;
  std::filesystem::create_directory(out / "base");
  const std::vector<float> numbers = {-0.0f, 0.0f, 1.0f, -2.0f};
  mora::SafetensorsWriter writer(out / "base/model.safetensors",
                                 {{"one.weight", mora::Dtype::f32, {2, 2}}});
  writer.write("one.weight", std::span<const float>(numbers));
  writer.commit();
  mora::LoraAdapter<float> lora(Matrix<float>(Matrix<float>::Ones(1, 2)),
                                Matrix<float>(Matrix<float>::Zero(2, 1)), {.rank = 1});
  const auto report = mora::merge_folder<float>(
      out / "base", {{"one", AnyAdapter<float>(std::move(lora))}}, out / "merged");
  EXPECT_EQ(report.at(0).rounding_error, 0.0);
  const auto merged = ShardedTensors(out / "merged").tensor("one.weight");
  EXPECT_TRUE(std::ranges::equal(merged.bytes(), std::as_bytes(std::span(numbers))));
}

// The head of a tied model is the embedding, also where a file has both.
TEST(MergeFolder, KeepsAStoredTiedHeadEqualToItsEmbedding) {
  const TemporaryFolder out;
  const Matrix<double> ones = Matrix<double>::Ones(3, 2);
  const auto numbers = [](const Matrix<double>& matrix) {
    return std::span<const double>(matrix.data(), static_cast<std::size_t>(matrix.size()));
  };
  const auto write = [&](const char* config, const Matrix<double>& head) {
    std::filesystem::create_directories(out / "base");
    write_file(out / "base/config.json", config);
    mora::SafetensorsWriter writer(out / "base/model.safetensors",
                                   {{"lm_head.weight", mora::Dtype::f32, {3, 2}},
                                    {"model.embed_tokens.weight", mora::Dtype::f32, {3, 2}}});
    for (const auto& info : writer.tensors()) {
      writer.write(info.name, numbers(info.name == "lm_head.weight" ? head : ones));
    }
    writer.commit();
  };
  const auto merge = [&](const char* module) {
    return mora::merge_folder<double>(
        out / "base",
        {{module, AnyAdapter<double>(mora::FullAdapter<double>(mora::FrozenLinear<double>(
                      Matrix<double>(Matrix<double>::Constant(3, 2, 5.0)))))}},
        out / "merged");
  };
  const auto merged = [&](const char* name) {
    return ShardedTensors(out / "merged").tensor(name).numbers<float>().values[0];
  };
  const char* const tied = R"({"tie_word_embeddings": true})";
  write(tied, ones);
  EXPECT_TRUE(throws<mora::ArgumentError>({"lm_head", "tied to model.embed_tokens"},
                                          [&] { (void)merge("lm_head"); }));
  EXPECT_EQ(out.names(), std::vector<std::string>{"base"});
  const auto report = merge("model.embed_tokens");
  ASSERT_EQ(report.size(), 1u);
  EXPECT_EQ(report[0].module, "model.embed_tokens");
  EXPECT_EQ(merged("model.embed_tokens.weight"), 5.0f);
  EXPECT_EQ(merged("lm_head.weight"), 5.0f);

  std::filesystem::remove_all(out / "merged");
  write(tied, 2.0 * ones);
  EXPECT_TRUE(throws<mora::FormatError>(
      {"'lm_head.weight'", "'model.embed_tokens.weight'", "tie_word_embeddings"},
      [&] { (void)merge("model.embed_tokens"); }));
  EXPECT_EQ(out.names(), std::vector<std::string>{"base"});
  write(R"({"tie_word_embeddings": false})", 2.0 * ones);
  (void)merge("model.embed_tokens");
  EXPECT_EQ(merged("lm_head.weight"), 2.0f);
}

TEST(MergeFolder, NeverReplacesAFolder) {
  const TemporaryFolder out;
  const path base = stored_llama("untied_f32");
  const auto adapters = some_adapters(mora::LlamaFolder(base).config());
  std::filesystem::create_directory(out / "empty");
  (void)mora::merge_folder(base, adapters, out / "empty");
  EXPECT_NO_THROW(mora::LlamaFolder(out / "empty"));
  std::filesystem::create_directory(out / "taken");
  write_file(out / "taken/file", "text");
  write_file(out / "file", "text");
  for (const char* name : {"taken", "file", "empty"}) {
    EXPECT_TRUE(throws<mora::FileError>(
        {name, "there already"}, [&] { (void)mora::merge_folder(base, adapters, out / name); }));
  }
  EXPECT_EQ(read_file(out / "taken/file"), "text");
  EXPECT_EQ(out.names(), (std::vector<std::string>{"empty", "file", "taken"}));
}

}  // namespace
}  // namespace mora_tests
