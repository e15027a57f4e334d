// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <mora/io/peft/module_pattern.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "support/files.hpp"
#include "support/throws.hpp"

/// \file
/// Regular expressions for names of modules, against Python's answers (fixtures/README.md), and
/// those that would take others forever.

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::ModulePattern;

/// What fixtures/make_module_patterns.py wrote.
const nlohmann::json& python_answers() {
  static const auto answers =
      nlohmann::json::parse(read_file(path(MORA_FIXTURES) / "module_patterns.json"));
  return answers;
}

testing::AssertionResult is_no_pattern(const std::string& text,
                                       std::initializer_list<std::string_view> parts) {
  return throws<ArgumentError>(parts, [&] { (void)ModulePattern(text); });
}

TEST(ModulePatterns, MatchWhatPythonMatches) {
  const auto names = python_answers().at("names").get<std::vector<std::string>>();
  for (const auto& row : python_answers().at("patterns")) {
    const ModulePattern pattern(row.at(0).get<std::string>());
    std::string found;
    for (const std::string& name : names) found += pattern.matches(name) ? '1' : '0';
    EXPECT_EQ(found, row.at(1).get<std::string>()) << pattern.text();
  }
}

TEST(ModulePatterns, OfWrongSyntaxAreRefused) {
  for (const auto& wrong : python_answers().at("wrong")) {
    EXPECT_TRUE(is_no_pattern(wrong.get<std::string>(), {"pattern '", "position "})) << wrong;
  }
}

TEST(ModulePatterns, ThatAreNotSupportedAreRefusedWithTheirPlace) {
  for (const auto& row : python_answers().at("refused")) {
    const std::string place = ", position " + row.at(1).dump() + ": ";
    EXPECT_TRUE(is_no_pattern(row.at(0).get<std::string>(), {"pattern '", place})) << row;
  }
  EXPECT_TRUE(is_no_pattern("a(?=b)", {"position 1: '(?=', a look-ahead, is not supported"}));
  EXPECT_TRUE(is_no_pattern("(?P<a>b)(?P=a)", {"'(?P=', a back-reference, is not supported"}));
  EXPECT_TRUE(is_no_pattern("a{2}+", {"'{2}+', a possessive quantifier, is not supported"}));
  EXPECT_TRUE(is_no_pattern("\\bq", {"'\\b', a boundary of words, is not supported"}));
}

TEST(ModulePatterns, KnowNothingOfOtherCharactersThanAscii) {
  EXPECT_FALSE(ModulePattern(".*").matches("\xc3\xa4"));
  EXPECT_FALSE(ModulePattern("[^a]+").matches("b\xff"));
}

// (a*)* and its like have endlessly many ways through one name.
TEST(ModulePatterns, TakeTheirStatesTimesTheNameAtMost) {
  const std::string name(10'000, 'a');
  for (const char* const text : {"(.*)*q_proj", "(.*)+(.*)+_proj", "(a*)*b", "(a|a)*b", "(a|aa)+b",
                                 "((a*)*)*b", "(a?){200}a{200}b", "(.*a){30}b", "(|a|(|a)*)*b"}) {
    const ModulePattern pattern(text);
    EXPECT_FALSE(pattern.matches(name)) << text;
    EXPECT_FALSE(pattern.matches(name + "_proj2")) << text;
  }
  EXPECT_TRUE(ModulePattern("(.*)*q_proj").matches(name + "q_proj"));
  EXPECT_TRUE(ModulePattern("((a*)*)*b").matches(name + "b"));
}

// No call for each bracket: the stack would not do for these.
TEST(ModulePatterns, AreAsDeepAsTheyAreLong) {
  const auto times = [](int count, const std::string& text) {
    std::string all;
    for (int i = 0; i < count; ++i) all += text;
    return all;
  };
  EXPECT_TRUE(is_no_pattern(times(4096, "("), {"position 4095", "expected a ')'"}));
  EXPECT_TRUE(is_no_pattern(times(4096, "["), {"position 0", "expected a ']'"}));
  EXPECT_TRUE(ModulePattern(times(2000, "(") + 'a' + times(2000, ")")).matches("a"));
  const ModulePattern stars(times(1300, "(") + 'a' + times(1300, ")*"));
  EXPECT_TRUE(stars.matches("aaaa"));
  EXPECT_FALSE(stars.matches("aaab"));
  const ModulePattern ways(times(1000, "(|") + 'a' + times(1000, ")"));
  EXPECT_TRUE(ways.matches(""));
  EXPECT_TRUE(ways.matches("a"));
  EXPECT_FALSE(ways.matches("aa"));
}

TEST(ModulePatterns, BeyondTheirLimitsAreRefused) {
  EXPECT_TRUE(ModulePattern(std::string(4096, 'a')).matches(std::string(4096, 'a')));
  for (const char each : {'a', '(', '['}) {
    EXPECT_TRUE(is_no_pattern(std::string(4097, each), {"at most 4096 characters, found 4097"}));
  }
  EXPECT_EQ(ModulePattern("a{20000}").states(), 20'000);
  EXPECT_TRUE(is_no_pattern("a{20000}b", {"position 8", "at most 20000 states", "found 20001"}));
  EXPECT_TRUE(is_no_pattern("(a{200}){200}", {"at most 20000 states", "found 40000"}));
  EXPECT_TRUE(is_no_pattern("(a|b){7000}", {"at most 20000 states", "found 28000"}));
  EXPECT_TRUE(is_no_pattern("a{99999999999999999999}",
                            {"a count of at most 20000, found '99999999999999999999'"}));
  EXPECT_TRUE(is_no_pattern("a{0,20001}", {"a count of at most 20000, found '20001'"}));
  EXPECT_TRUE(ModulePattern("((){20000}){20000}").matches(""));
}

}  // namespace
}  // namespace mora_tests
