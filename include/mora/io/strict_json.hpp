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
/// twice in one object at any depth, and values that are too deep. Integers stay integers. Nesting
/// needs no stack. The keys of unfinished objects are kept, in some 20 bytes each and their own.
class StrictJson : private nlohmann::json::json_sax_t {
 protected:
  using Kind = JsonEvent::Kind;

  /// As deep as serde_json goes, by which the format's reference reads headers.
  static constexpr std::size_t usual_levels = 127;

  /// `path` lives as long as the reader.
  explicit StrictJson(const std::filesystem::path& path, std::size_t most_levels = usual_levels)
      : path_(path), most_levels_(most_levels) {}
  ~StrictJson() override = default;

  /// One document, which errors call `place`. Throws FormatError for the text's faults, and passes
  /// on what the handlers throw.
  void parse(std::string_view text, std::string place) {
    place_ = std::move(place);
    levels_.clear();
    keys_.clear();
    key_text_.clear();
    // The parser would skip the one, and take the other for the end.
    if (text.starts_with("\xef\xbb\xbf")) fail("expected JSON, found a byte order mark");
    if (const auto zero = text.find('\0'); zero != std::string_view::npos) {
      fail(concat("byte ", zero + 1, ": expected JSON, found a byte of value 0"));
    }
    (void)nlohmann::json::sax_parse(text.begin(), text.end(),
                                    static_cast<nlohmann::json::json_sax_t*>(this));
  }

  /// A value that is not inside another has depth 0. If it has a key, that is key(depth() - 1).
  virtual void on_value(const JsonEvent& event) = 0;
  /// After the last value inside, and before depth() falls.
  virtual void on_end() {}

  /// The number of arrays and objects around the next value.
  [[nodiscard]] std::size_t depth() const { return levels_.size(); }
  /// The key of the value at hand in the object that is `level` deep. Empty in an array.
  [[nodiscard]] std::string_view key(std::size_t level) const {
    const std::size_t end = level + 1 < depth() ? levels_[level + 1] : keys_.size();
    return end == levels_[level] ? std::string_view() : text_of(keys_[end - 1]);
  }

  /// Throws FormatError for a value of another kind; `what()` is its name for the message.
  template <class What>
  void expect(const JsonEvent& event, Kind kind, const char* expected, const What& what) const {
    if (event.kind != kind) fail(concat(what(), ": expected ", expected, ", found ", found(event)));
  }

  [[noreturn]] void fail(std::string_view fault) const { throw FormatError(path_, place_, fault); }

 private:
  /// A part of key_text_.
  struct Key {
    std::size_t begin;
    std::size_t size;
  };

  [[nodiscard]] std::string_view text_of(const Key& key) const {
    return std::string_view(key_text_).substr(key.begin, key.size);
  }

  bool value(const JsonEvent& event) {
    on_value(event);
    return true;
  }
  bool enter(Kind kind) {
    if (depth() == most_levels_) {
      fail(concat("expected values at most ", most_levels_, " deep, found deeper ones"));
    }
    on_value({.kind = kind});
    levels_.push_back(keys_.size());
    return true;
  }
  bool leave() {
    const auto first = keys_.begin() + static_cast<std::ptrdiff_t>(levels_.back());
    const std::size_t text_begin = first == keys_.end() ? key_text_.size() : first->begin;
    std::sort(first, keys_.end(),
              [&](const Key& a, const Key& b) { return text_of(a) < text_of(b); });
    const auto twin = std::adjacent_find(
        first, keys_.end(), [&](const Key& a, const Key& b) { return text_of(a) == text_of(b); });
    if (twin != keys_.end()) {
      fail(concat("key ", in_quotes(text_of(*twin)), " twice in one object"));
    }
    on_end();
    keys_.erase(first, keys_.end());
    key_text_.resize(text_begin);
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
    keys_.push_back({.begin = key_text_.size(), .size = key.size()});
    key_text_ += key;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) final {
    // It says line and column, and may quote a text of any length.
    std::string_view text = error.what();
    if (const auto at = text.find("column "); at != std::string_view::npos) {
      if (const auto colon = text.find(": ", at); colon != std::string_view::npos)
        text.remove_prefix(colon + 2);
    }
    fail(concat("byte ", position, ": expected JSON, found ", in_quotes(text)));
  }

  const std::filesystem::path& path_;
  std::string place_;
  std::size_t most_levels_;
  std::vector<std::size_t> levels_;  // for each, how many keys there are around it
  std::vector<Key> keys_;            // of the objects around the next value, the outermost first
  std::string key_text_;             // one after another
};

}  // namespace mora::inline MORA_ABI::detail
