// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "mora/core/error.hpp"

namespace mora::inline MORA_ABI {

/// \file
/// Floating-point numbers of 8 and 16 bits, as files hold them: no arithmetic, conversions only.
///
/// widen<R> gives the number itself; every one is exact in float and double. narrow<F> rounds to
/// the nearest, ties to even, once also from double (by way of float it would be twice). What
/// rounds beyond the largest number becomes infinity, or NaN in a format without infinities, as in
/// PyTorch and ml_dtypes. NaN stays NaN with its sign and what fits of its payload, and is quiet
/// after narrow. Both are free of branches, so that loops over them use vectors.

/// IEEE 754 binary16: 1 sign, 5 exponent, 10 mantissa bits. Largest number 65504.
struct Float16 {
  std::uint16_t bits = 0;
  bool operator==(const Float16&) const = default;  ///< Of the bits.
};

/// bfloat16: 1 sign, 8 exponent, 7 mantissa bits; the upper half of a float.
struct BFloat16 {
  std::uint16_t bits = 0;
  bool operator==(const BFloat16&) const = default;  ///< Of the bits.
};

/// FP8 E4M3 without infinities ("e4m3fn"; OCP 8-bit Floating Point Specification 1.0). Largest
/// number 448; NaN is 0x7f and 0xff.
struct Float8E4M3 {
  std::uint8_t bits = 0;
  bool operator==(const Float8E4M3&) const = default;  ///< Of the bits.
};

/// FP8 E5M2, with infinities as in IEEE 754 (the same specification). Largest number 57344.
struct Float8E5M2 {
  std::uint8_t bits = 0;
  bool operator==(const Float8E5M2&) const = default;  ///< Of the bits.
};

namespace detail {

/// A format whose exponent's bias is 2^(exponent - 1) - 1. `Bits` holds one number.
template <class B, int exponent_bits, int mantissa_bits, bool with_infinity>
struct FloatFormat {
  using Bits = B;
  static constexpr int mantissa = mantissa_bits;
  static constexpr int bias = (1 << (exponent_bits - 1)) - 1;
  static constexpr int sign = exponent_bits + mantissa_bits;  ///< Its bit's number.
  /// The first pattern that is no finite number, signs apart: infinity, or the only NaN.
  static constexpr Bits special = static_cast<Bits>(
      with_infinity ? ((Bits{1} << exponent_bits) - 1) << mantissa_bits : (Bits{1} << sign) - 1);
};

template <class F>
struct FormatOf;
template <>
struct FormatOf<float> : FloatFormat<std::uint32_t, 8, 23, true> {};
template <>
struct FormatOf<double> : FloatFormat<std::uint64_t, 11, 52, true> {};
template <>
struct FormatOf<Float16> : FloatFormat<std::uint16_t, 5, 10, true> {};
template <>
struct FormatOf<BFloat16> : FloatFormat<std::uint16_t, 8, 7, true> {};
template <>
struct FormatOf<Float8E4M3> : FloatFormat<std::uint8_t, 4, 3, false> {};
template <>
struct FormatOf<Float8E5M2> : FloatFormat<std::uint8_t, 5, 2, true> {};

/// condition ? yes : no, written so that compilers see no branch in it.
template <class Bits>
[[nodiscard]] constexpr Bits select(bool condition, Bits yes, Bits no) {
  const Bits mask = Bits{0} - static_cast<Bits>(condition);
  return (yes & mask) | (no & ~mask);
}

template <class R>
concept WideFloat = std::same_as<R, float> || std::same_as<R, double>;

template <class F>
concept AnyFloat = WideFloat<F> || std::same_as<F, Float16> || std::same_as<F, BFloat16> ||
    std::same_as<F, Float8E4M3> || std::same_as<F, Float8E5M2>;

static_assert(std::numeric_limits<float>::is_iec559 && std::numeric_limits<double>::is_iec559);

}  // namespace detail

/// A number of 8 or 16 bits.
template <class F>
concept SmallFloat = detail::AnyFloat<F> && !detail::WideFloat<F>;

/// The number itself as a float or double.
template <detail::WideFloat R, SmallFloat F>
[[nodiscard]] constexpr R widen(F x) {
  using Small = detail::FormatOf<F>;
  using Wide = detail::FormatOf<R>;
  using Bits = typename Wide::Bits;
  constexpr int shift = Wide::mantissa - Small::mantissa;
  constexpr Bits one = Bits{1} << Wide::mantissa;  // one step of the exponent
  constexpr Bits rebias = static_cast<Bits>(Wide::bias - Small::bias) << Wide::mantissa;

  const Bits all = x.bits;
  const Bits magnitude = all & ((Bits{1} << Small::sign) - 1);
  const Bits sign = (all >> Small::sign) << Wide::sign;
  Bits bits = (magnitude << shift) + rebias;
  if constexpr (rebias != 0) {
    // A subnormal has no leading 1: give it one, and subtract it again as a number.
    const R subnormal = std::bit_cast<R>(bits + one) - std::bit_cast<R>(rebias + one);
    bits = detail::select(magnitude < (Bits{1} << Small::mantissa), std::bit_cast<Bits>(subnormal),
                          bits);
  }
  bits = detail::select(magnitude >= Small::special, (magnitude << shift) | Wide::special, bits);
  return std::bit_cast<R>(bits | sign);
}

/// The nearest number of the format.
template <SmallFloat F, detail::WideFloat R>
[[nodiscard]] constexpr F narrow(R x) {
  using Small = detail::FormatOf<F>;
  using Wide = detail::FormatOf<R>;
  using Bits = typename Wide::Bits;
  constexpr int shift = Wide::mantissa - Small::mantissa;
  constexpr Bits rebias = static_cast<Bits>(Wide::bias - Small::bias) << Wide::mantissa;
  constexpr Bits special = Small::special;

  const Bits all = std::bit_cast<Bits>(x);
  const Bits magnitude = all & ((Bits{1} << Wide::sign) - 1);
  const Bits sign = (all >> Wide::sign) << Small::sign;
  // Just below a half, or the half itself where the last bit that stays is odd.
  const Bits half = ((Bits{1} << (shift - 1)) - 1) + ((magnitude >> shift) & 1);
  Bits bits = (magnitude + half - rebias) >> shift;
  if constexpr (rebias != 0) {
    // The last bit of `ruler` is worth that of a subnormal, so that the addition rounds.
    constexpr Bits ruler = static_cast<Bits>(Wide::bias + 1 - Small::bias + shift)
                           << Wide::mantissa;
    const R sum = std::bit_cast<R>(magnitude) + std::bit_cast<R>(ruler);
    constexpr Bits least_normal = rebias + (Bits{1} << Wide::mantissa);
    bits = detail::select(magnitude < least_normal, std::bit_cast<Bits>(sum) - ruler, bits);
  }
  // Below least_normal `bits` cannot be that large; above, it grows with the magnitude.
  bits = detail::select(bits > special, special, bits);
  constexpr Bits quiet = Bits{1} << (Small::mantissa - 1);
  const Bits payload = (magnitude >> shift) & ((Bits{1} << Small::mantissa) - 1);
  bits = detail::select(magnitude > Wide::special, special | quiet | payload, bits);
  return {static_cast<typename Small::Bits>(bits | sign)};
}

/// Any of the six formats into any other, rounded once.
template <detail::AnyFloat To, detail::AnyFloat From>
[[nodiscard]] constexpr To convert_number(From x) {
  if constexpr (std::same_as<To, From>) {
    return x;
  } else if constexpr (detail::WideFloat<From>) {
    if constexpr (detail::WideFloat<To>) {
      return static_cast<To>(x);
    } else {
      return narrow<To>(x);
    }
  } else if constexpr (detail::WideFloat<To>) {
    return widen<To>(x);
  } else {
    return narrow<To>(widen<float>(x));
  }
}

/// Each number of one span into its place in another, which does not overlap. Throws ShapeError for
/// spans of different sizes.
template <detail::AnyFloat From, detail::AnyFloat To>
void convert(std::span<const From> from, std::span<To> to) {
  detail::require_size("numbers", from.size(), to.size());
  for (std::size_t i = 0; i < from.size(); ++i) to[i] = convert_number<To>(from[i]);
}

/// False for NaN and infinity.
template <SmallFloat F>
[[nodiscard]] constexpr bool is_finite(F x) {
  using Small = detail::FormatOf<F>;
  return (x.bits & ((1u << Small::sign) - 1)) < Small::special;
}

}  // namespace mora::inline MORA_ABI
