// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <initializer_list>
#include <mora/io/gguf.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "support/files.hpp"
#include "support/throws.hpp"

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::GgufTensor;
using namespace std::string_literals;

TEST(Gguf, IsWrittenByteForByteAsTheFormatSays) {
  const TemporaryFolder folder;
  const auto path = folder / "a.gguf";
  const std::array<float, 6> matrix = {1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f};
  const std::array<float, 1> one = {-0.5f};
  mora::write_gguf(path, {{"k", "text"}, {"f", 0.0f}, {"u", std::uint32_t{258}}},
                   {{"ab", {3, 2}, matrix}, {"c", {1}, one}});
  std::string expected =
      "GGUF\3\0\0\0\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0"s                // version, tensors, keys
      "\1\0\0\0\0\0\0\0k\x08\0\0\0\4\0\0\0\0\0\0\0text"s             // a string
      "\1\0\0\0\0\0\0\0f\6\0\0\0\0\0\0\0"s                           // a float
      "\1\0\0\0\0\0\0\0u\4\0\0\0\2\1\0\0"s                           // a number
      "\2\0\0\0\0\0\0\0ab\2\0\0\0\3\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0"s  // name, sizes
      "\0\0\0\0\0\0\0\0\0\0\0\0"s                                    // type, offset
      "\1\0\0\0\0\0\0\0c\1\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0\0\0\0\0"s;
  expected.resize((expected.size() + 31) / 32 * 32, '\0');
  expected += "\0\0\x80?\0\0\0@\0\0@@\0\0\x80@\0\0\xa0@\0\0\xc0@"s + "\0\0\0\0\0\0\0\0"s;
  expected += "\0\0\0\xbf"s + std::string(28, '\0');
  EXPECT_EQ(read_file(path), expected);
}

TEST(Gguf, RefusesWhatOtherReadersWould) {
  const TemporaryFolder folder;
  const auto path = folder / "a.gguf";
  const std::array<float, 6> six{};
  const auto refused = [&](const std::vector<GgufTensor>& tensors,
                           std::initializer_list<std::string_view> words) {
    EXPECT_TRUE(throws<ArgumentError>(words, [&] { mora::write_gguf(path, {}, tensors); }));
    EXPECT_FALSE(std::filesystem::exists(path));
  };
  refused({{"", {6}, six}}, {"1 to 63", "found 0"});
  refused({{std::string(64, 'a'), {6}, six}}, {"1 to 63", "found 64"});
  refused({{"a", {}, six}}, {"'a'", "dimensions", "found 0"});
  refused({{"a", {1, 1, 1, 1, 6}, six}}, {"'a'", "dimensions", "found 5"});
  refused({{"a", {5}, six}}, {"'a'", "numbers", "found 6"});
  refused({{"a", {3, 3}, six}}, {"'a'", "numbers", "found 6"});
  refused({{"a", {0}, {}}}, {"'a'", "at least 1", "found 0"});
  refused({{"a", {6}, {}}}, {"'a'", "numbers", "found 0"});
  refused({{"a", {mora::Index{1} << 62, 6}, six}}, {"'a'", "numbers", "found 6"});
  refused({{"a", {6}, six}, {"a", {6}, six}}, {"'a'", "twice"});
  EXPECT_TRUE(throws<ArgumentError>({"key", "'k'", "twice"}, [&] {
    mora::write_gguf(path, {{"k", 0.0f}, {"k", 1.0f}}, {});
  }));
  const auto refused_key = [&](const std::string& key, const mora::GgufValue& value,
                               std::initializer_list<std::string_view> words) {
    EXPECT_TRUE(throws<ArgumentError>(words, [&] { mora::write_gguf(path, {{key, value}}, {}); }));
    EXPECT_FALSE(std::filesystem::exists(path));
  };
  refused_key("", 0.0f, {"1 to 65535", "found 0"});
  refused_key(std::string(65'536, 'a'), 0.0f, {"1 to 65535", "found 65536"});
  for (const char* key : {"a b", "a\n", "A", ".a", "a.", "a..b", "\xc3\xa4"}) {
    refused_key(key, 0.0f, {"key", "lower-case"});
  }
  refused_key("general.alignment", std::uint32_t{64}, {"alignment", "32"});
  refused_key("general.alignment", 32.0f, {"alignment", "32"});
  EXPECT_NO_THROW(mora::write_gguf(
      path, {{"general.alignment", std::uint32_t{32}}, {"command-r.a_1", 0.0f}}, {}));
  const std::array<float, 1> one{};
  EXPECT_NO_THROW(mora::write_gguf(path, {}, {{std::string(63, 'a'), {1, 1, 1, 1}, one}}));
}

}  // namespace
}  // namespace mora_tests
