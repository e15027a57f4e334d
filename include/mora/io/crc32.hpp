// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace mora::inline MORA_ABI::detail {

/// CRC-32 as zlib, PNG and Ethernet have it (polynomial 0x04c11db7, reflected): finds every change
/// of up to 32 neighbouring bits.
[[nodiscard]] inline std::uint32_t crc32(std::span<const std::byte> bytes) {
  static constexpr auto table = [] {
    std::array<std::uint32_t, 256> entries{};
    for (std::uint32_t i = 0; i < entries.size(); ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) {
        value = (value & 1) != 0 ? value >> 1 ^ 0xedb88320u : value >> 1;
      }
      entries[i] = value;
    }
    return entries;
  }();
  std::uint32_t sum = 0xffffffffu;
  for (const std::byte byte : bytes) {
    sum = table[(sum ^ std::to_integer<std::uint32_t>(byte)) & 0xff] ^ sum >> 8;
  }
  return ~sum;
}

}  // namespace mora::inline MORA_ABI::detail
