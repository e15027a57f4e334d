// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <span>
#include <vector>
#include "mora/core/matrix.hpp"
namespace mora::inline MORA_ABI {
using Token = std::int32_t;
inline constexpr Token ignored = -1;
struct Batch {
  std::vector<Token> tokens;
  std::vector<Token> targets;
  std::vector<Index> starts{0};
  [[nodiscard]] Index sequences() const { return static_cast<Index>(starts.size()) - 1; }
  [[nodiscard]] Index positions() const { return static_cast<Index>(tokens.size()); }
  [[nodiscard]] Index target_count() const {
    Index n = 0;
    for (Token t : targets) n += t != ignored;
    return n;
  }
  void clear() { tokens.clear(); targets.clear(); starts.assign(1, 0); }
  void add(std::span<const Token> t, std::span<const Token> y) {
    tokens.insert(tokens.end(), t.begin(), t.end());
    targets.insert(targets.end(), y.begin(), y.end());
    starts.push_back(positions());
  }
  void validate(Index vocabulary) const {
    for (Token t : tokens) if (t < 0 || t >= vocabulary) throw ArgumentError("token");
  }
};
}
