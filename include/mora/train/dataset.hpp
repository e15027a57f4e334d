// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>

#include "mora/models/batch.hpp"

namespace mora::inline MORA_ABI {

/// Numbered examples that can be put into a batch: `add_to(i, batch)` adds one sequence, for i in
/// [0, size()). The size does not change while batches are made. See TokenWindows for running text,
/// PromptResponses for questions with answers. One of a user's own:
///
///     struct Countdowns {  // 3 2 1 0, and the like
///       mora::Index size() const { return 9; }
///       void add_to(mora::Index i, mora::Batch& batch) const {
///         std::vector<mora::Token> tokens;
///         for (mora::Index t = i + 1; t >= 0; --t) tokens.push_back(mora::Token(t));
///         batch.add_next_tokens(tokens);
///       }
///     };
template <class D>
concept Dataset = requires(const D& dataset, Index example, Batch& batch) {
  { dataset.size() } -> std::convertible_to<Index>;
  dataset.add_to(example, batch);
};

namespace detail {

inline void require_example(Index example, Index size) {
  if (example < 0 || example >= size) {
    throw ArgumentError(concat("example: expected 0 <= example < ", size, ", found ", example));
  }
}

}  // namespace detail
}  // namespace mora::inline MORA_ABI
