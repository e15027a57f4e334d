// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/io/mapped_file.hpp"
#include "mora/io/strict_json.hpp"

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

/// Reads one line: an object, whose depth does not matter.
class ExampleReader : private StrictJson {
 public:
  ExampleReader(const std::filesystem::path& path, const JsonLinesSettings& settings)
      : StrictJson(path, std::numeric_limits<std::size_t>::max()),
        settings_(settings),
        texts_(settings.prompt.size() + 1) {}

  [[nodiscard]] TextExample read(std::string_view json, Index number) {
    for (auto& text : texts_) text.reset();
    parse(json, "line " + std::to_string(number));
    return example(number);
  }

 private:
  void on_value(const JsonEvent& event) override {
    if (depth() == 0) expect(event, Kind::object, "an object", [] { return "the line"; });
    if (depth() != 1) return;
    const std::string_view name = key(0);
    const auto at = std::find(settings_.prompt.begin(), settings_.prompt.end(), name);
    if (at == settings_.prompt.end() && name != settings_.response) return;
    expect(event, Kind::string, "a string", [&] { return concat("key ", in_quotes(name)); });
    texts_[static_cast<std::size_t>(at - settings_.prompt.begin())] = std::move(*event.text);
  }

  [[nodiscard]] TextExample example(Index number) {
    for (std::size_t i = 0; i < texts_.size(); ++i) {
      if (texts_[i]) continue;
      const std::string& name = i + 1 < texts_.size() ? settings_.prompt[i] : settings_.response;
      fail(concat("expected a key ", in_quotes(name), ", found none"));
    }
    TextExample example{.prompt = {}, .response = std::move(*texts_.back()), .line = number};
    for (std::size_t i = 0; i + 1 < texts_.size(); ++i) {
      if (texts_[i]->empty()) continue;
      if (!example.prompt.empty()) example.prompt += settings_.separator;
      example.prompt += *texts_[i];
    }
    return example;
  }

  const JsonLinesSettings& settings_;
  std::vector<std::optional<std::string>> texts_;  // by prompt key, then the response
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
