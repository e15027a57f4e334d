// SPDX-License-Identifier: MIT
#pragma once

#include <mora/models/batch.hpp>
#include <ostream>
#include <span>
#include <vector>

#include "support/random.hpp"

/// \file
/// Batches that are compared and printed, and random tokens.

namespace mora {

inline bool operator==(const Batch& a, const Batch& b) {
  return a.tokens == b.tokens && a.targets == b.targets && a.starts == b.starts;
}

inline void PrintTo(const Batch& batch, std::ostream* stream) {
  const auto print = [&](const char* name, const auto& numbers) {
    *stream << name;
    for (const auto number : numbers) *stream << " " << number;
  };
  print("tokens", batch.tokens);
  print("; targets", batch.targets);
  print("; starts", batch.starts);
}

}  // namespace mora

namespace mora_tests {

using mora::Batch;
using mora::Token;
using Tokens = std::vector<Token>;

[[nodiscard]] inline Tokens random_tokens(Random& random, Index size, Index vocabulary) {
  Tokens tokens(static_cast<std::size_t>(size));
  for (Token& token : tokens) {
    token = Token(mora::uniform_below(std::uint64_t(vocabulary), random.generator()));
  }
  return tokens;
}

/// A span that claims to be longer than its memory, for what is refused before it is read.
[[nodiscard]] inline std::span<const Token> claimed_tokens(Index size) {
  static const Token token = 0;
  return {&token, static_cast<std::size_t>(size)};
}

}  // namespace mora_tests
