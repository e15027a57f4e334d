// SPDX-License-Identifier: MIT
#include "support/threads.hpp"

#include <gtest/gtest.h>

#include <mora/io/json_lines.hpp>
#include <mora/io/write_token_file.hpp>
#include <mora/train/batches.hpp>
#include <mora/train/token_windows.hpp>

#include "support/batches.hpp"
#include "support/files.hpp"

namespace mora_tests {
namespace {

using mora::TokenFile;
using mora::TokenType;

TEST(TokenFile, IsReadByEightThreadsAtOnce) {
  const TemporaryFolder folder;
  Random random(1);
  const Tokens tokens = random_tokens(random, 5000, 300);
  mora::write_token_file(folder / "tokens", tokens, TokenType::uint16);
  const TokenFile file(folder / "tokens", {.vocabulary = 300});
  const mora::TokenWindows windows(file, {.length = 64});
  Batch expected;
  for (Index i = 0; i < windows.size(); ++i) windows.add_to(i, expected);
  std::vector<Batch> batches(thread_count);
  on_eight_threads([&](std::size_t thread) {
    const TokenFile copy = file;
    for (Index i = 0; i < windows.size(); ++i) windows.add_to(i, batches[thread]);
    if (copy[17] != tokens[17]) batches[thread].clear();
  });
  for (const Batch& batch : batches) EXPECT_EQ(batch, expected);
}

// One of them wins, whole, and nothing stays beside it.
TEST(WriteTokenFile, ByEightThreadsToOneNameLeavesOneWholeFile) {
  const TemporaryFolder folder;
  for (int turn = 0; turn < 20; ++turn) {
    on_eight_threads([&](std::size_t thread) {
      mora::write_token_file(folder / "tokens", Tokens(10'000, Token(thread)), TokenType::uint16);
    });
    const TokenFile file(folder / "tokens", {.vocabulary = Index(thread_count)});
    ASSERT_EQ(file.size(), 10'000);
    for (Index i = 0; i < file.size(); ++i) ASSERT_EQ(file[i], file[0]);
    EXPECT_EQ(folder.names(), std::vector<std::string>{"tokens"});
  }
}

TEST(AtomicFile, HasRoomForEightThreads) {
  const TemporaryFolder folder;
  constexpr std::size_t pieces = 100;
  mora::AtomicFile file(folder / "file");
  const mora::AtomicFile::Room room = file.leave(thread_count * pieces);
  on_eight_threads([&](std::size_t thread) {
    const char letter = static_cast<char>('a' + thread);
    for (std::size_t i = 0; i < pieces; ++i) {
      room.write(i * thread_count + thread, std::as_bytes(std::span(&letter, 1)));
    }
  });
  file.commit();
  std::string expected;
  for (std::size_t i = 0; i < pieces; ++i) expected += "abcdefgh";
  EXPECT_EQ(read_file(folder / "file"), expected);
}

TEST(JsonLines, AreReadByEightThreadsAtOnce) {
  const TemporaryFolder folder;
  std::string lines;
  for (int i = 0; i < 200; ++i) lines += "{\"prompt\": \"a\", \"response\": \"b\"}\n";
  write_file(folder / "data.jsonl", lines);
  std::vector<std::size_t> sizes(thread_count);
  on_eight_threads([&](std::size_t thread) {
    sizes[thread] = mora::read_json_lines(folder / "data.jsonl").size();
  });
  EXPECT_EQ(sizes, std::vector<std::size_t>(thread_count, 200));
}

}  // namespace
}  // namespace mora_tests
