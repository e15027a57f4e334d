// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/io/error.hpp"
#include "mora/io/in_quotes.hpp"

namespace mora::inline MORA_ABI::detail {

/// A value of JSON, as the parser comes upon it.
struct JsonEvent {
  enum class Kind { null, boolean, whole, number, string, object, array };
  Kind kind = Kind::null;
  std::uint64_t whole = 0;       ///< Of a whole number from 0 to 2^64 - 1, exactly.
  std::string_view digits = {};  ///< Of any other number, as it is written.
  std::string* text = nullptr;   ///< Of a string; may be moved from.
};

/// For "expected a string, found ...".
[[nodiscard]] inline std::string found(const JsonEvent& event) {
  using Kind = JsonEvent::Kind;
  switch (event.kind) {
    case Kind::null: return "null";
    case Kind::boolean: return "a boolean";
    case Kind::whole: return concat("the number ", event.whole);
    case Kind::number: return concat("the number ", event.digits.substr(0, 40));
    case Kind::string: return concat("the string ", in_quotes(*event.text));
    case Kind::object: return "an object";
    case Kind::array: return "an array";
  }
  return "nothing";
}

/// Reads JSON of files by events. Refused are: what is not JSON (comments, NaN, a comma too many,
/// a second document), text that is not UTF-8, a byte order mark, a byte of value 0, a key that is
/// twice in one object at any depth, and values more than `most_levels` deep. Integers stay
/// integers. Nesting needs no stack; memory is a few times what the keys of unfinished objects
/// take.
class StrictJson : private nlohmann::json::json_sax_t {
 public:
  /// As deep as serde_json goes, by which the format's reference reads headers.
  static constexpr std::size_t most_levels = 127;

  StrictJson(const std::filesystem::path& path, std::string place)
      : path_(path), place_(std::move(place)) {}

 protected:
  ~StrictJson() override = default;

  /// Throws FormatError for the text's faults, and passes on what the handlers throw.
  void parse(std::string_view text) {
    // The parser would skip the one, and take the other for the end.
    if (text.starts_with("\xef\xbb\xbf")) fail("expected JSON, found a byte order mark");
    if (const auto zero = text.find('\0'); zero != text.npos) {
      fail(concat("byte ", zero, ": expected JSON, found a byte of value 0"));
    }
    (void)nlohmann::json::sax_parse(text.begin(), text.end(),
                                    static_cast<nlohmann::json::json_sax_t*>(this));
  }

  /// A value that is not inside another has depth 0. Its key, if it has one, is the last of keys().
  virtual void on_value(const JsonEvent& event) = 0;
  /// After the last value inside, and before depth() falls.
  virtual void on_end() {}

  /// The number of arrays and objects around the next value.
  [[nodiscard]] std::size_t depth() const { return levels_.size(); }
  /// The key of the value at hand in the object that is `level` deep. Empty in an array.
  [[nodiscard]] std::string_view key(std::size_t level) const {
    return levels_[level].empty() ? std::string_view() : levels_[level].back();
  }

  [[noreturn]] void fail(std::string_view fault) const { throw FormatError(path_, place_, fault); }

  const std::filesystem::path& path_;
  std::string place_;

 private:
  using Kind = JsonEvent::Kind;

  bool value(const JsonEvent& event) {
    on_value(event);
    return true;
  }
  bool enter(Kind kind) {
    if (depth() == most_levels) {
      fail(concat("expected values at most ", most_levels, " deep, found deeper ones"));
    }
    on_value({.kind = kind});
    levels_.emplace_back();
    return true;
  }
  bool leave() {
    std::vector<std::string>& keys = levels_.back();
    std::sort(keys.begin(), keys.end());
    const auto twin = std::adjacent_find(keys.begin(), keys.end());
    if (twin != keys.end()) fail(concat("key ", in_quotes(*twin), " twice in one object"));
    on_end();
    levels_.pop_back();
    return true;
  }

  bool null() final { return value({.kind = Kind::null}); }
  bool boolean(bool) final { return value({.kind = Kind::boolean}); }
  bool number_integer(std::int64_t number) final {  // called for those with a minus, -0 too
    const std::string digits = number == 0 ? "-0" : std::to_string(number);
    return value({.kind = Kind::number, .digits = digits});
  }
  bool number_unsigned(std::uint64_t number) final {
    return value({.kind = Kind::whole, .whole = number});
  }
  bool number_float(double, const std::string& digits) final {
    return value({.kind = Kind::number, .digits = digits});
  }
  bool string(std::string& text) final { return value({.kind = Kind::string, .text = &text}); }
  bool binary(nlohmann::json::binary_t&) final { fail("expected JSON, found binary data"); }
  bool start_object(std::size_t) final { return enter(Kind::object); }
  bool start_array(std::size_t) final { return enter(Kind::array); }
  bool end_object() final { return leave(); }
  bool end_array() final { return leave(); }
  bool key(std::string& key) final {
    levels_.back().push_back(std::move(key));
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) final {
    // It says line and column, and may quote a text of any length.
    std::string_view text = error.what();
    if (const auto at = text.find("column "); at != text.npos) {
      if (const auto colon = text.find(": ", at); colon != text.npos) text.remove_prefix(colon + 2);
    }
    fail(concat("byte ", position, ": expected JSON, found ", in_quotes(text)));
  }

  std::vector<std::vector<std::string>>
      levels_;  // the keys of each object so far, none of an array
};

}  // namespace mora::inline MORA_ABI::detail
