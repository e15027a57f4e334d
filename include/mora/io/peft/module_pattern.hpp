// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/io/peft/module_pattern_parser.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

[[nodiscard]] inline bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 128; });
}

/// The states in which a name's beginning can end, one character after another.
class PatternWalk {
 public:
  /// Both live as long.
  PatternWalk(const PatternStates& states, std::string_view name)
      : states_(states), name_(name), seen_(states.row.size() + 1, 0) {}

  [[nodiscard]] bool arrives() {
    enter(0);
    for (; at_ < name_.size() && !waiting_.empty(); ++at_) {
      leaving_.swap(waiting_);
      waiting_.clear();
      // What is entered now has read this character.
      const auto character = static_cast<std::size_t>(name_[at_]);
      for (const Index state : leaving_) {
        const auto set = states_.row[static_cast<std::size_t>(state)].set;
        if (states_.sets[set].test(character)) enter(state + 1, 1);
      }
    }
    return at_ == name_.size() && seen_.back() == at_ + 1;
  }

 private:
  using Kind = PatternState::Kind;

  /// Enters a state, and those that it leads to without a character, once for each place in the
  /// name: `read` characters behind at_.
  void enter(Index first, std::size_t read = 0) {
    const std::size_t place = at_ + read;
    open_.assign(1, first);
    while (!open_.empty()) {
      const Index index = open_.back();
      open_.pop_back();
      auto& seen = seen_[static_cast<std::size_t>(index)];
      if (seen == place + 1) continue;
      seen = place + 1;
      if (index == std::ssize(states_.row)) continue;
      const PatternState& state = states_.row[static_cast<std::size_t>(index)];
      if (state.kind == Kind::character) waiting_.push_back(index);
      if (state.kind == Kind::jump || state.kind == Kind::split) {
        open_.push_back(index + state.other);
      }
      if (state.kind == Kind::split || holds(state.kind, place)) open_.push_back(index + 1);
    }
  }

  [[nodiscard]] bool holds(Kind assertion, std::size_t place) const {
    const std::string_view behind = name_.substr(place);
    switch (assertion) {
      case Kind::start: return place == 0;
      case Kind::end: return behind.empty() || behind == "\n";
      case Kind::absolute_end: return behind.empty();
      default: return false;
    }
  }

  const PatternStates& states_;
  std::string_view name_;
  std::size_t at_ = 0;
  std::vector<std::size_t> seen_;  // by state: the last place that it was entered for, and 1
  std::vector<Index> waiting_;     // for the next character
  std::vector<Index> leaving_;
  std::vector<Index> open_;
};

}  // namespace detail

/// A regular expression for names of modules, in Python's syntax as PEFT has it: characters, ".",
/// sets, \d \s \w \D \S \W, escaped punctuation, groups, alternatives, quantifiers (lazy ones too)
/// and ^ $ \A \Z. A name is followed through all states at once, so that the time is at most the
/// number of states times the name's length, whatever the expression.
class ModulePattern {
 public:
  /// Throws ArgumentError, with the position (from 0), for what Python refuses, for what is not
  /// supported (look-around, back-references, flags, possessive quantifiers, \b, characters that
  /// are not ASCII, ...), and beyond 4096 characters or 20,000 states.
  explicit ModulePattern(std::string text)
      : text_(std::move(text)), states_(detail::PatternParser(text_).parse()) {}

  [[nodiscard]] const std::string& text() const { return text_; }
  /// How many states a name is followed through.
  [[nodiscard]] Index states() const { return std::ssize(states_.row); }

  /// Whether it describes the whole name (re.fullmatch): not one that has other characters than
  /// ASCII's, of which it knows nothing.
  [[nodiscard]] bool matches(std::string_view name) const {
    return detail::is_ascii(name) && detail::PatternWalk(states_, name).arrives();
  }

 private:
  std::string text_;
  detail::PatternStates states_;
};

}  // namespace mora::inline MORA_ABI
