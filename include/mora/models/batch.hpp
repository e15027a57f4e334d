// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "mora/core/error.hpp"
#include "mora/core/index.hpp"

/// \file
/// What a language model reads and is trained on: tokens, and the tokens that shall follow them.

namespace mora::inline MORA_ABI {

/// A number in [0, vocabulary).
using Token = std::int32_t;

/// As a target: no loss at this position.
inline constexpr Token ignored = -1;

/// As many different tokens as there are numbers for them.
inline constexpr Index max_vocabulary = Index{std::numeric_limits<Token>::max()} + 1;

/// The most positions of a batch: those that an `int` can number.
inline constexpr Index max_positions = std::numeric_limits<std::int32_t>::max();

/// Tokens that can be asked for one by one: std::span<const Token>, std::vector<Token>, TokenFile.
template <class S>
concept TokenSequence = requires(const S& sequence, Index i) {
  { sequence.size() } -> std::convertible_to<Index>;
  { sequence[i] } -> std::convertible_to<Token>;
};

namespace detail {

inline void require_vocabulary(Index vocabulary) {
  if (vocabulary < 1 || vocabulary > max_vocabulary) {
    throw ArgumentError(
        concat("vocabulary: expected 1 to ", max_vocabulary, ", found ", vocabulary));
  }
}

inline void require_first(Index first, Index size) {
  if (first < 0 || first > size) {
    throw ArgumentError(concat("first: expected 0 to ", size, ", found ", first));
  }
}

/// Room for `more` numbers behind those that are there, growing by doubling as push_back does.
template <class T>
void reserve_more(std::vector<T>& numbers, std::size_t more) {
  const std::size_t needed = numbers.size() + more;
  if (needed > numbers.capacity()) numbers.reserve(std::max(needed, 2 * numbers.capacity()));
}

/// Whether the span lies in the memory of the vector.
template <class T>
[[nodiscard]] bool is_part_of(std::span<const T> part, const std::vector<T>& whole) {
  const std::less<const T*> before;
  return !part.empty() && before(part.data(), whole.data() + whole.size()) &&
         before(whole.data(), part.data() + part.size());
}

}  // namespace detail

/// The usual targets: targets[i] = tokens[i + 1], with loss on the tokens from number `first` on
/// alone: Hugging Face's labels, which are the tokens themselves from `first` on, shifted to the
/// position that predicts them. Nothing predicts token 0, and the last position predicts nothing.
/// Throws ShapeError for targets of another size, ArgumentError unless 0 <= first <= size.
inline void next_token_targets(std::span<const Token> tokens, Index first,
                               std::span<Token> targets) {
  detail::require_size("targets", tokens.size(), targets.size());
  detail::require_first(first, std::ssize(tokens));
  const Index size = std::ssize(tokens);
  for (Index i = 0; i < size; ++i) {
    targets[i] = i + 1 < size && i + 1 >= first ? tokens[i + 1] : ignored;
  }
}

/// Sequences of different lengths, one after another without padding ("packed").
struct Batch {
  std::vector<Token> tokens;        ///< [positions].
  std::vector<Token> targets;       ///< [positions], what shall follow at each, or `ignored`.
  std::vector<Index> starts = {0};  ///< [sequences + 1], from 0 to positions.

  [[nodiscard]] Index positions() const { return std::ssize(tokens); }
  [[nodiscard]] Index sequences() const { return starts.empty() ? 0 : std::ssize(starts) - 1; }

  /// What speeds are given in.
  [[nodiscard]] Index token_count() const { return positions(); }
  /// The positions with loss, which a mean divides by. It can be 0.
  [[nodiscard]] Index target_count() const {
    return std::ssize(targets) - std::count(targets.begin(), targets.end(), ignored);
  }

  /// Empties the batch; its memory is kept for the next one.
  void clear() {
    tokens.clear();
    targets.clear();
    starts.assign(1, 0);
  }

  /// A further sequence. Throws ShapeError for one without positions, for sizes that differ, for
  /// more than max_positions together; ArgumentError for memory of this batch.
  void add(std::span<const Token> sequence, std::span<const Token> next) {
    detail::require_size("targets of a sequence", sequence.size(), next.size());
    require_room(std::ssize(sequence));
    require_foreign(sequence);
    require_foreign(next);
    reserve(std::ssize(sequence));
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
    targets.insert(targets.end(), next.begin(), next.end());
    starts.push_back(positions());
  }

  /// A further sequence with its `next_token_targets`.
  void add_next_tokens(std::span<const Token> sequence, Index first = 0) {
    detail::require_first(first, std::ssize(sequence));
    require_room(std::ssize(sequence));
    require_foreign(sequence);
    reserve(std::ssize(sequence));
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
    targets.resize(tokens.size());
    next_token_targets(sequence, first, std::span(targets).last(sequence.size()));
    starts.push_back(positions());
  }

  /// The positions [first, first + count) of a text as a further sequence, each with the token
  /// behind it as its target. Throws ShapeError unless the text has these and one token more.
  template <TokenSequence S>
  void add_window(const S& text, Index first, Index count) {
    const Index size = static_cast<Index>(text.size());
    if (first < 0 || count < 0 || first >= size || count > size - 1 - first) {
      throw ShapeError(detail::concat("window: expected a part of ", size,
                                      " tokens and one behind it, found ", count, " from number ",
                                      first));
    }
    require_room(count);
    if constexpr (std::convertible_to<const S&, std::span<const Token>>) require_foreign(text);
    reserve(count);
    for (Index i = first; i < first + count; ++i) {
      tokens.push_back(static_cast<Token>(text[i]));
      targets.push_back(static_cast<Token>(text[i + 1]));
    }
    starts.push_back(positions());
  }

  /// For models, before they read: throws ShapeError for sizes that do not fit or a sequence
  /// without positions, ArgumentError for a token outside [0, vocabulary) or a target that is
  /// neither `ignored` nor there. A batch without sequences is valid.
  void validate(Index vocabulary) const {
    detail::require_vocabulary(vocabulary);
    require_sequences();
    for (Index sequence = 0; sequence < sequences(); ++sequence) {
      for (Index i = starts[sequence]; i < starts[sequence + 1]; ++i) {
        const auto require = [&](const char* what, Token least, Token found) {
          if (found < least || found >= vocabulary) {
            throw ArgumentError(detail::concat(what, " ", i - starts[sequence], " of sequence ",
                                               sequence, " (position ", i, "): expected ", least,
                                               " to ", vocabulary - 1, ", found ", found));
          }
        };
        require("token", 0, tokens[i]);
        require("target", ignored, targets[i]);
      }
    }
  }

 private:
  void require_room(Index more) const {
    require_sizes();
    if (more < 1) {
      throw ShapeError(
          detail::concat("sequence ", sequences(), ": expected at least one position, found 0"));
    }
    const Index room = max_positions - positions();
    if (more > room) {
      throw ShapeError(detail::concat("sequence ", sequences(), ": expected at most ", room,
                                      " positions behind the ", positions(),
                                      " that are there, found ", more));
    }
  }

  /// All the memory that a sequence of so many positions needs: after this nothing can fail.
  void reserve(Index more) {
    detail::reserve_more(tokens, static_cast<std::size_t>(more));
    detail::reserve_more(targets, static_cast<std::size_t>(more));
    detail::reserve_more(starts, 1);
  }

  /// The batch's own memory may move while it is read.
  void require_foreign(std::span<const Token> sequence) const {
    if (detail::is_part_of(sequence, tokens) || detail::is_part_of(sequence, targets)) {
      throw ArgumentError("sequence: expected memory of its own, found a part of the batch");
    }
  }

  void require_sizes() const {
    if (positions() > max_positions) {
      throw ShapeError(
          detail::concat("tokens: expected at most ", max_positions, ", found ", positions()));
    }
    detail::require_size("targets", tokens.size(), targets.size());
    if (starts.empty()) throw ShapeError("starts: expected at least one number, found 0");
    detail::require_size("first of starts", Index{0}, starts.front());
    detail::require_size("last of starts", positions(), starts.back());
  }

  void require_sequences() const {
    require_sizes();
    for (Index sequence = 0; sequence < sequences(); ++sequence) {
      if (starts[sequence] >= starts[sequence + 1]) {
        throw ShapeError(detail::concat("sequence ", sequence,
                                        ": expected an end behind its start ", starts[sequence],
                                        ", found ", starts[sequence + 1]));
      }
    }
  }
};

}  // namespace mora::inline MORA_ABI
