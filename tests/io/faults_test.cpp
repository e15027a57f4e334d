// SPDX-License-Identifier: MIT
#include "support/faults.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <mora/io/sharded_tensors.hpp>
#include <mora/io/sharded_writer.hpp>
#include <mora/io/write_token_file.hpp>

#include "support/batches.hpp"
#include "support/files.hpp"
#include "support/throws.hpp"

/// \file
/// Every call of the system fails once, is interrupted, or does a part of its work.

namespace mora_tests {
namespace {

using mora::FileAccess;
using mora::FileError;
using mora::TokenFile;
using mora::TokenType;

[[nodiscard]] Tokens make_tokens() {
  Random random(1);
  return random_tokens(random, 20'000, 65536);  // three buffers of the writer
}

[[nodiscard]] Tokens read_tokens(const path& name, FileAccess access) {
  const TokenFile file(name, {.vocabulary = 65536, .access = access});
  Tokens tokens;
  for (Index i = 0; i < file.size(); ++i) tokens.push_back(file[i]);
  return tokens;
}

// The old file is there until the new one is, and nothing else; no descriptor stays open.
TEST(WriteTokenFile, LeavesTheOldFileWhateverFails) {
  const TemporaryFolder folder;
  const Tokens tokens = make_tokens();
  std::vector<std::string> failed;
  for (const int code : {ENOSPC, EIO, EDQUOT}) {
    failed.clear();
    for (int k = 1;; ++k) {
      ASSERT_LT(k, 100);
      SCOPED_TRACE(testing::Message() << "call " << k << ", errno " << code);
      write_file(folder / "tokens", "old");
      const auto files_before = open_files();
      Faults faults{.fail_at = k, .code = code};
      bool thrown = false;
      {
        const FaultyCalls faulty(faults);
        try {
          mora::write_token_file(folder / "tokens", tokens, TokenType::uint16);
        } catch (const FileError& error) {
          thrown = true;
          EXPECT_EQ(error.code().value(), code);
          EXPECT_NE(std::string_view(error.what()).find((folder / "tokens").string()),
                    std::string_view::npos);
          // The one failure behind the renaming says so.
          const bool in_place =
              std::string_view(error.what()).find("is in its place") != std::string_view::npos;
          EXPECT_EQ(in_place, read_file(folder / "tokens") != "old");
        }
      }
      EXPECT_EQ(open_files(), files_before);
      EXPECT_EQ(folder.names(), std::vector<std::string>{"tokens"});
      if (read_file(folder / "tokens") != "old") {
        EXPECT_EQ(read_tokens(folder / "tokens", FileAccess::copied), tokens);
      }
      if (faults.failed.empty()) {
        EXPECT_FALSE(thrown);
        break;
      }
      failed.push_back(faults.failed);
      // All that is left when the folder is closed is done.
      const bool last = faults.failed == "close" && failed.size() > 7;
      EXPECT_EQ(thrown, !last);
      if (testing::Test::HasFailure()) return;
    }
  }
  EXPECT_EQ(failed, (std::vector<std::string>{"open", "pwrite", "pwrite", "pwrite", "fsync",
                                              "close", "rename", "open", "fsync", "close"}));
}

TEST(WriteTokenFile, WritesEveryByteThroughInterruptionsAndPartialWrites) {
  const TemporaryFolder folder;
  const Tokens tokens = make_tokens();
  for (const int every : {0, 2, 3, 5}) {
    for (const int most : {0, 1, 7, 4096}) {
      if (every == 0 && most == 0) continue;
      Faults faults{.interrupt_every = every, .most_bytes = most};
      {
        const FaultyCalls faulty(faults);
        mora::write_token_file(folder / "tokens", tokens, TokenType::uint16);
      }
      EXPECT_GE(faults.calls, 10);
      EXPECT_EQ(read_tokens(folder / "tokens", FileAccess::copied), tokens);
    }
  }
}

// Trying again would succeed without the data being on the disk.
TEST(WriteTokenFile, DoesNotTryAFailedFsyncAgain) {
  const TemporaryFolder folder;
  for (const int code : {EIO, EINTR}) {
    Faults faults{.fail_at = 5, .code = code};
    {
      const FaultyCalls faulty(faults);
      EXPECT_TRUE(throws<FileError>({"cannot bring to the disk"}, [&] {
        mora::write_token_file(folder / "tokens", make_tokens(), TokenType::uint16);
      }));
    }
    EXPECT_EQ(faults.failed, "fsync");
    EXPECT_EQ(folder.names(), std::vector<std::string>());
  }
}

// Where a write makes no progress and gives no reason.
TEST(WriteTokenFile, DoesNotTryForEver) {
  const TemporaryFolder folder;
  Faults faults{.fail_at = 2, .code = 0};
  const FaultyCalls faulty(faults);
  EXPECT_TRUE(throws<FileError>({"cannot write"}, [&] {
    mora::write_token_file(folder / "tokens", make_tokens(), TokenType::uint16);
  }));
}

// Some file systems cannot bring a folder to the disk, and say so.
TEST(WriteTokenFile, WorksWhereFoldersHaveNoFsync) {
  const TemporaryFolder folder;
  Faults faults{.fail_at = 9, .code = EINVAL};
  {
    const FaultyCalls faulty(faults);
    mora::write_token_file(folder / "tokens", make_tokens(), TokenType::uint16);
  }
  EXPECT_EQ(faults.failed, "fsync");
  EXPECT_EQ(read_tokens(folder / "tokens", FileAccess::copied), make_tokens());
}

TEST(MappedFile, ReadsEveryByteThroughInterruptionsAndShortReads) {
  const TemporaryFolder folder;
  mora::write_token_file(folder / "tokens", make_tokens(), TokenType::uint16);
  for (const FileAccess access : {FileAccess::mapped, FileAccess::copied}) {
    for (const int every : {0, 2, 3, 5}) {
      for (const int most : {0, 1, 7, 4096}) {
        Faults faults{.interrupt_every = every, .most_bytes = most};
        const FaultyCalls faulty(faults);
        EXPECT_EQ(read_tokens(folder / "tokens", access), make_tokens());
      }
    }
  }
}

TEST(MappedFile, FailsWithTheSystemsReasonWhateverFails) {
  const TemporaryFolder folder;
  mora::write_token_file(folder / "tokens", make_tokens(), TokenType::uint16);
  const auto failures = [&](FileAccess access) {
    std::vector<std::string> failed;
    for (int k = 1; k < 100; ++k) {
      const auto files_before = open_files();
      Faults faults{.fail_at = k, .code = EIO, .most_bytes = 20'000};
      {
        const FaultyCalls faulty(faults);
        try {
          (void)read_tokens(folder / "tokens", access);
        } catch (const FileError& error) {
          EXPECT_EQ(error.code(), std::errc::io_error);
          EXPECT_NE(std::string_view(error.what()).find((folder / "tokens").string()),
                    std::string_view::npos);
          failed.push_back(faults.failed);
        }
      }
      EXPECT_EQ(open_files(), files_before);
      if (faults.failed.empty()) break;
    }
    return failed;
  };
  EXPECT_EQ(failures(FileAccess::copied),
            (std::vector<std::string>{"open", "fstat", "read", "read"}));
  EXPECT_EQ(failures(FileAccess::mapped), (std::vector<std::string>{"open", "fstat", "mmap"}));
}

// The file became shorter between the look at its size and the reading.
TEST(MappedFile, FailsWhereTheFileEndsBeforeItsSize) {
  const TemporaryFolder folder;
  mora::write_token_file(folder / "tokens", make_tokens(), TokenType::uint16);
  Faults faults{.fail_at = 4, .code = 0, .most_bytes = 30'000};
  const FaultyCalls faulty(faults);
  EXPECT_TRUE(throws<FileError>({"expected 40000 bytes, could read 30000"},
                                [&] { (void)read_tokens(folder / "tokens", FileAccess::copied); }));
}

/// A model of two files, whose tensors are full of this letter.
void write_model(const path& folder, char letter) {
  const std::vector<mora::TensorInfo> infos = {{"a", mora::Dtype::u8, {4}},
                                               {"b", mora::Dtype::u8, {4}}};
  mora::ShardedWriter writer(folder, infos, {.max_shard_bytes = 4});
  const std::string data(4, letter);
  for (const auto& info : writer.tensors()) {
    writer.write(info.name, std::as_bytes(std::span(data)));
  }
  writer.commit();
}

// Never a mixture of both, and no descriptor or temporary file is left. Safetensors files are
// written and read by the calls that the tests above go through.
TEST(ShardedWriter, LeavesTheOldModelTheNewOneOrNoneWhateverFails) {
  const TemporaryFolder folder;
  int kinds[3] = {};
  for (int k = 1;; ++k) {
    ASSERT_LT(k, 100);
    SCOPED_TRACE(testing::Message() << "call " << k);
    write_model(folder.where(), 'o');
    const auto files_before = open_files();
    Faults faults{.fail_at = k, .code = EIO};
    bool thrown = false;
    {
      const FaultyCalls faulty(faults);
      try {
        write_model(folder.where(), 'n');
      } catch (const FileError& error) {
        thrown = true;
        EXPECT_EQ(error.code(), std::errc::io_error) << error.what();
        EXPECT_NE(std::string_view(error.what()).find(folder.where().string()),
                  std::string_view::npos);
      }
    }
    EXPECT_EQ(open_files(), files_before);
    for (const auto& name : folder.names()) EXPECT_TRUE(name.starts_with("model")) << name;
    std::string found;
    try {
      for (const auto& tensor : mora::ShardedTensors(folder.where()).tensors()) {
        found += static_cast<char>(tensor.bytes()[3]);
      }
    } catch (const FileError&) {
    }
    EXPECT_TRUE(found == "oo" || found == "nn" || (found.empty() && thrown)) << found;
    ++kinds[found.empty() ? 0 : found == "oo" ? 1 : 2];
    if (testing::Test::HasFailure()) return;
    if (faults.failed.empty()) {
      EXPECT_FALSE(thrown);
      break;
    }
  }
  for (const int kind : kinds) EXPECT_GT(kind, 0);
}

// Whatever fails before anything has changed can be done again, and is done right.
TEST(ShardedWriter, WritesTheSameWhenAskedAgain) {
  const TemporaryFolder folder;
  const std::vector<mora::TensorInfo> infos = {{"a", mora::Dtype::u8, {4}},
                                               {"b", mora::Dtype::u8, {4}}};
  mora::ShardedWriter writer(folder.where(), infos, {.max_shard_bytes = 4});
  const auto write = [&](const char* name) {
    writer.write(name, std::as_bytes(std::span("abcd", 4)));
  };
  write("a");
  Faults faults{.fail_at = 1, .code = EMFILE};  // of opening the second file
  {
    const FaultyCalls faulty(faults);
    EXPECT_THROW(write("b"), FileError);
  }
  EXPECT_EQ(faults.failed, "open");
  EXPECT_TRUE(throws<mora::StateError>({"tensor 'b': expected 4 bytes, found 0"},
                                       [&] { writer.commit(); }));
  write("b");
  writer.commit();
  EXPECT_EQ(mora::ShardedTensors(folder.where()).size(), 2);
  // What is in its place stays there.
  EXPECT_TRUE(
      throws<mora::StateError>({folder.where().string(), "committed"}, [&] { writer.commit(); }));
  EXPECT_EQ(mora::ShardedTensors(folder.where()).size(), 2);
}

TEST(SafetensorsFile, FailsWithTheSystemsReasonWhateverFails) {
  const TemporaryFolder folder;
  write_model(folder.where(), 'o');
  for (int k = 1; k < 100; ++k) {
    const auto files_before = open_files();
    Faults faults{.fail_at = k, .code = EIO, .most_bytes = 20};
    {
      const FaultyCalls faulty(faults);
      try {
        const mora::ShardedTensors model(folder.where(), {.access = FileAccess::copied});
      } catch (const FileError& error) {
        EXPECT_EQ(error.code(), std::errc::io_error);
      }
    }
    EXPECT_EQ(open_files(), files_before);
    if (faults.failed.empty()) return;
  }
  ADD_FAILURE() << "no end of calls";
}

}  // namespace
}  // namespace mora_tests
