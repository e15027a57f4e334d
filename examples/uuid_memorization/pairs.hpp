// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "experiment/uuid.hpp"
#include "mora/models/batch.hpp"

namespace uuid_memorization {

using experiment::Uuid;
using mora::Index;
using mora::Token;

/// The vocabulary: the digits 0 to f are the tokens 0 to 15. What stands between key and value says
/// what the value is.
namespace separator {
inline constexpr Token recall = 16;   ///< What was learnt for the key.
inline constexpr Token copy = 17;     ///< The key itself.
inline constexpr Token swapped = 18;  ///< The key's second half, then its first.
}  // namespace separator
inline constexpr Index vocabulary = 20;

/// Positions of a pair: the key, the separator and the value without its last digit. The 32 from
/// the separator on have the value's digits as their targets, and only they have a loss.
inline constexpr Index pair_positions = 2 * Index{Uuid::digits};
inline constexpr Index first_target = Index{Uuid::digits};

/// The pair as a further sequence.
inline void add_pair(const Uuid& key, Token between, const Uuid& value, mora::Batch& batch) {
  std::array<Token, 2 * Uuid::digits + 1> text{};
  for (std::size_t i = 0; i < Uuid::digits; ++i) {
    text[i] = key.digit[i];
    text[Uuid::digits + 1 + i] = value.digit[i];
  }
  text[Uuid::digits] = between;
  std::array<Token, 2 * Uuid::digits> targets{};
  for (std::size_t i = 0; i < targets.size(); ++i) {
    targets[i] = i < Uuid::digits ? mora::ignored : text[i + 1];
  }
  batch.add(std::span(text).first(targets.size()), targets);
}

/// The value of a task that is a function of the key.
[[nodiscard]] inline Uuid value_of(const Uuid& key, Token task) {
  if (task == separator::copy) return key;
  Uuid value;
  for (std::size_t i = 0; i < Uuid::digits; ++i) {
    value.digit[i] = key.digit[(i + Uuid::digits / 2) % Uuid::digits];
  }
  return value;
}

/// Random pairs to remember; a data set of training. The seed decides everything; smaller sets are
/// the beginnings of larger ones.
class PairSet {
 public:
  struct Pair {
    Uuid key;
    Uuid value;
  };

  PairSet(Index pairs, std::uint64_t seed) {
    mora::SplitMix64 generator(seed);
    for (Index i = 0; i < pairs; ++i) {
      const Uuid key = Uuid::draw(generator);
      pairs_.push_back({key, Uuid::draw(generator)});
    }
  }

  [[nodiscard]] Index size() const { return std::ssize(pairs_); }
  [[nodiscard]] const Pair& operator[](Index i) const {
    return pairs_[static_cast<std::size_t>(i)];
  }
  void add_to(Index i, mora::Batch& batch) const {
    add_pair((*this)[i].key, separator::recall, (*this)[i].value, batch);
  }

  /// The same keys and values, with each value at the next key: what a model still gets right of
  /// them it does not know from the key.
  [[nodiscard]] PairSet exchanged() const {
    PairSet other = *this;
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
      other.pairs_[i].value = pairs_[(i + 1) % pairs_.size()].value;
    }
    return other;
  }

 private:
  std::vector<Pair> pairs_;
};

}  // namespace uuid_memorization
