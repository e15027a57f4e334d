// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <map>
#include <mora/core/small_floats.hpp>
#include <random>
#include <string>
#include <vector>

#include "support/throws.hpp"

/// \file
/// All patterns of all small formats against numpy, ml_dtypes and PyTorch, by the checksums that
/// fixtures/make_small_floats.py makes and describes.

namespace mora_tests {
namespace {

using mora::BFloat16;
using mora::convert;
using mora::convert_number;
using mora::Float16;
using mora::Float8E4M3;
using mora::Float8E5M2;
using mora::narrow;
using mora::widen;

template <class F>
constexpr const char* name = "";
template <>
constexpr const char* name<Float16> = "f16";
template <>
constexpr const char* name<BFloat16> = "bf16";
template <>
constexpr const char* name<Float8E4M3> = "f8_e4m3";
template <>
constexpr const char* name<Float8E5M2> = "f8_e5m2";

/// Bits of one number.
template <class F>
using Bits = decltype(F{}.bits);

template <class F>
constexpr unsigned patterns = 1u << (8 * sizeof(F));
template <class F>
constexpr unsigned sign_bit = patterns<F> / 2;

/// CRC-32 of zlib's.
class Checksum {
 public:
  /// All bits set instead of NaN.
  template <class B>
  void add(B bits, bool is_nan) {
    if (is_nan) bits = static_cast<B>(~B{0});
    for (std::size_t byte = 0; byte < sizeof bits; ++byte) {
      sum_ ^= static_cast<std::uint32_t>(bits >> (8 * byte) & 0xff);
      for (int i = 0; i < 8; ++i) sum_ = sum_ >> 1 ^ (sum_ % 2 == 1 ? 0xedb88320u : 0u);
    }
  }
  [[nodiscard]] std::uint32_t value() const { return ~sum_; }

 private:
  std::uint32_t sum_ = ~0u;
};

template <class F>
[[nodiscard]] bool is_nan(F x) {
  return std::isnan(widen<double>(x));
}

/// The six numbers that stand for a pattern.
template <class R, class F>
[[nodiscard]] std::array<R, 6> around(F x) {
  const R value = widen<R>(x);
  if (!mora::is_finite(x)) return {value, value, value, value, value, value};
  const R infinity = std::copysign(std::numeric_limits<R>::infinity(), value);
  const R zero = std::copysign(R{0}, value);
  // The next pattern's number, or where it would be if the largest were not the last.
  const double here = widen<double>(x);
  const F next{static_cast<Bits<F>>(x.bits + 1)};
  const F before{static_cast<Bits<F>>(x.bits - 1)};
  const double step =
      mora::is_finite(next) ? widen<double>(next) - here : here - widen<double>(before);
  const R middle = static_cast<R>(here + step / 2);
  return {value,  std::nextafter(value, zero),  std::nextafter(value, infinity),
          middle, std::nextafter(middle, zero), std::nextafter(middle, infinity)};
}

using Sums = std::array<std::uint32_t, 4>;

template <class F>
[[nodiscard]] Sums sums_of(unsigned first) {
  Checksum sums[4];
  for (unsigned i = first; i < first + 256; ++i) {
    const F x{static_cast<Bits<F>>(i)};
    sums[0].add(std::bit_cast<std::uint32_t>(widen<float>(x)), is_nan(x));
    sums[1].add(std::bit_cast<std::uint64_t>(widen<double>(x)), is_nan(x));
    const auto narrowed = [](Checksum& sum, const auto& numbers) {
      for (const auto number : numbers) {
        const F result = narrow<F>(number);
        sum.add(result.bits, is_nan(result));
      }
    };
    narrowed(sums[2], around<float>(x));
    narrowed(sums[3], around<double>(x));
  }
  return {sums[0].value(), sums[1].value(), sums[2].value(), sums[3].value()};
}

[[nodiscard]] std::map<std::string, std::map<unsigned, Sums>> read_sums() {
  std::ifstream file(MORA_FIXTURES "/small_floats.txt");
  std::map<std::string, std::map<unsigned, Sums>> all;
  std::string format;
  for (unsigned first = 0; file >> format >> std::dec >> first;) {
    for (std::uint32_t& sum : all[format][first]) file >> std::hex >> sum;
  }
  return all;
}

template <class F>
class SmallFloats : public testing::Test {};
using Formats = testing::Types<Float16, BFloat16, Float8E4M3, Float8E5M2>;
TYPED_TEST_SUITE(SmallFloats, Formats);

TYPED_TEST(SmallFloats, ConvertAsOthersDo) {
  const auto sums = read_sums().at(name<TypeParam>);
  ASSERT_EQ(sums.size(), patterns<TypeParam> / 256);
  for (const auto& [first, expected] : sums) {
    EXPECT_EQ(sums_of<TypeParam>(first), expected) << "patterns from " << first;
  }
}

TYPED_TEST(SmallFloats, AreThemselvesAgain) {
  for (unsigned i = 0; i < patterns<TypeParam>; ++i) {
    const TypeParam x{static_cast<Bits<TypeParam>>(i)};
    const auto check = [&](TypeParam again) {
      if (!is_nan(x)) {
        EXPECT_EQ(again.bits, x.bits);
        return;
      }
      EXPECT_TRUE(is_nan(again)) << i;
      EXPECT_EQ(again.bits & sign_bit<TypeParam>, x.bits & sign_bit<TypeParam>);
      EXPECT_EQ(again.bits & x.bits, x.bits) << "of the payload the quiet bit alone may change";
    };
    check(narrow<TypeParam>(widen<float>(x)));
    check(narrow<TypeParam>(widen<double>(x)));
    check(convert_number<TypeParam>(x));
    EXPECT_EQ(mora::is_finite(x), std::isfinite(widen<float>(x)));
  }
}

// Also where the whole payload is in the bits that are cut off.
TYPED_TEST(SmallFloats, KeepNaN) {
  for (int bit = 0; bit < 23; ++bit) {
    EXPECT_TRUE(is_nan(narrow<TypeParam>(std::bit_cast<float>(0x7f800000u | 1u << bit))));
    EXPECT_TRUE(is_nan(narrow<TypeParam>(std::bit_cast<float>(0xff800000u | 1u << bit))));
  }
  for (int bit = 0; bit < 52; ++bit) {
    const auto payload = std::uint64_t{1} << bit;
    EXPECT_TRUE(is_nan(narrow<TypeParam>(std::bit_cast<double>(0x7ff0000000000000u | payload))));
    EXPECT_TRUE(is_nan(narrow<TypeParam>(std::bit_cast<double>(0xfff0000000000000u | payload))));
  }
}

// By definition: no other number is nearer.
TYPED_TEST(SmallFloats, AreTheNearest) {
  constexpr std::uint64_t seed = 20240131;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 100'000; ++i) {
    // All exponents that matter, and some beyond.
    const double magnitude =
        std::ldexp(1 + double(random() >> 12) * 0x1p-52, int(random() % 300) - 150);
    const double x = random() % 2 == 0 ? magnitude : -magnitude;
    const TypeParam result = narrow<TypeParam>(x);
    if (!mora::is_finite(result)) continue;  // ConvertAsOthersDo knows where that begins
    const double distance = std::abs(widen<double>(result) - x);
    for (const int step : {-1, 1}) {
      const TypeParam other{static_cast<Bits<TypeParam>>(result.bits + step)};
      if (mora::is_finite(other)) {
        EXPECT_LE(distance, std::abs(widen<double>(other) - x)) << x;
      }
    }
  }
}

TYPED_TEST(SmallFloats, OfSpansAreTheSame) {
  std::vector<TypeParam> all;
  for (unsigned i = 0; i < patterns<TypeParam>; ++i) {
    all.push_back({static_cast<Bits<TypeParam>>(i)});
  }
  std::vector<float> floats(all.size());
  convert(std::span<const TypeParam>(all), std::span(floats));
  std::vector<Float16> halves(all.size());
  convert(std::span<const float>(floats), std::span(halves));
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(floats[i]),
              std::bit_cast<std::uint32_t>(widen<float>(all[i])));
    EXPECT_EQ(halves[i], narrow<Float16>(floats[i]));
    if (!is_nan(all[i])) {
      EXPECT_EQ(halves[i], convert_number<Float16>(all[i]));
    }
  }
  EXPECT_TRUE(throws<mora::ShapeError>({"numbers: expected 256", "found 3"}, [&] {
    convert(std::span<const TypeParam>(all).first(256), std::span(floats).first(3));
  }));
}

TEST(SmallFloats, OfKnownNumbers) {
  EXPECT_EQ(narrow<Float16>(65504.0f).bits, 0x7bff);
  EXPECT_EQ(narrow<Float16>(65519.99f).bits, 0x7bff);
  EXPECT_EQ(narrow<Float16>(65520.0f).bits, 0x7c00);
  EXPECT_EQ(narrow<Float16>(-0.0).bits, 0x8000);
  EXPECT_EQ(narrow<Float8E4M3>(448.0f).bits, 0x7e);
  EXPECT_EQ(narrow<Float8E4M3>(464.0f).bits, 0x7e);
  EXPECT_EQ(narrow<Float8E4M3>(-465.0f).bits, 0xff);
  EXPECT_EQ(narrow<Float8E4M3>(std::numeric_limits<double>::infinity()).bits, 0x7f);
  EXPECT_EQ(narrow<Float8E5M2>(1e30).bits, 0x7c);
  // By way of float it would be 1: a tie, once the last bits are gone.
  EXPECT_EQ(narrow<BFloat16>(1 + 0x1p-8 + 0x1p-40).bits, 0x3f81);
  static_assert(widen<float>(Float16{0x3c00}) == 1 && narrow<BFloat16>(1.0).bits == 0x3f80);
}

}  // namespace
}  // namespace mora_tests
