// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "mora/core/error.hpp"

namespace mora::inline MORA_ABI {

/// Says which parameters are meant, by their names: a suffix of whole parts between dots ("B" and
/// "q_proj.B" mean "layers.0.q_proj.B", and not "layers.0.q_proj.AB"), or any predicate.
class NameRule {
 public:
  /// Throws ArgumentError for an empty suffix.
  NameRule(std::string suffix)  // NOLINT(google-explicit-constructor)
      : text_(std::move(suffix)) {
    if (text_.empty()) throw ArgumentError("name rule: expected a suffix of names, found none");
  }
  NameRule(const char* suffix) : NameRule(std::string(suffix)) {}  // NOLINT

  /// `text` says in errors what the predicate means.
  template <std::predicate<std::string_view> F>
  NameRule(std::string text, F predicate)
      : text_(std::move(text)), predicate_(std::move(predicate)) {}

  [[nodiscard]] bool operator()(std::string_view name) const {
    if (predicate_) return predicate_(name);
    return name.ends_with(text_) &&
           (name.size() == text_.size() || name[name.size() - text_.size() - 1] == '.');
  }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::function<bool(std::string_view)> predicate_;
};

}  // namespace mora::inline MORA_ABI
