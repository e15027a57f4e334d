// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "mora/core/matrix.hpp"
#include "mora/core/random.hpp"

namespace experiment {

using mora::Index;

/// A version-4 UUID (RFC 9562, Section 5.4) as its 32 hexadecimal digits, each 0 ... 15.
///
/// Of its 128 bits 122 are random: the version digit is always 4, and the variant digit is one of
/// 8, 9, a and b. So 29 digits hold 4 random bits, the variant digit 2 and the version digit none.
struct Uuid {
  static constexpr std::size_t digits = 32;
  static constexpr std::size_t values = 16;  ///< Of a digit.
  static constexpr std::size_t version_digit = 12;
  static constexpr std::size_t variant_digit = 16;
  static constexpr double random_bits = 122.0;

  std::array<std::uint8_t, digits> digit{};

  /// Whether a digit has random bits: all but the version.
  static constexpr bool is_random(std::size_t place) { return place != version_digit; }
  static constexpr Index random_digits = 31;

  /// The first value that a digit can have, and how many: 8, 9, a, b for the variant.
  static constexpr Index first_value(std::size_t place) { return place == variant_digit ? 8 : 0; }
  static constexpr Index value_count(std::size_t place) { return place == variant_digit ? 4 : 16; }

  template <mora::Generator64 G>
  static Uuid draw(G& generator) {
    Uuid uuid;
    for (std::size_t half = 0; half < 2; ++half) {
      std::uint64_t bits = generator();
      for (std::size_t i = 0; i < digits / 2; ++i, bits >>= 4) {
        uuid.digit[half * digits / 2 + i] = static_cast<std::uint8_t>(bits & 15);
      }
    }
    uuid.digit[version_digit] = 4;
    uuid.digit[variant_digit] = static_cast<std::uint8_t>(8 | (uuid.digit[variant_digit] & 3));
    return uuid;
  }
};

}  // namespace experiment
