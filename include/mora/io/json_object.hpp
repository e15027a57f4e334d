// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/core/index.hpp"
#include "mora/io/mapped_file.hpp"
#include "mora/io/strict_json.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

/// Finds the faults of a text that nlohmann's parser would let pass, and what its document forgets:
/// the order of keys.
class JsonCheck : private StrictJson {
 public:
  using Order = std::map<std::string, std::vector<std::string>, std::less<>>;

  explicit JsonCheck(const std::filesystem::path& path) : StrictJson(path) {}
  void check(std::string_view text) { parse(text, "text"); }
  /// The keys of the objects that are in the outermost one, by its keys.
  [[nodiscard]] Order& order() { return order_; }

 private:
  void on_value(const JsonEvent& event) override {
    if (depth() == 1) {
      inside_ = event.kind == Kind::object ? &order_[std::string(key(0))] : nullptr;
    } else if (depth() == 2 && inside_) {
      inside_->emplace_back(key(1));
    }
  }

  Order order_;
  std::vector<std::string>* inside_ = nullptr;
};

}  // namespace detail

/// A JSON object of settings, such as config.json. What is asked for by key is there with the right
/// type, or not there (missing or null); anything else throws FormatError with file, key and value.
/// It remembers which keys were asked for, so that asking is not const.
class JsonObject {
 public:
  using Json = nlohmann::json;

  /// No such file is larger: lists of thousands of modules take some hundred kilobytes.
  static constexpr Index most_bytes = 16'000'000;

  /// Throws as MappedFile does; FormatError for a file beyond most_bytes and for what StrictJson
  /// refuses: no JSON, a key that is twice in an object, a byte order mark.
  [[nodiscard]] static JsonObject read(const std::filesystem::path& path) {
    return parse(MappedFile(path, FileAccess::copied, most_bytes).text(), path);
  }
  /// `path` is for messages.
  [[nodiscard]] static JsonObject parse(std::string_view text, const std::filesystem::path& path) {
    if (std::ssize(text) > most_bytes) {
      throw FormatError(
          path, detail::concat("expected at most ", most_bytes, " bytes, found ", text.size()));
    }
    detail::JsonCheck check(path);
    check.check(text);
    Json json = Json::parse(text.begin(), text.end());
    if (!json.is_object()) {
      throw FormatError(path, detail::concat("expected an object, found ", json.type_name()));
    }
    return {path, "", std::move(json), {}, std::move(check.order())};
  }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  /// The value as it is; null where the key is missing or null.
  [[nodiscard]] const Json* find(std::string_view key) {
    asked_.emplace(key);
    const auto at = json_.find(std::string(key));
    return at == json_.end() || at->is_null() ? nullptr : &*at;
  }
  [[nodiscard]] bool has(std::string_view key) { return find(key) != nullptr; }
  /// Whether it is there and null, which is not the same as missing where that has a default.
  [[nodiscard]] bool is_null(std::string_view key) {
    return !has(key) && json_.contains(std::string(key));
  }
  /// For keys that must not be null: throws FormatError, saying what is expected, where one is.
  void refuse_null(std::string_view key, std::string_view expected) {
    if (is_null(key)) wrong(key, expected, Json());
  }

  /// From 0 to 2^63 - 1.
  [[nodiscard]] std::optional<Index> whole(std::string_view key) {
    const Json* const value = find(key);
    if (!value) return {};
    if (!value->is_number_unsigned() ||
        value->get<std::uint64_t>() >
            static_cast<std::uint64_t>(std::numeric_limits<Index>::max())) {
      wrong(key, "a whole number of at least 0", *value);
    }
    return value->get<Index>();
  }
  [[nodiscard]] std::optional<double> number(std::string_view key) {
    const Json* const value = find(key);
    if (!value) return {};
    if (!value->is_number()) wrong(key, "a number", *value);
    return value->get<double>();
  }
  [[nodiscard]] std::optional<bool> boolean(std::string_view key) {
    const Json* const value = find(key);
    if (!value) return {};
    if (!value->is_boolean()) wrong(key, "true or false", *value);
    return value->get<bool>();
  }
  [[nodiscard]] std::optional<std::string> text(std::string_view key) {
    const Json* const value = find(key);
    if (!value) return {};
    if (!value->is_string()) wrong(key, "a string", *value);
    return value->get<std::string>();
  }
  /// A list of strings.
  [[nodiscard]] std::optional<std::vector<std::string>> texts(std::string_view key) {
    return list<std::string>(key, "a list of strings",
                             [](const Json& entry) { return entry.is_string(); });
  }
  /// A list of whole numbers, or one.
  [[nodiscard]] std::optional<std::vector<Index>> wholes(std::string_view key) {
    const Json* const value = find(key);
    if (value && !value->is_array()) return std::vector<Index>{*whole(key)};
    return list<Index>(key, "a list of whole numbers of at least 0", [](const Json& entry) {
      return entry.is_number_unsigned() &&
             entry.get<std::uint64_t>() <=
                 static_cast<std::uint64_t>(std::numeric_limits<Index>::max());
    });
  }
  [[nodiscard]] std::optional<JsonObject> object(std::string_view key) {
    const Json* const value = find(key);
    if (!value) return {};
    if (!value->is_object()) wrong(key, "an object", *value);
    const auto order = order_.find(key);
    return JsonObject(path_, name(key) + '.', *value,
                      order == order_.end() ? std::vector<std::string>() : order->second, {});
  }

  /// All keys: those of an object in the outermost one as the file has them, others sorted.
  [[nodiscard]] std::vector<std::string> keys() const {
    if (!keys_.empty()) return keys_;
    std::vector<std::string> all;
    for (const auto& [key, value] : json_.items()) all.push_back(key);
    return all;
  }
  /// Those that nobody asked for, in the same order.
  [[nodiscard]] std::vector<std::string> unasked() const {
    std::vector<std::string> rest;
    for (std::string& key : keys()) {
      if (!asked_.contains(key)) rest.push_back(std::move(key));
    }
    return rest;
  }

  /// Throws FormatError naming the key.
  [[noreturn]] void fail(std::string_view key, std::string_view fault) const {
    throw FormatError(path_, detail::concat("key ", detail::in_quotes(name(key))), fault);
  }
  [[noreturn]] void wrong(std::string_view key, std::string_view expected,
                          const Json& value) const {
    std::string found = value.dump(-1, ' ', true, Json::error_handler_t::replace);
    if (found.size() > 60) found = found.substr(0, 60) + "...";
    fail(key, detail::concat("expected ", expected, ", found ", found));
  }

 private:
  JsonObject(std::filesystem::path path, std::string prefix, Json json,
             std::vector<std::string> keys, detail::JsonCheck::Order order)
      : path_(std::move(path)),
        prefix_(std::move(prefix)),
        json_(std::move(json)),
        keys_(std::move(keys)),
        order_(std::move(order)) {}

  [[nodiscard]] std::string name(std::string_view key) const { return prefix_ + std::string(key); }

  template <class Entry, class Test>
  [[nodiscard]] std::optional<std::vector<Entry>> list(std::string_view key, const char* expected,
                                                       const Test& test) {
    const Json* const value = find(key);
    if (!value) return {};
    if (!value->is_array()) wrong(key, expected, *value);
    std::vector<Entry> entries;
    for (const Json& entry : *value) {
      if (!test(entry)) wrong(key, expected, *value);
      entries.push_back(entry.get<Entry>());
    }
    return entries;
  }

  std::filesystem::path path_;
  std::string prefix_;  // of the object's place: "rope_parameters."
  Json json_;
  std::vector<std::string> keys_;  // in the file's order, where that is known
  detail::JsonCheck::Order order_;
  std::set<std::string, std::less<>> asked_;
};

}  // namespace mora::inline MORA_ABI
