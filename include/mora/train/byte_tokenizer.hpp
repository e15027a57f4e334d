// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mora/models/batch.hpp"

namespace mora::inline MORA_ABI {

/// A token a byte, and three that are no bytes. Any text is encoded, and decoded to the same bytes.
class ByteTokenizer {
 public:
  static constexpr Token bos = 256;  ///< Begins a text.
  static constexpr Token eos = 257;  ///< Ends one.
  static constexpr Token pad = 258;  ///< Fills up, where somebody else's format asks for it.
  static constexpr Index vocabulary = 259;

  /// The bytes alone: who wants `bos` and `eos` puts them there.
  [[nodiscard]] std::vector<Token> encode(std::string_view text) const {
    std::vector<Token> tokens(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) tokens[i] = static_cast<unsigned char>(text[i]);
    return tokens;
  }

  /// The special tokens are left out. Throws ArgumentError for a token outside the vocabulary. The
  /// text may be no valid UTF-8: a model can say any bytes.
  [[nodiscard]] std::string decode(std::span<const Token> tokens) const {
    std::string text;
    text.reserve(tokens.size());
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const Token token = tokens[i];
      if (token < 0 || token >= vocabulary) {
        throw ArgumentError(
            detail::concat("token ", i, ": expected 0 to ", vocabulary - 1, ", found ", token));
      }
      if (token < bos) text.push_back(static_cast<char>(token));
    }
    return text;
  }
};

}  // namespace mora::inline MORA_ABI
