// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>

#include "mora/core/error.hpp"

namespace mora::inline MORA_ABI::detail {

/// A name as messages show it: in quotes, on one line, and not longer than a line or two.
[[nodiscard]] inline std::string in_quotes(std::string_view name) {
  constexpr std::size_t most = 200;
  constexpr char digits[] = "0123456789abcdef";
  std::string text = "'";
  for (const char c : name.substr(0, most)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      text += c;
    } else {
      text += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
    }
  }
  text += '\'';
  if (name.size() > most) text += concat("... (", name.size(), " bytes)");
  return text;
}

}  // namespace mora::inline MORA_ABI::detail
