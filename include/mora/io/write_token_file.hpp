// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>

#include "mora/io/atomic_file.hpp"
#include "mora/io/token_file.hpp"

namespace mora::inline MORA_ABI {

/// Writes what TokenFile reads, all of it or nothing (AtomicFile): also over a file that is being
/// read, and whose readers keep what they have. Throws ArgumentError for no tokens and for one that
/// the type cannot hold, with its position, before anything is written; FileError where the system
/// refuses.
template <TokenSequence S>
void write_token_file(const std::filesystem::path& path, const S& tokens, TokenType type) {
  TokenFileSettings{.type = type, .vocabulary = max_vocabulary}.validate();
  const Index size = static_cast<Index>(tokens.size());
  if (size < 1) throw ArgumentError("tokens: expected at least 1, found 0");
  const Token largest =
      type == TokenType::uint16 ? Token{0xffff} : std::numeric_limits<Token>::max();
  for (Index i = 0; i < size; ++i) {
    const Token token = tokens[i];
    if (token < 0 || token > largest) {
      throw ArgumentError(
          detail::concat("token ", i, ": expected 0 to ", largest, ", found ", token));
    }
  }
  AtomicFile file(path);
  std::array<std::byte, 1 << 14> buffer;
  const Index bytes = detail::bytes_of(type);
  const Index most = static_cast<Index>(buffer.size()) / bytes;
  for (Index first = 0; first < size; first += most) {
    const Index count = std::min(most, size - first);
    for (Index i = 0; i < count; ++i) {
      const auto token = static_cast<std::uint32_t>(Token{tokens[first + i]});
      for (Index byte = 0; byte < bytes; ++byte) {
        buffer[i * bytes + byte] = static_cast<std::byte>(token >> (8 * byte) & 0xff);
      }
    }
    file.write(std::span(buffer).first(static_cast<std::size_t>(count * bytes)));
  }
  file.commit();
}

}  // namespace mora::inline MORA_ABI
