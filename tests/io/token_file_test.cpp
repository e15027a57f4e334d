// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>
#include <mora/io/text_file.hpp>
#include <mora/io/write_token_file.hpp>
#include <mora/train/batches.hpp>
#include <mora/train/byte_tokenizer.hpp>
#include <mora/train/token_windows.hpp>

#include "support/batches.hpp"
#include "support/files.hpp"
#include "support/throws.hpp"

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::FileAccess;
using mora::FormatError;
using mora::TokenFile;
using mora::TokenFileSettings;
using mora::TokenType;
using mora::write_token_file;

constexpr TokenType types[] = {TokenType::uint16, TokenType::uint32};
constexpr Index huge = std::numeric_limits<Index>::max();

[[nodiscard]] Tokens all_of(const TokenFile& file) {
  Tokens tokens;
  for (Index i = 0; i < file.size(); ++i) tokens.push_back(file[i]);
  return tokens;
}

TEST(TokenFile, IsLittleEndianNumbersAndNothingElse) {
  const TemporaryFolder folder;
  write_token_file(folder / "16", Tokens{1, 0x1234, 0xffff}, TokenType::uint16);
  EXPECT_EQ(read_file(folder / "16"), std::string("\x01\x00\x34\x12\xff\xff", 6));
  write_token_file(folder / "32", Tokens{1, 0x12345678}, TokenType::uint32);
  EXPECT_EQ(read_file(folder / "32"), std::string("\x01\x00\x00\x00\x78\x56\x34\x12", 8));
  EXPECT_EQ(all_of(TokenFile(folder / "16", {.type = TokenType::uint16, .vocabulary = 65536})),
            (Tokens{1, 0x1234, 0xffff}));
  EXPECT_EQ(all_of(TokenFile(folder / "32",
                             {.type = TokenType::uint32, .vocabulary = mora::max_vocabulary})),
            (Tokens{1, 0x12345678}));
}

// Around the sizes of the writer's buffer and of the reader's stretches.
TEST(TokenFile, GivesBackWhatWasWritten) {
  const TemporaryFolder folder;
  Random random(1);
  for (const TokenType type : types) {
    const Index vocabulary = type == TokenType::uint16 ? 65536 : mora::max_vocabulary;
    for (const Index size : {1, 2, 4095, 4096, 4097, 8191, 8192, 8193, 20'000}) {
      const Tokens tokens = random_tokens(random, size, vocabulary);
      write_token_file(folder / "tokens", tokens, type);
      for (const FileAccess access : {FileAccess::mapped, FileAccess::copied}) {
        const TokenFile file(folder / "tokens",
                             {.type = type, .vocabulary = vocabulary, .access = access});
        EXPECT_EQ(file.size(), size);
        EXPECT_EQ(all_of(file), tokens);
      }
    }
  }
  EXPECT_EQ(folder.names(), std::vector<std::string>{"tokens"});
}

TEST(TokenFile, RefusesTokensOutsideTheVocabularyWithTheFirstPosition) {
  const TemporaryFolder folder;
  for (const TokenType type : types) {
    for (const Index wrong : {0, 1, 4095, 4096, 8191, 9999}) {
      Tokens tokens(10'000, 999);
      write_token_file(folder / "tokens", tokens, type);
      const TokenFile file(folder / "tokens", {.type = type, .vocabulary = 1000});
      tokens[std::size_t(wrong)] = 1000;
      tokens.back() = 5000;
      if (wrong == 9999) tokens.back() = 1000;
      write_token_file(folder / "tokens", tokens, type);
      for (const FileAccess access : {FileAccess::mapped, FileAccess::copied}) {
        EXPECT_TRUE(throws<FormatError>(
            {(folder / "tokens").string(), "token " + std::to_string(wrong) + ": ",
             "expected 0 to 999, found 1000"},
            [&] {
              TokenFile(folder / "tokens", {.type = type, .vocabulary = 1000, .access = access});
            }));
      }
      EXPECT_EQ(file[wrong], 999);
    }
  }
}

// Numbers that a Token cannot hold, too.
TEST(TokenFile, RefusesNumbersBeyondAToken) {
  const TemporaryFolder folder;
  write_file(folder / "tokens", std::string("\0\0\0\0\xff\xff\xff\x7f\0\0\0\x80", 12));
  const TokenFileSettings settings{.type = TokenType::uint32, .vocabulary = mora::max_vocabulary};
  EXPECT_TRUE(throws<FormatError>({"token 2: expected 0 to 2147483647, found 2147483648"},
                                  [&] { TokenFile(folder / "tokens", settings); }));
  write_file(folder / "tokens", std::string("\xff\xff\xff\xff", 4));
  EXPECT_TRUE(throws<FormatError>({"token 0: ", "found 4294967295"},
                                  [&] { TokenFile(folder / "tokens", settings); }));
}

TEST(TokenFile, RefusesASizeThatIsNoNumberOfTokens) {
  const TemporaryFolder folder;
  for (const auto& [size, type] : {std::pair(1, TokenType::uint16), std::pair(7, TokenType::uint16),
                                   std::pair(2, TokenType::uint32), std::pair(7, TokenType::uint32),
                                   std::pair(9, TokenType::uint32)}) {
    write_file(folder / "tokens", std::string(std::size_t(size), '\0'));
    EXPECT_TRUE(throws<FormatError>(
        {(folder / "tokens").string(), type == TokenType::uint16 ? "a multiple of 2" : "of 4",
         "found " + std::to_string(size)},
        [&, t = type] { TokenFile(folder / "tokens", {.type = t, .vocabulary = 5}); }));
  }
  write_file(folder / "tokens", "");
  EXPECT_TRUE(throws<FormatError>({"found an empty one"},
                                  [&] { TokenFile(folder / "tokens", {.vocabulary = 5}); }));
}

TEST(TokenFile, RefusesPositionsThatItDoesNotHave) {
  const TemporaryFolder folder;
  write_token_file(folder / "tokens", Tokens{1, 2, 3}, TokenType::uint16);
  TokenFile file(folder / "tokens", {.vocabulary = 5});
  for (const Index position : {Index{-1}, Index{3}, huge, -huge}) {
    EXPECT_TRUE(throws<ArgumentError>({"position: expected 0 <= position < 3, found "},
                                      [&] { (void)file[position]; }));
  }
  const TokenFile moved = std::move(file);
  EXPECT_EQ(moved[0], 1);
  EXPECT_EQ(file.size(), 0);  // NOLINT(bugprone-use-after-move)
  EXPECT_THROW((void)file[0], ArgumentError);
}

TEST(TokenFile, RefusesSettingsThatCannotBe) {
  const TemporaryFolder folder;
  write_token_file(folder / "tokens", Tokens{1, 2, 3}, TokenType::uint16);
  for (const Index vocabulary : {Index{0}, Index{-1}, mora::max_vocabulary + 1, huge}) {
    EXPECT_TRUE(throws<ArgumentError>({"vocabulary: expected 1 to 2147483648, found "}, [&] {
      TokenFile(folder / "tokens", {.vocabulary = vocabulary});
    }));
  }
  const auto other = static_cast<TokenType>(7);
  EXPECT_TRUE(throws<ArgumentError>({"type: ", "found 7"}, [&] {
    TokenFile(folder / "tokens", {.type = other, .vocabulary = 5});
  }));
  EXPECT_TRUE(throws<ArgumentError>(
      {"type: ", "found 7"}, [&] { write_token_file(folder / "tokens", Tokens{1}, other); }));
}

TEST(WriteTokenFile, RefusesWhatTheTypeCannotHoldBeforeItWrites) {
  const TemporaryFolder folder;
  write_file(folder / "tokens", "old");
  constexpr Token largest = std::numeric_limits<Token>::max();
  const auto refused = [&](const Tokens& tokens, TokenType type, const char* expected) {
    return throws<ArgumentError>({expected, "found " + std::to_string(tokens.back())},
                                 [&] { write_token_file(folder / "tokens", tokens, type); });
  };
  EXPECT_TRUE(refused({1, 65536}, TokenType::uint16, "token 1: expected 0 to 65535"));
  EXPECT_TRUE(refused({1, 2, largest}, TokenType::uint16, "token 2: expected 0 to 65535"));
  EXPECT_TRUE(refused({-1}, TokenType::uint16, "token 0: expected 0 to 65535"));
  EXPECT_TRUE(refused({-largest - 1}, TokenType::uint32, "token 0: expected 0 to 2147483647"));
  EXPECT_TRUE(throws<ArgumentError>({"tokens: expected at least 1, found 0"}, [&] {
    write_token_file(folder / "tokens", Tokens(), TokenType::uint16);
  }));
  EXPECT_EQ(read_file(folder / "tokens"), "old");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"tokens"});
}

TEST(WriteTokenFile, WritesOverTheFileThatItReads) {
  const TemporaryFolder folder;
  Random random(2);
  const Tokens tokens = random_tokens(random, 30'000, 60'000);
  write_token_file(folder / "tokens", tokens, TokenType::uint16);
  const TokenFile file(folder / "tokens", {.vocabulary = 60'000});
  write_token_file(folder / "tokens", file, TokenType::uint32);
  EXPECT_EQ(all_of(file), tokens);
  EXPECT_EQ(all_of(TokenFile(folder / "tokens", {.type = TokenType::uint32, .vocabulary = 60'000})),
            tokens);
}

TEST(TokenFile, GivesTheBatchesOfItsTokens) {
  const TemporaryFolder folder;
  Random random(3);
  const Tokens tokens = random_tokens(random, 1000, 300);
  write_token_file(folder / "tokens", tokens, TokenType::uint16);
  const TokenFile file(folder / "tokens", {.vocabulary = 300});
  mora::Batches of_file(mora::TokenWindows(file, {.length = 32}), {.batch_size = 4, .seed = 1});
  mora::Batches of_memory(mora::TokenWindows(tokens, {.length = 32}), {.batch_size = 4, .seed = 1});
  for (int step = 0; step < 20; ++step) {
    const Batch& batch = of_file.next();
    EXPECT_EQ(batch, of_memory.next());
    batch.validate(300);
  }
}

TEST(ReadTextTokens, AreTheBytesOfTheFile) {
  const TemporaryFolder folder;
  const std::string text("\xef\xbb\xbfline\r\nh\xc3\xa9\0\xff\n", 15);
  write_file(folder / "text", text);
  const mora::ByteTokenizer tokenizer;
  const Tokens tokens = mora::read_text_tokens(folder / "text", tokenizer);
  EXPECT_EQ(tokens.size(), text.size());
  EXPECT_EQ(tokenizer.decode(tokens), text);
}

TEST(ReadTextTokens, RefuseAnEmptyFileAndAMissingOne) {
  const TemporaryFolder folder;
  write_file(folder / "empty", "");
  const mora::ByteTokenizer tokenizer;
  EXPECT_TRUE(throws<FormatError>({"empty: ", "found an empty one"}, [&] {
    (void)mora::read_text_tokens(folder / "empty", tokenizer);
  }));
  EXPECT_TRUE(throws<mora::FileError>({"missing: cannot open: ", "errno 2"}, [&] {
    (void)mora::read_text_tokens(folder / "missing", tokenizer);
  }));
}

}  // namespace
}  // namespace mora_tests
