// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/core/error.hpp"
#include "mora/core/index.hpp"
#include "mora/io/in_quotes.hpp"

/// \file
/// From the text of a regular expression to the states that a name is followed through.

namespace mora::inline MORA_ABI::detail {

/// No expression is longer: a list of modules says the same.
inline constexpr Index most_pattern_characters = 4096;
/// Of one expression, once what it repeats is written out.
inline constexpr Index most_pattern_states = 20'000;

/// Of ASCII.
using CharacterSet = std::bitset<128>;

/// One of a row of states: the name is matched where it leads behind the last one. Ways are
/// relative, so that a part of the row is the same wherever it is copied to.
struct PatternState {
  enum class Kind : std::uint8_t {
    character,    // one character of a set, and on to the next state
    jump,         // on to another state
    split,        // on to the next state and to another
    start,        // on if nothing is before
    end,          // on if nothing is behind, or one line feed
    absolute_end  // on if nothing is behind
  };
  Kind kind = Kind::character;
  Index other = 0;      // where it leads, from here
  std::size_t set = 0;  // the number of a character's set
};

struct PatternStates {
  std::vector<PatternState> row;
  std::vector<CharacterSet> sets;
};

/// What begins with "(?" and is no plain group.
struct PatternStranger {
  std::string_view text;
  std::string_view what;
};
inline constexpr std::array pattern_strangers = {
    PatternStranger{"(?=", "a look-ahead"},
    PatternStranger{"(?!", "a look-ahead"},
    PatternStranger{"(?<", "a look-behind"},
    PatternStranger{"(?>", "an atomic group"},
    PatternStranger{"(?(", "a condition"},
    PatternStranger{"(?#", "a comment"},
    PatternStranger{"(?P=", "a back-reference"},
    PatternStranger{"(?P", "this group"},
    PatternStranger{"(?", "a flag"},
};

[[nodiscard]] inline bool is_digit(char c) { return c >= '0' && c <= '9'; }
[[nodiscard]] inline bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// Both are in it, as is what is between them.
[[nodiscard]] inline CharacterSet characters(char first, char last) {
  CharacterSet set;
  for (char c = first; c < last; ++c) set.set(static_cast<std::size_t>(c));
  return set.set(static_cast<std::size_t>(last));
}
[[nodiscard]] inline CharacterSet characters(char only) { return characters(only, only); }

/// Of \d, \s, \w and their opposites, in Python's sense; none of other letters.
[[nodiscard]] inline std::optional<CharacterSet> characters_of_kind(char letter) {
  const CharacterSet digits = characters('0', '9');
  const CharacterSet spaces = characters('\t', '\r') | characters('\x1c', ' ');
  const CharacterSet words = digits | characters('a', 'z') | characters('A', 'Z') | characters('_');
  switch (letter) {
    case 'd': return digits;
    case 'D': return ~digits;
    case 's': return spaces;
    case 'S': return ~spaces;
    case 'w': return words;
    case 'W': return ~words;
    default: return {};
  }
}

/// Reads an expression in one pass, with a stack of its own for groups.
class PatternParser {
 public:
  /// `text` lives as long.
  explicit PatternParser(std::string_view text) : text_(text) {}

  /// Throws ArgumentError, with the position, for what is wrong or not supported.
  [[nodiscard]] PatternStates parse() {
    if (std::ssize(text_) > most_pattern_characters) {
      throw ArgumentError(concat("pattern ", in_quotes(text_), ": expected at most ",
                                 most_pattern_characters, " characters, found ", text_.size()));
    }
    for (std::size_t i = 0; i < text_.size(); ++i) {
      if (static_cast<unsigned char>(text_[i]) >= 128) fail(i, "expected ASCII, found another");
    }
    groups_.emplace_back();
    while (at_ < text_.size()) read_next();
    if (groups_.size() > 1) fail(groups_.back().at, "expected a ')' for this '(', found none");
    end_group();
    return std::move(states_);
  }

 private:
  using Kind = PatternState::Kind;

  /// What has been opened and not closed; the whole expression is the first.
  struct Group {
    std::size_t at = 0;             // in the text
    Index first = 0;                // its first state
    Index alternative = 0;          // that of the alternative which is read
    std::vector<Index> jumps = {};  // from the ends of the others
  };
  /// What stands before a quantifier.
  enum class Before { nothing, assertion, repeated, item };

  [[noreturn]] void fail(std::size_t at, std::string_view what) const {
    throw ArgumentError(concat("pattern ", in_quotes(text_), ", position ", at, ": ", what));
  }
  [[noreturn]] void refuse(std::size_t at, std::size_t size, std::string_view what) const {
    fail(at, concat(in_quotes(text_.substr(at, size)), ", ", what, ", is not supported"));
  }

  [[nodiscard]] Index size() const { return std::ssize(states_.row); }
  [[nodiscard]] bool next_is(char c) const { return at_ < text_.size() && text_[at_] == c; }
  [[nodiscard]] bool take(char c) {
    const bool there = next_is(c);
    if (there) ++at_;
    return there;
  }

  void require_room(Index states, std::size_t at) const {
    if (states <= most_pattern_states) return;
    fail(at, concat("expected at most ", most_pattern_states,
                    " states with all repetitions, found ", states));
  }
  void put(const PatternState& state) {
    require_room(size() + 1, at_ - 1);
    states_.row.push_back(state);
  }
  void put_all(const std::vector<PatternState>& states) {
    states_.row.insert(states_.row.end(), states.begin(), states.end());
  }
  void put_item(const CharacterSet& set) {
    before_ = Before::item;
    item_ = size();
    put({.kind = Kind::character, .set = states_.sets.size()});
    states_.sets.push_back(set);
  }
  void put_assertion(Kind kind) {
    before_ = Before::assertion;
    put({.kind = kind});
  }

  void read_next() {
    const std::size_t here = at_++;
    switch (text_[here]) {
      case '(': return begin_group(here);
      case ')':
        if (groups_.size() == 1) fail(here, "expected a '(' for this ')', found none");
        return end_group();
      case '|': return begin_alternative();
      case '*': return repeat(here, 0, {});
      case '+': return repeat(here, 1, {});
      case '?': return repeat(here, 0, 1);
      case '{': return read_count(here);
      case '^': return put_assertion(Kind::start);
      case '$': return put_assertion(Kind::end);
      case '.': return put_item(~characters('\n'));
      case '[': return read_set(here);
      case '\\': return read_escape(here);
      default: return put_item(characters(text_[here]));
    }
  }

  void begin_group(std::size_t here) {
    const std::string_view rest = text_.substr(here);
    if (rest.starts_with("(?P<")) {
      read_group_name(here + 4);
    } else if (rest.starts_with("(?:")) {
      at_ = here + 3;
    } else if (rest.starts_with("(?")) {
      for (const PatternStranger& each : pattern_strangers) {
        if (rest.starts_with(each.text)) refuse(here, each.text.size(), each.what);
      }
    }
    groups_.push_back({.at = here, .first = size(), .alternative = size()});
    before_ = Before::nothing;
  }

  void read_group_name(std::size_t begin) {
    const std::size_t end = std::min(text_.find('>', begin), text_.size());
    const std::string_view name = text_.substr(begin, end - begin);
    const bool plain = std::all_of(name.begin(), name.end(),
                                   [](char c) { return is_letter(c) || is_digit(c) || c == '_'; });
    if (end == text_.size() || name.empty() || !plain || is_digit(name.front())) {
      fail(begin, concat("expected a group's name and '>', found ", in_quotes(name)));
    }
    if (!names_.insert(name).second) {
      fail(begin, concat("group ", in_quotes(name), " is there a second time"));
    }
    at_ = end + 1;
  }

  void begin_alternative() {
    Group& group = groups_.back();
    // The way to this alternative begins before the one that ends here.
    require_room(size() + 2, at_ - 1);
    const Index over = size() - group.alternative + 2;
    states_.row.insert(states_.row.begin() + group.alternative,
                       {.kind = Kind::split, .other = over});
    group.jumps.push_back(size());
    put({.kind = Kind::jump});
    group.alternative = size();
    before_ = Before::nothing;
  }

  void end_group() {
    const Group& group = groups_.back();
    for (const Index jump : group.jumps) {
      states_.row[static_cast<std::size_t>(jump)].other = size() - jump;
    }
    before_ = Before::item;
    item_ = group.first;
    groups_.pop_back();
  }

  /// Without a count in it, a brace is a character as others.
  void read_count(std::size_t here) {
    const auto digits = [&] {
      const std::size_t begin = at_;
      while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
      return text_.substr(begin, at_ - begin);
    };
    const std::string_view least = digits();
    const bool range = take(',');
    const std::string_view most = range ? digits() : least;
    if (!take('}') || (!range && least.empty())) {
      at_ = here + 1;
      return put_item(characters('{'));
    }
    const Index low = least.empty() ? 0 : count(here, least);
    if (most.empty()) return repeat(here, low, {});
    const Index high = count(here, most);
    if (high < low) fail(here, concat("expected at least ", low, " as the most, found ", high));
    repeat(here, low, high);
  }

  [[nodiscard]] Index count(std::size_t here, std::string_view digits) const {
    Index number = 0;
    for (const char digit : digits) {
      number = number * 10 + (digit - '0');
      if (number <= most_pattern_states) continue;
      fail(here, concat("expected a count of at most ", most_pattern_states, ", found ",
                        in_quotes(digits)));
    }
    return number;
  }

  /// What was read last, `least` to `most` times; without `most` any number from `least`.
  void repeat(std::size_t here, Index least, std::optional<Index> most) {
    if (before_ == Before::nothing || before_ == Before::assertion) {
      fail(here, "expected something to repeat before it, found none");
    }
    if (before_ == Before::repeated) fail(here, "is a second repetition of one thing");
    if (next_is('+')) refuse(here, at_ + 1 - here, "a possessive quantifier");
    (void)take('?');  // fewer first: the same names in the end
    before_ = Before::repeated;
    const std::vector<PatternState> body(states_.row.begin() + item_, states_.row.end());
    const Index length = std::ssize(body);
    if (length == 0) return;
    const Index optional = most ? *most - least : least == 0 ? 1 : 0;
    require_room(item_ + least * length + optional * (length + 1) + (most ? 0 : 1), here);
    states_.row.resize(static_cast<std::size_t>(item_));
    for (Index i = 0; i < least; ++i) put_all(body);
    for (Index left = optional; left > 0; --left) {
      put({.kind = Kind::split, .other = left * (length + 1) + (most ? 0 : 1)});
      put_all(body);
    }
    if (most) return;
    if (least == 0) return put({.kind = Kind::jump, .other = -(length + 1)});
    put({.kind = Kind::split, .other = -length});
  }

  void read_escape(std::size_t here) {
    if (at_ == text_.size()) fail(here, "expected a character behind it, found the end");
    const char letter = text_[at_++];
    if (letter == 'A') return put_assertion(Kind::start);
    if (letter == 'Z') return put_assertion(Kind::absolute_end);
    if (letter == 'b' || letter == 'B') refuse(here, 2, "a boundary of words");
    if (is_digit(letter)) refuse(here, 2, "a back-reference or octal number");
    if (const auto set = characters_of_kind(letter)) return put_item(*set);
    put_item(characters(escaped(here, letter)));
  }

  /// The one character that an escape stands for, in a set and outside.
  [[nodiscard]] char escaped(std::size_t here, char letter) const {
    switch (letter) {
      case 'a': return '\a';
      case 'f': return '\f';
      case 'n': return '\n';
      case 'r': return '\r';
      case 't': return '\t';
      case 'v': return '\v';
      default: break;
    }
    if (is_letter(letter) || is_digit(letter)) refuse(here, 2, "this escape");
    return letter;
  }

  /// One entry of a set: a character, or the characters of a kind.
  struct Entry {
    std::optional<char> one;
    CharacterSet set;
  };
  [[nodiscard]] Entry read_entry(std::size_t opened) {
    if (at_ == text_.size()) unclosed(opened);
    const std::size_t here = at_;
    char c = text_[at_++];
    if (c == '\\') {
      if (at_ == text_.size()) unclosed(opened);
      const char letter = text_[at_++];
      if (const auto set = characters_of_kind(letter)) return {{}, *set};
      c = letter == 'b' ? '\b' : escaped(here, letter);
    }
    return {c, characters(c)};
  }
  [[noreturn]] void unclosed(std::size_t opened) const {
    fail(opened, "expected a ']' for this '[', found none");
  }

  void read_set(std::size_t opened) {
    CharacterSet set;
    const bool all_but = take('^');
    // A bracket that comes first is a character.
    for (bool first = true; first || !take(']'); first = false) {
      const std::size_t here = at_;
      const Entry entry = read_entry(opened);
      set |= entry.set;
      if (!take('-')) continue;
      if (take(']')) {
        set |= characters('-');
        break;
      }
      const Entry last = read_entry(opened);
      if (!entry.one || !last.one || *last.one < *entry.one) {
        fail(here, concat(in_quotes(text_.substr(here, at_ - here)), " is no range"));
      }
      set |= characters(*entry.one, *last.one);
    }
    put_item(all_but ? ~set : set);
  }

  std::string_view text_;
  std::size_t at_ = 0;
  PatternStates states_;
  std::vector<Group> groups_;
  std::set<std::string_view> names_;
  Before before_ = Before::nothing;
  Index item_ = 0;  // the first state of what was read last
};

}  // namespace mora::inline MORA_ABI::detail
