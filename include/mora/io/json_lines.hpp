// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/io/mapped_file.hpp"

namespace mora::inline MORA_ABI {

/// Which keys of a line make an example. Questions with answers: {.prompt = {"question"},
/// .response = "answer"}; Alpaca's: {.prompt = {"instruction", "input"}, .response = "output"}.
struct JsonLinesSettings {
  /// One key or more, whose texts are joined. Empty texts, such as Alpaca's missing inputs, are
  /// left out with their separator.
  std::vector<std::string> prompt = {"prompt"};
  std::string response = "response";
  std::string separator = "\n";  ///< Between the texts of the prompt.

  /// Throws ArgumentError unless there is a prompt key and all keys differ.
  void validate() const {
    if (prompt.empty()) throw ArgumentError("prompt: expected at least one key, found 0");
    std::set<std::string_view> keys = {response};
    for (const std::string& key : prompt) {
      if (!keys.insert(key).second) {
        throw ArgumentError(detail::concat("key '", key, "': expected once, found twice"));
      }
    }
  }
};

/// A prompt with its response.
struct TextExample {
  std::string prompt;
  std::string response;
  Index line = 0;  ///< Where it stands in its file, counted from 1.
};

namespace detail {

/// Reads one line. It takes the parser's events and makes no document of them, so that a key that
/// is there twice is seen, however it is spelled, and deep nesting needs no stack.
class ExampleReader : public nlohmann::json::json_sax_t {
 public:
  using Json = nlohmann::json;

  ExampleReader(const std::filesystem::path& path, const JsonLinesSettings& settings)
      : path_(path), settings_(settings), texts_(settings.prompt.size() + 1) {}

  [[nodiscard]] TextExample read(std::string_view line, Index number) {
    line_ = number;
    depth_ = 0;
    keys_.clear();
    wanted_ = nullptr;
    for (auto& text : texts_) text.reset();
    // The parser would skip the one and stop at the other as if the line ended there.
    if (line.starts_with("\xef\xbb\xbf")) fail("expected an object, found a byte order mark");
    if (const auto zero = line.find('\0'); zero != line.npos) {
      fail(concat("column ", zero + 1, ": expected text, found a byte of value 0"));
    }
    (void)Json::sax_parse(line.begin(), line.end(), this);
    return example();
  }

  bool null() override { return value("null"); }
  bool boolean(bool) override { return value("a boolean"); }
  bool number_integer(Json::number_integer_t) override { return value("a number"); }
  bool number_unsigned(Json::number_unsigned_t) override { return value("a number"); }
  bool number_float(Json::number_float_t, const std::string&) override { return value("a number"); }
  bool binary(Json::binary_t&) override { return value("binary data"); }
  bool string(std::string& text) override {
    if (depth_ == 0 || wanted_ == nullptr) return value("a string");
    *wanted_ = std::move(text);
    wanted_ = nullptr;
    return true;
  }
  bool start_object(std::size_t) override {
    if (depth_ > 0) value("an object");
    ++depth_;
    keys_.emplace_back();
    return true;
  }
  bool end_object() override {
    --depth_;
    keys_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override {
    value("an array");
    ++depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(std::string& key) override {
    if (!keys_.back().insert(key).second) fail(concat("key '", key, "' twice in one object"));
    if (depth_ != 1) return true;
    const auto found = std::find(settings_.prompt.begin(), settings_.prompt.end(), key);
    if (found != settings_.prompt.end()) {
      wanted_ = &texts_[static_cast<std::size_t>(found - settings_.prompt.begin())];
    } else if (key == settings_.response) {
      wanted_ = &texts_.back();
    }
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    // Its text counts lines and columns within this one line, which the place says already.
    std::string_view text = error.what();
    if (const auto at = text.find("column "); at != text.npos) {
      if (const auto colon = text.find(": ", at); colon != text.npos) text.remove_prefix(colon + 2);
    }
    fail(concat("column ", position, ": ", text));
  }

 private:
  [[noreturn]] void fail(std::string_view fault) const {
    constexpr std::size_t most = 200;  // it may quote a string or key of any length
    throw FormatError(path_, concat("line ", line_),
                      concat(fault.substr(0, most), fault.size() > most ? "..." : ""));
  }

  /// Any value but a string that is asked for.
  bool value(const char* kind) const {
    if (depth_ == 0) fail(concat("expected an object, found ", kind));
    if (wanted_ != nullptr) {
      fail(concat("key '", name(wanted_), "': expected a string, found ", kind));
    }
    return true;
  }

  [[nodiscard]] const std::string& name(const std::optional<std::string>* text) const {
    const auto i = static_cast<std::size_t>(text - texts_.data());
    return i < settings_.prompt.size() ? settings_.prompt[i] : settings_.response;
  }

  [[nodiscard]] TextExample example() {
    for (const auto& text : texts_) {
      if (!text) fail(concat("expected a key '", name(&text), "', found none"));
    }
    TextExample example{.prompt = {}, .response = std::move(*texts_.back()), .line = line_};
    for (std::size_t i = 0; i + 1 < texts_.size(); ++i) {
      if (texts_[i]->empty()) continue;
      if (!example.prompt.empty()) example.prompt += settings_.separator;
      example.prompt += *texts_[i];
    }
    return example;
  }

  const std::filesystem::path& path_;
  const JsonLinesSettings& settings_;
  std::vector<std::optional<std::string>> texts_;  // by prompt key, and the response
  std::optional<std::string>* wanted_ = nullptr;   // where the next value belongs
  Index line_ = 0;
  Index depth_ = 0;
  std::vector<std::set<std::string, std::less<>>> keys_;  // of the objects that are open
};

}  // namespace detail

/// The examples of a file with one JSON object a line. Other keys of an object are not looked at.
/// Throws as MappedFile does, and FormatError with file and line: for what is no JSON or no object,
/// a key that is missing or has no string, a key twice in an object, invalid UTF-8, a blank line
/// that is not at the end, and for no example at all. ArgumentError for wrong settings.
[[nodiscard]] inline std::vector<TextExample> read_json_lines(
    const std::filesystem::path& path, const JsonLinesSettings& settings = {}) {
  settings.validate();
  const MappedFile file(path);
  detail::ExampleReader reader(path, settings);
  std::vector<TextExample> examples;
  std::string_view rest = file.text();
  Index blank = 0;
  for (Index number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (line.find_first_not_of(" \t\r") == line.npos) {
      if (blank == 0) blank = number;
      continue;
    }
    if (blank != 0) {
      throw FormatError(path, detail::concat("line ", blank), "expected an object, found nothing");
    }
    examples.push_back(reader.read(line, number));
  }
  if (examples.empty()) throw FormatError(path, "expected at least one example, found 0");
  return examples;
}

}  // namespace mora::inline MORA_ABI
