// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include "mora/core/error.hpp"

namespace mora::inline MORA_ABI::detail {

/// A text on one line, without what a terminal would obey. UTF-8 stays UTF-8.
[[nodiscard]] inline std::string without_controls(std::string_view name) {
  constexpr char digits[] = "0123456789abcdef";
  const auto byte_at = [&](std::size_t i) { return static_cast<unsigned char>(name[i]); };
  std::string text;
  unsigned char before = 0;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const unsigned char byte = byte_at(i);
    const bool c0 = byte < 0x20 || byte == 0x7f;
    // U+0080 to U+009f, controls too, are 0xc2 and one more byte.
    const bool c1 =
        byte == 0xc2 && i + 1 < name.size() && byte_at(i + 1) >= 0x80 && byte_at(i + 1) < 0xa0;
    const bool c1_end = before == 0xc2 && byte >= 0x80 && byte < 0xa0;
    if (c0 || c1 || c1_end) {
      text += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
    } else {
      text += name[i];
    }
    before = byte;
  }
  return text;
}

/// A name as messages show it: in quotes, not longer than a line or two, and without controls.
[[nodiscard]] inline std::string in_quotes(std::string_view name) {
  const auto byte_at = [&](std::size_t i) { return static_cast<unsigned char>(name[i]); };
  std::size_t end = std::min<std::size_t>(name.size(), 200);
  // Not within a letter, all bytes of which but the first are 10xxxxxx.
  for (int i = 0; i < 3 && end < name.size() && (byte_at(end) & 0xc0) == 0x80; ++i) --end;
  std::string text = concat("'", without_controls(name.substr(0, end)), "'");
  if (end < name.size()) text += concat("... (", name.size(), " bytes)");
  return text;
}

}  // namespace mora::inline MORA_ABI::detail
