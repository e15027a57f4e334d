// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <mora/io/checkpoint_folder.hpp>
#include <mora/io/sharded_tensors.hpp>
#include <mora/io/sharded_writer.hpp>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "support/failing_allocations.hpp"
#include "support/files.hpp"
#include "support/safetensors_cases.hpp"
#include "support/throws.hpp"

/// \file
/// Memory that tensor files take: none for what a header claims, and nothing half-changed where
/// there is none.

namespace mora_tests {
namespace {

using mora::Dtype;
using mora::FormatError;
using mora::SafetensorsFile;
using mora::TensorInfo;

// 87, 168
TEST(SafetensorsFile, TakesNoMemoryForWhatIsClaimed) {
  const TemporaryFolder folder;
  for (const FileCase& test : safetensors_cases()) {
    if (test.fault.empty()) continue;
    SCOPED_TRACE(test.name);
    write_file(folder / "file", test.bytes);
    const long live = live_allocations();
    (void)take_largest_allocation();
    EXPECT_THROW(SafetensorsFile(folder / "file"), FormatError);
    EXPECT_LT(take_largest_allocation(), 64 * 1024);
    EXPECT_EQ(live_allocations(), live);
  }
}

/// How many times as much memory as the file has is needed to read its header, at the most.
[[nodiscard]] double memory_for(const std::string& file) {
  const long live = live_allocations();
  const long before = live_bytes();
  (void)take_most_live_bytes();
  try {
    (void)mora::parse_safetensors_header(std::as_bytes(std::span(file)), "file");
  } catch (const FormatError&) {
  }
  const auto most = static_cast<double>(take_most_live_bytes() - before);
  EXPECT_EQ(live_allocations(), live);
  return most / static_cast<double>(file.size());
}

// 102
TEST(SafetensorsFile, TakesAFewTimesWhatItsHeaderDoes) {
  EXPECT_LT(memory_for(with_header(many_names_on_one_span(), std::string(16, 'x'))), 10);
}

// What takes the most memory for its bytes, each with the count at which vectors have just grown.
TEST(SafetensorsFile, TakesNeverMoreThanTwentyTimesWhatItsHeaderDoes) {
  constexpr int count = (1 << 17) + 1;
  const auto repeated = [](const std::string& front, const std::string& back, const auto& part) {
    std::string json = front;
    for (int i = 0; i < count; ++i) json += (i == 0 ? "" : ",") + part(i);
    return with_header(json + back);
  };
  const auto short_name = [](int i) {
    std::string name = "\"";
    for (int rest = i; rest > 0; rest /= 64) name += static_cast<char>('?' + rest % 64);
    std::replace(name.begin(), name.end(), '\\', ' ');
    return name + '"';
  };
  EXPECT_LT(memory_for(repeated(R"({"__metadata__":{)", "}}",
                                [&](int i) { return short_name(i) + R"(:"")"; })),
            20);
  EXPECT_LT(memory_for(repeated("{", "}",
                                [&](int i) {
                                  return short_name(i) +
                                         R"(:{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
                                })),
            20);
  EXPECT_LT(memory_for(repeated(R"({"t":{"dtype":"U8","data_offsets":[0,0],"shape":[)", "]}}",
                                [](int) { return std::string("0"); })),
            20);
  EXPECT_LT(
      memory_for(repeated(R"({"t":{"x":{)", "}}}", [](int) { return std::string(R"("":0)"); })),
      20);
  EXPECT_LT(memory_for(repeated(R"({"t":{"x":[)", "]}}", [](int) { return std::string("[]"); })),
            20);
}

// 169
TEST(SafetensorsFile, SaysWhenThereIsNoMemory) {
  const std::string bytes = with_header(
      R"({"__metadata__":{"a key of some length that is":"a value of some length that is"},)"
      R"("a tensor's name of some length":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}})",
      "abcd");
  const TemporaryFolder folder;
  write_file(folder / "file", bytes);
  const path name = folder / "file";
  EXPECT_GT(fail_each_allocation(
                [&] {
                  const SafetensorsFile file(name, mora::FileAccess::copied);
                  (void)file.tensors().front().numbers<float>();
                },
                [] {}),
            5);
}

TEST(ShardedTensors, SayWhenThereIsNoMemory) {
  const TemporaryFolder folder;
  write_file(folder / "one", with_header("{" + entry_of_bytes("a", "0", "4", "4") + "}", "aaaa"));
  write_file(folder / "two", with_header("{" + entry_of_bytes("b", "0", "4", "4") + "}", "bbbb"));
  write_file(folder / "model.safetensors.index.json",
             R"({"metadata":{"total_size":7},"weight_map":{"a":"one","b":"two"}})");
  EXPECT_GT(fail_each_allocation([&] { const mora::ShardedTensors model(folder.where()); }, [] {}),
            5);
}

// 141, 168: an index of a terabyte is refused before there is a copy of it.
TEST(ShardedTensors, TakeNoMemoryForAnIndexBeyondTheLimit) {
  const TemporaryFolder folder;
  const path name = folder / "model.safetensors.index.json";
  write_file(name, "{");
  std::filesystem::resize_file(name, std::uintmax_t{1} << 40);
  for (const mora::FileAccess access : {mora::FileAccess::mapped, mora::FileAccess::copied}) {
    (void)take_largest_allocation();
    EXPECT_TRUE(throws<FormatError>(
        {"index.json: expected at most 100000000 bytes, found 1099511627776"},
        [&] { const mora::ShardedTensors model(folder.where(), {.access = access}); }));
    EXPECT_LT(take_largest_allocation(), 64 * 1024);
  }
}

TEST(SafetensorsWriter, LeavesTheOldFileWhenThereIsNoMemory) {
  const TemporaryFolder folder;
  const std::vector<TensorInfo> infos = {{"a tensor's name of some length", Dtype::u8, {4}},
                                         {"another tensor's name of some length", Dtype::u8, {4}}};
  const path name = folder / "file";
  write_file(name, "old");
  EXPECT_GT(fail_each_allocation(
                [&] {
                  mora::SafetensorsWriter writer(name, infos, {{"format", "pt"}});
                  for (const TensorInfo& info : writer.tensors()) {
                    writer.write(info.name, std::as_bytes(std::span("abcd", 4)));
                  }
                  writer.commit();
                },
                [&] {
                  EXPECT_EQ(read_file(name), "old");
                  EXPECT_EQ(folder.names().size(), 1u);
                }),
            5);
  EXPECT_EQ(SafetensorsFile(name).size(), 2);
}

// Also where there is no memory to clean up with.
TEST(CheckpointWriter, LeavesWholeCheckpointsWhenThereIsNoMemoryAnyMore) {
  const TemporaryFolder folder;
  const auto write = [&](mora::Index step) {
    mora::CheckpointWriter writer(folder.where(), step);
    mora::AtomicFile file(writer.path("adapter"));
    file.write(std::as_bytes(std::span("numbers")));
    file.commit();
    writer.commit();
  };
  write(1);
  for (long k = 1;; ++k) {
    ASSERT_LT(k, 1000);
    bool failed = false;
    fail_allocations_from(k);
    try {
      write(2);
    } catch (const std::bad_alloc&) {
      failed = true;
    }
    fail_allocation(0);
    const auto found = mora::find_checkpoint(folder.where());
    ASSERT_TRUE(found.newest) << "allocation " << k;
    EXPECT_EQ(found.passed_over, std::vector<std::string>{});
    if (!failed) break;
    if (found.newest->step == 2) std::filesystem::remove_all(folder / "ckpt-2");
  }
  EXPECT_EQ(mora::find_checkpoint(folder.where()).newest->step, 2);
}

TEST(ShardedWriter, LeavesTheOldModelOrNoneWhenThereIsNoMemory) {
  const TemporaryFolder folder;
  const std::vector<TensorInfo> infos = {{"a", Dtype::u8, {4}}, {"b", Dtype::u8, {4}}};
  const auto write = [&] {
    mora::ShardedWriter writer(folder.where(), infos, {.max_shard_bytes = 4});
    for (const TensorInfo& info : writer.tensors()) {
      writer.write(info.name, std::as_bytes(std::span("abcd", 4)));
    }
    writer.commit();
  };
  write();
  EXPECT_GT(fail_each_allocation(write,
                                 [&] {
                                   for (const auto& name : folder.names()) {
                                     EXPECT_TRUE(name.starts_with("model")) << name;
                                   }
                                   if (folder.names().size() == 3) {
                                     EXPECT_EQ(mora::ShardedTensors(folder.where()).size(), 2);
                                   } else {
                                     EXPECT_THROW(mora::ShardedTensors(folder.where()),
                                                  mora::FileError);
                                   }
                                 }),
            5);
  EXPECT_EQ(mora::ShardedTensors(folder.where()).size(), 2);
}

}  // namespace
}  // namespace mora_tests
