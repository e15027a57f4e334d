// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <mora/io/json_lines.hpp>
#include <mora/train/byte_tokenizer.hpp>
#include <mora/train/prompt_responses.hpp>
#include <ostream>

#include "support/files.hpp"
#include "support/throws.hpp"

namespace mora {

inline bool operator==(const TextExample& a, const TextExample& b) {
  return a.prompt == b.prompt && a.response == b.response && a.line == b.line;
}
inline void PrintTo(const TextExample& example, std::ostream* stream) {
  *stream << example.line << ": '" << example.prompt << "', '" << example.response << "'";
}

}  // namespace mora

namespace mora_tests {
namespace {

using mora::FormatError;
using mora::JsonLinesSettings;
using Examples = std::vector<mora::TextExample>;

const std::string good = R"({"prompt": "a", "response": "b"})";

/// The examples of a file of these bytes.
[[nodiscard]] Examples parse(std::string_view bytes, const JsonLinesSettings& settings = {}) {
  const TemporaryFolder folder;
  write_file(folder / "data.jsonl", bytes);
  return mora::read_json_lines(folder / "data.jsonl", settings);
}

/// Whether a bad line, as the second of three, is refused with file, line and the text.
[[nodiscard]] testing::AssertionResult refused(std::string_view line, std::string_view text = "") {
  const std::string bytes = good + "\n" + std::string(line) + "\n" + good + "\n";
  return throws<FormatError>({"data.jsonl, line 2: ", text}, [&] { (void)parse(bytes); });
}

TEST(JsonLines, AreExamples) {
  EXPECT_EQ(parse(good + "\n"), (Examples{{"a", "b", 1}}));
  EXPECT_EQ(parse(good + "\n{\"response\":\"\",\"prompt\":\"\"}\n" + good),
            (Examples{{"a", "b", 1}, {"", "", 2}, {"a", "b", 3}}));
}

TEST(JsonLines, ReadEscapesAndText) {
  EXPECT_EQ(parse(R"({"prompt": "\u00e9\n\"\ud83d\ude00", "response": ")"
                  "h\xc3\xa9\xf0\x9f\x98\x80\"}\n"),
            (Examples{{"\xc3\xa9\n\"\xf0\x9f\x98\x80", "h\xc3\xa9\xf0\x9f\x98\x80", 1}}));
  EXPECT_EQ(parse(R"({"pro\u006dpt": "a\u0000b", "response": "c"})"),
            (Examples{{std::string("a\0b", 3), "c", 1}}));
}

TEST(JsonLines, OfQuestionsAndAnswers) {
  EXPECT_EQ(parse(R"({"question": "2 + 2", "answer": "4"})",
                  {.prompt = {"question"}, .response = "answer"}),
            (Examples{{"2 + 2", "4", 1}}));
}

TEST(JsonLines, OfInstructionsWithInputs) {
  const JsonLinesSettings alpaca{.prompt = {"instruction", "input"}, .response = "output"};
  const std::string bytes = R"({"instruction": "Add.", "input": "2, 2", "output": "4"})"
                            "\n"
                            R"({"output": "Hello.", "input": "", "instruction": "Greet."})"
                            "\n"
                            R"({"instruction": "", "input": "x", "output": "y"})";
  EXPECT_EQ(parse(bytes, alpaca),
            (Examples{{"Add.\n2, 2", "4", 1}, {"Greet.", "Hello.", 2}, {"x", "y", 3}}));
  JsonLinesSettings with_space = alpaca;
  with_space.separator = " | ";
  EXPECT_EQ(parse(bytes, with_space)[0].prompt, "Add. | 2, 2");
  EXPECT_TRUE(throws<FormatError>({"line 1: expected a key 'input', found none"}, [&] {
    (void)parse(R"({"instruction": "Greet.", "output": "Hello."})", alpaca);
  }));
}

// Whatever they are, keys below other keys too.
TEST(JsonLines, DoNotLookAtOtherKeys) {
  EXPECT_EQ(
      parse(R"({"id": 7, "prompt": "a", "meta": {"prompt": 1, "x": [{"response": null}, []]},)"
            R"( "response": "b", "more": [1.5, -2, true, "prompt", {"prompt": 2}]})"),
      (Examples{{"a", "b", 1}}));
}

TEST(JsonLines, MayEndInABlankLine) {
  const Examples expected = {{"a", "b", 1}};
  for (const char* const end : {"", "\n", "\r\n", "\n\n", "\r\n\r\n", "\n \t\n", "\n\n\n", "\n "}) {
    EXPECT_EQ(parse(good + end), expected);
  }
  EXPECT_EQ(parse(good + "\r\n" + good + "\r\n"), (Examples{{"a", "b", 1}, {"a", "b", 2}}));
  EXPECT_TRUE(refused("", "expected an object, found nothing"));
  EXPECT_TRUE(refused(" \t\r", "expected an object, found nothing"));
  EXPECT_TRUE(throws<FormatError>({"data.jsonl, line 1: ", "found nothing"},
                                  [] { (void)parse("\n" + good); }));
  EXPECT_TRUE(
      throws<FormatError>({"data.jsonl, line 2: "}, [] { (void)parse(good + "\n\n\n" + good); }));
}

TEST(JsonLines, RefuseAFileWithoutExamples) {
  EXPECT_TRUE(throws<FormatError>({"data.jsonl: ", "found an empty one"}, [] { (void)parse(""); }));
  for (const char* const blank : {"\n", " ", "\r\n\n", "\n\n\n"}) {
    EXPECT_TRUE(throws<FormatError>({"data.jsonl: expected at least one example, found 0"},
                                    [&] { (void)parse(blank); }));
  }
}

TEST(JsonLines, RefuseWhatIsNoObject) {
  EXPECT_TRUE(refused("[]", "expected an object, found an array"));
  EXPECT_TRUE(refused("[" + good + "]", "expected an object, found an array"));
  EXPECT_TRUE(refused("\"prompt\"", "expected an object, found the string 'prompt'"));
  for (const char* const number : {"1", "-1", "1.5"}) {
    EXPECT_TRUE(refused(number, std::string("expected an object, found the number ") + number));
  }
  EXPECT_TRUE(refused("true", "expected an object, found a boolean"));
  EXPECT_TRUE(refused("null", "expected an object, found null"));
}

TEST(JsonLines, RefuseMissingKeysAndOtherTypes) {
  EXPECT_TRUE(refused("{}", "expected a key 'prompt', found none"));
  EXPECT_TRUE(refused(R"({"prompt": "a"})", "expected a key 'response', found none"));
  EXPECT_TRUE(refused(R"({"response": "a", "Prompt": "b"})", "a key 'prompt'"));
  EXPECT_TRUE(refused(R"({"response": "a", "meta": {"prompt": "b"}})", "a key 'prompt'"));
  constexpr std::pair<const char*, const char*> values[] = {
      {"null", "null"},        {"true", "a boolean"},     {"7", "the number 7"},
      {"-7", "the number -7"}, {"7.5", "the number 7.5"}, {"[]", "an array"},
      {"[\"a\"]", "an array"}, {"{}", "an object"},       {"{\"prompt\": \"a\"}", "an object"}};
  for (const auto& [value, kind] : values) {
    EXPECT_TRUE(refused(std::string(R"({"prompt": )") + value + R"(, "response": "b"})",
                        std::string("key 'prompt': expected a string, found ") + kind));
    EXPECT_TRUE(refused(std::string(R"({"prompt": "a", "response": )") + value + "}",
                        std::string("key 'response': expected a string, found ") + kind));
  }
}

TEST(JsonLines, RefuseAKeyTwiceInAnObject) {
  EXPECT_TRUE(refused(R"({"prompt": "a", "response": "b", "prompt": "a"})", "key 'prompt' twice"));
  EXPECT_TRUE(
      refused(R"({"prompt": "a", "response": "b", "\u0070rompt": "c"})", "key 'prompt' twice"));
  EXPECT_TRUE(refused(R"({"prompt": "a", "response": "b", "x": 1, "x": 2})", "key 'x' twice"));
  EXPECT_TRUE(
      refused(R"({"prompt": "a", "response": "b", "x": [{"y": {"z": 1, "z": 1}}]})", "'z' twice"));
  // In objects beside each other, or one in the other, it is another key.
  EXPECT_EQ(parse(R"({"prompt": "a", "response": "b", "x": [{"x": 1}, {"x": {"x": 2}}]})").size(),
            1u);
}

TEST(JsonLines, RefuseWhatIsNoJson) {
  for (const std::string_view line : {
           "{",
           "}",
           "nonsense",
           R"({"prompt": "a", "response": "b")",
           R"({"prompt": "a", "response": "b",})",
           R"({"prompt": "a" "response": "b"})",
           R"({"prompt": "a", "response": "b"} {"prompt": "a", "response": "b"})",
           R"({"prompt": "a", "response": "b"}x)",
           R"({"prompt": "a", "response": "b"} // comment)",
           R"({"prompt": "a", /* comment */ "response": "b"})",
           R"({'prompt': 'a', 'response': 'b'})",
           R"({prompt: "a", response: "b"})",
           R"({"prompt": "a", "response": "b", "x": NaN})",
           R"({"prompt": "a", "response": "b", "x": 01})",
           R"({"prompt": "a", "response": "b", "x": 1e400})",
           R"({"prompt": "a", "response": "b", "x": [1, 2})",
           R"({"prompt": "a)",
           R"({"prompt": "\q", "response": "b"})",
           R"({"prompt": "\ud800", "response": "b"})",
           R"({"prompt": "\udc00", "response": "b"})",
           "{\"prompt\": \"a\tb\", \"response\": \"b\"}",
       }) {
    EXPECT_TRUE(refused(line, "byte ")) << line;
  }
}

TEST(JsonLines, RefuseInvalidUtf8) {
  for (const char* const bytes :
       {"\x80", "\xff", "\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xe2\x82",
        "\xf5\x80\x80\x80", "\xf4\x90\x80\x80"}) {
    EXPECT_TRUE(
        refused(std::string(R"({"prompt": ")") + bytes + R"(", "response": "b"})", "byte "));
    EXPECT_TRUE(refused(std::string(R"({"prompt": "a", "response": "b", "x)") + bytes + R"(": 1})",
                        "byte "));
  }
}

// The parser by itself would read on behind the one and stop at the other.
TEST(JsonLines, RefuseAByteOrderMarkAndAZero) {
  EXPECT_TRUE(refused("\xef\xbb\xbf" + good, "found a byte order mark"));
  EXPECT_TRUE(throws<FormatError>({"line 1: ", "found a byte order mark"},
                                  [] { (void)parse("\xef\xbb\xbf" + good + "\n"); }));
  const std::string zero(1, '\0');
  EXPECT_TRUE(refused(good + zero, "found a byte of value 0"));
  EXPECT_TRUE(refused(good + zero + "nonsense", "byte 33: "));
  EXPECT_TRUE(refused(zero + good, "byte 1: "));
}

TEST(JsonLines, NeedNoStackForDepth) {
  constexpr std::size_t depth = 200'000;
  const std::string open(depth, '[');
  const std::string head = R"({"prompt": "a", "response": "b", "x": )";
  EXPECT_EQ(parse(head + open + std::string(depth, ']') + "}").size(), 1u);
  EXPECT_TRUE(refused(head + open, "byte "));
  std::string objects;
  for (std::size_t i = 0; i < depth; ++i) objects += "{\"x\":";
  EXPECT_EQ(parse(head + objects + "1" + std::string(depth, '}') + "}").size(), 1u);
  EXPECT_TRUE(refused(head + objects, "byte "));
}

TEST(JsonLines, SayLittleAboutLongLines) {
  const std::string name(1'000'000, 'x');
  for (const std::string& line :
       {"{\"prompt\": \"" + name, "{\"" + name + "\": 1, \"" + name + "\": 1}"}) {
    try {
      (void)parse(line);
      ADD_FAILURE() << "throws nothing";
    } catch (const FormatError& error) {
      EXPECT_LT(std::string_view(error.what()).size(), 1000u) << error.what();
    }
  }
}

// Every byte changed in every bit, and every length: examples or a FormatError, nothing else.
TEST(JsonLines, EndInExamplesOrAnErrorWhateverTheBytes) {
  const TemporaryFolder folder;
  const std::string bytes = R"({"prompt": "\u00e9x", "response": "b", "n": [1.5e3, {"k": null}]})"
                            "\n" +
                            good + "\n";
  int refusals = 0;
  const auto check = [&](const std::string& changed) {
    write_file(folder / "data.jsonl", changed);
    try {
      EXPECT_GE(mora::read_json_lines(folder / "data.jsonl").size(), 1u);
    } catch (const FormatError& error) {
      ++refusals;
      EXPECT_NE(std::string_view(error.what()).find("data.jsonl"), std::string_view::npos);
    }
  };
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    check(bytes.substr(0, i));
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = bytes;
      changed[i] = char(changed[i] ^ (1 << bit));
      check(changed);
    }
  }
  EXPECT_GT(refusals, 100);
}

TEST(JsonLines, RefuseKeysThatCannotBe) {
  EXPECT_TRUE(throws<mora::ArgumentError>({"prompt: expected at least one key, found 0"},
                                          [] { (void)parse(good, {.prompt = {}}); }));
  EXPECT_TRUE(throws<mora::ArgumentError>({"key 'x': expected once, found twice"}, [] {
    (void)parse(good, {.prompt = {"x", "y", "x"}});
  }));
  EXPECT_TRUE(throws<mora::ArgumentError>({"key 'response': expected once, found twice"},
                                          [] { (void)parse(good, {.prompt = {"response"}}); }));
}

TEST(JsonLines, RefuseAFileThatIsNotThere) {
  EXPECT_TRUE(throws<mora::FileError>({"/nowhere/data.jsonl: cannot open", "errno 2"},
                                      [] { (void)mora::read_json_lines("/nowhere/data.jsonl"); }));
}

// From the file to a batch, as a program does it.
TEST(JsonLines, BecomePromptsWithResponses) {
  const mora::ByteTokenizer tokenizer;
  mora::PromptResponses set(
      {.begin = tokenizer.bos, .end = tokenizer.eos, .vocabulary = tokenizer.vocabulary});
  for (const mora::TextExample& example : parse(good)) {
    set.add(tokenizer.encode(example.prompt), tokenizer.encode(example.response));
  }
  mora::Batch batch;
  set.add_to(0, batch);
  EXPECT_EQ(batch.tokens, (std::vector<mora::Token>{256, 'a', 'b'}));
  EXPECT_EQ(batch.targets, (std::vector<mora::Token>{mora::ignored, 'b', 257}));
}

}  // namespace
}  // namespace mora_tests
