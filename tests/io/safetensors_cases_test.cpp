// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <mora/io/safetensors.hpp>
#include <optional>
#include <string>

#include "support/files.hpp"
#include "support/safetensors_cases.hpp"
#include "support/sanitizers.hpp"
#include "support/throws.hpp"

/// \file
/// Headers, good and bad: cases 86 to 111 of docs/bad_inputs.md, those of support/safetensors_cases
/// and larger ones.

namespace mora_tests {
namespace {

using mora::FileAccess;
using mora::FormatError;
using mora::SafetensorsFile;

/// Whether a file is refused, however it is opened, with the text.
[[nodiscard]] testing::AssertionResult refused(std::string_view bytes, std::string_view fault) {
  const auto memory = throws<FormatError>({"memory", fault}, [&] { use(in_memory(bytes)); });
  if (!memory || bytes.empty()) return memory;
  const TemporaryFolder folder;
  write_file(folder / "file", bytes);
  for (const FileAccess access : {FileAccess::mapped, FileAccess::copied}) {
    const auto result = throws<FormatError>({(folder / "file").string(), fault},
                                            [&] { use(SafetensorsFile(folder / "file", access)); });
    if (!result) return result;
  }
  return testing::AssertionSuccess();
}

TEST(SafetensorsCases, EndAsTheyShould) {
  int good = 0;
  for (const FileCase& test : safetensors_cases()) {
    SCOPED_TRACE(test.name);
    if (test.fault.empty()) {
      ++good;
      EXPECT_NO_THROW(use(in_memory(test.bytes)));
      const TemporaryFolder folder;
      write_file(folder / "file", test.bytes);
      EXPECT_NO_THROW(use(SafetensorsFile(folder / "file")));
      EXPECT_NO_THROW(use(SafetensorsFile(folder / "file", FileAccess::copied)));
    } else {
      EXPECT_TRUE(refused(test.bytes, test.fault));
    }
  }
  EXPECT_GE(good, 20);
}

TEST(SafetensorsCases, RefuseAnEmptyFile) {
  EXPECT_TRUE(refused("", "expected at least 8 bytes, found 0"));
  const TemporaryFolder folder;
  write_file(folder / "file", "");
  EXPECT_TRUE(throws<FormatError>({"file: expected a file with contents"},
                                  [&] { SafetensorsFile(folder / "file"); }));
}

// 93: neither the parser nor what it leaves behind needs stack for depth.
TEST(SafetensorsCases, NeedNoStackForDepth) {
  constexpr int depth = 200'000;
  const std::string entry = R"({"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":)";
  const std::string fault = "expected values at most 127 deep";
  EXPECT_TRUE(refused(one_entry(entry + nested("[", "", "]", depth) + "}"), fault));
  EXPECT_TRUE(refused(one_entry(entry + nested("{\"y\":", "1", "}", depth) + "}"), fault));
  EXPECT_TRUE(refused(one_entry(entry + nested("[", "", "", depth)), fault));
  EXPECT_TRUE(refused(with_header(nested("[", "", "]", depth)), "expected an object"));
  EXPECT_TRUE(refused(with_header("{\"__metadata__\":{\"a\":" + nested("[", "", "]", depth) + "}}"),
                      "expected a string"));
}

// 102: a header of 6 MB.
TEST(SafetensorsCases, OfManyNamesOnOneSpanAreRefused) {
  const std::string bytes = with_header(many_names_on_one_span(), std::string(16, 'x'));
  ASSERT_GT(bytes.size(), 6'000'000u);
  EXPECT_TRUE(throws<FormatError>({"tensor 'tensor.1'", "'tensor.0'", "overlap"},
                                  [&] { (void)in_memory(bytes); }));
}

// 108: and a tensor that is looked up among many.
TEST(SafetensorsCases, MayHaveALongName) {
  const std::string name(1'000'000, 'n');
  const SafetensorsFile file = in_memory(
      with_header("{\"" + name + R"(":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "abcd"));
  use(file);
  EXPECT_EQ(file.tensors().at(0).name(), name);
  // Messages stay short.
  try {
    file.tensor(name).require_shape({5});
    ADD_FAILURE() << "throws nothing";
  } catch (const FormatError& error) {
    EXPECT_LT(std::string_view(error.what()).size(), 500u);
    EXPECT_NE(std::string_view(error.what()).find("(1000000 bytes)"), std::string_view::npos);
  }
}

// On one line, without what a terminal would obey, in whole letters of UTF-8.
TEST(SafetensorsCases, ShowNamesThatDoNoHarm) {
  const auto shown = [](const std::string& name) { return mora::detail::in_quotes(name); };
  EXPECT_EQ(shown("a \xc3\xa9\xf0\x9f\x98\x80"), "'a \xc3\xa9\xf0\x9f\x98\x80'");
  EXPECT_EQ(shown("\n\x1b[2J\x7f"), "'\\x0a\\x1b[2J\\x7f'");
  EXPECT_EQ(shown("\xc2\x9b[2J\xc2\xa0"), "'\\xc2\\x9b[2J\xc2\xa0'");
  for (const std::string letter : {"\xc3\xa9", "\xe6\xbc\xa2", "\xf0\x9f\x98\x80"}) {
    for (std::size_t before = 195; before <= 201; ++before) {
      const std::string name = std::string(before, 'x') + letter + "to the end";
      const bool is_cut = before < 200 && before + letter.size() > 200;
      EXPECT_EQ(shown(name), "'" + name.substr(0, is_cut ? before : 200) + "'... (" +
                                 std::to_string(name.size()) + " bytes)");
    }
  }
}

// 109
TEST(SafetensorsCases, MayHaveAHeaderOfTheLargestSize) {
  const std::string entry = R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})";
  const auto padded = [&](std::size_t size) {
    return little_endian(size) + entry + std::string(size - entry.size(), ' ') + "abcd";
  };
  const SafetensorsFile file = in_memory(padded(100'000'000));
  EXPECT_EQ(file.tensor("t").bytes().size(), 4u);
  EXPECT_TRUE(throws<FormatError>({"expected at most 100000000 bytes", "100000001"},
                                  [&] { (void)in_memory(padded(100'000'001)); }));
}

/// A file of some 200 bytes with what files have.
[[nodiscard]] std::string small_file() {
  return with_header(R"({"__metadata__":{"format":"pt"},)"
                     R"("b":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                     R"("a":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]}})",
                     "abcdefghijklmn");
}

/// What a reader sees, as text, or nothing for a FormatError. Anything else is passed on.
[[nodiscard]] std::optional<std::string> seen(std::string_view bytes) {
  try {
    const SafetensorsFile file = in_memory(bytes);
    use(file);
    return file_bytes(as_bytes(file.tensors()), file.metadata());
  } catch (const FormatError&) {
    return {};
  }
}

// 111: what still loads is another file, whose change is seen: letters of names, dtypes of the same
// size, the numbers themselves. With AddressSanitizer every bit is changed, else to every value;
// fuzzing does the rest.
TEST(SafetensorsCases, SurviveEveryChangeOfAByte) {
  const std::string good = small_file();
  const std::string unchanged = seen(good).value();
  int loaded = 0;
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (int bits = 1; bits < 256; bits = under_address_sanitizer ? 2 * bits : bits + 1) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ bits);
      const auto result = seen(bad);
      if (!result) continue;
      ++loaded;
      EXPECT_NE(*result, unchanged) << "byte " << at << " by " << bits;
      EXPECT_GT(at, 7u) << "the length may have one value alone";
    }
  }
  EXPECT_GT(loaded, 14 * (under_address_sanitizer ? 8 : 255));
}

TEST(SafetensorsCases, SurviveEveryTruncation) {
  const std::string good = small_file();
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(seen(good.substr(0, size))) << size << " bytes";
  }
  EXPECT_FALSE(seen(good + '\0'));
}

}  // namespace
}  // namespace mora_tests
