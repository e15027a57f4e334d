// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <mora/core/random.hpp>
#include <numeric>
#include <random>
#include <vector>

#include "support/compare.hpp"
#include "support/throws.hpp"

/// \file
/// Random numbers: what they are, and that they are the same for ever and everywhere. The bounds on
/// statistics are five standard deviations; the seeds are fixed, so that nothing fails by chance.

namespace mora_tests {
namespace {

using mora::Index;
using mora::SplitMix64;
using mora::uniform_below;

// The first outputs that are published for the seed 0.
TEST(SplitMix64, IsThePublishedGenerator) {
  SplitMix64 generator(0);
  EXPECT_EQ(generator(), 0xe220a8397b1dcdafu);
  EXPECT_EQ(generator(), 0x6e789e6aa1b965f4u);
  EXPECT_EQ(generator(), 0x06c45d188009454fu);
  EXPECT_EQ(generator(), 0xf88bb8a8724c81ecu);
  EXPECT_EQ(generator(), 0x1b39896a51a8749bu);
}

/// Gives back the numbers that it was made of.
class Replay {
 public:
  using result_type = std::uint64_t;
  explicit Replay(std::vector<std::uint64_t> numbers) : numbers_(std::move(numbers)) {}
  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return ~result_type{0}; }
  result_type operator()() { return numbers_.at(next_++); }
  [[nodiscard]] std::size_t used() const { return next_; }

 private:
  std::vector<std::uint64_t> numbers_;
  std::size_t next_ = 0;
};

TEST(UniformBelow, IsEvenAndInRange) {
  SplitMix64 generator(1);
  for (const std::uint64_t bound : {2u, 3u, 10u, 64u}) {
    std::vector<double> count(bound, 0.0);
    constexpr double calls = 60000.0;
    for (int i = 0; i < int(calls); ++i) {
      const std::uint64_t number = uniform_below(bound, generator);
      ASSERT_LT(number, bound);
      ++count[number];
    }
    const double expected = calls / double(bound);
    for (const double found : count) EXPECT_NEAR(found, expected, 5.0 * std::sqrt(expected));
  }
}

TEST(UniformBelow, OneLeavesNoChoice) {
  SplitMix64 generator(1);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(uniform_below(1, generator), 0u);
}

TEST(UniformBelow, RefusesABoundOfZero) {
  SplitMix64 generator(1);
  EXPECT_TRUE(throws<mora::ArgumentError>({"bound", "at least 1", "found 0"},
                                          [&] { (void)uniform_below(0, generator); }));
}

TEST(UniformBelow, WorksBeyondHalfOfTheRange) {
  constexpr std::uint64_t bound = (std::uint64_t{1} << 63) + 1;
  SplitMix64 generator(2);
  int upper_half = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t number = uniform_below(bound, generator);
    ASSERT_LT(number, bound);
    upper_half += number > bound / 2 ? 1 : 0;
  }
  EXPECT_NEAR(upper_half, 500, 5.0 * std::sqrt(250.0));
}

// Numbers beyond the largest multiple of the bound are drawn again: that is what makes it unbiased.
TEST(UniformBelow, DrawsAgainBeyondTheLargestMultiple) {
  constexpr std::uint64_t largest = ~std::uint64_t{0};
  Replay thirds(
      {largest, 7});  // 2^64 - 1 is a multiple of 3, so the largest number is one too many
  EXPECT_EQ(uniform_below(3, thirds), 7u % 3u);
  EXPECT_EQ(thirds.used(), 2u);
  Replay last({largest - 1});
  EXPECT_EQ(uniform_below(3, last), (largest - 1) % 3);
  Replay halves({largest});  // 2^64 is a multiple of 2: nothing to draw again
  EXPECT_EQ(uniform_below(2, halves), 1u);
  Replay nearly_all({largest, 5});
  EXPECT_EQ(uniform_below(largest, nearly_all), 5u);
}

TEST(Uniform, IsBelowOne) {
  Replay extremes({0, ~std::uint64_t{0}});
  EXPECT_EQ(mora::uniform(extremes), 0.0);
  EXPECT_LT(mora::uniform(extremes), 1.0);
}

TEST(Normal, HasMeanVarianceAndTailsOfANormal) {
  std::mt19937_64 generator(3);
  constexpr int count = 100000;
  double sum = 0.0;
  double squares = 0.0;
  double cubes = 0.0;
  double within_one = 0.0;
  for (int i = 0; i < count; ++i) {
    const double number = mora::normal(generator);
    ASSERT_TRUE(std::isfinite(number));
    sum += number;
    squares += number * number;
    cubes += number * number * number;
    within_one += std::abs(number) < 1.0 ? 1.0 : 0.0;
  }
  const double deviation = 1.0 / std::sqrt(double(count));
  EXPECT_NEAR(sum / count, 0.0, 5.0 * deviation);
  EXPECT_NEAR(squares / count, 1.0, 5.0 * std::sqrt(2.0) * deviation);
  EXPECT_NEAR(cubes / count, 0.0, 5.0 * std::sqrt(15.0) * deviation);
  EXPECT_NEAR(within_one / count, std::erf(1.0 / std::sqrt(2.0)), 5.0 * 0.5 * deviation);
}

TEST(Normal, IsFiniteAtTheEndsOfTheRange) {
  constexpr std::uint64_t largest = ~std::uint64_t{0};
  Replay extremes({largest, 0, 0, 0, largest, largest, 0, largest});
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(std::isfinite(mora::normal(extremes)));
}

TEST(Shuffle, PermutesEvenly) {
  SplitMix64 generator(4);
  std::vector<int> place_of_zero(5, 0);
  for (int i = 0; i < 5000; ++i) {
    std::vector<int> range(5);
    std::iota(range.begin(), range.end(), 0);
    mora::shuffle(range, generator);
    ++place_of_zero[static_cast<std::size_t>(std::find(range.begin(), range.end(), 0) -
                                             range.begin())];
    std::sort(range.begin(), range.end());
    ASSERT_EQ(range, (std::vector<int>{0, 1, 2, 3, 4}));
  }
  for (const int count : place_of_zero) EXPECT_NEAR(count, 1000, 5.0 * std::sqrt(800.0));
  std::vector<int> none;
  mora::shuffle(none, generator);
  std::vector<int> one = {7};
  mora::shuffle(one, generator);
  EXPECT_EQ(one, std::vector<int>{7});
}

// A float adapter starts from the rounded numbers of a double one.
TEST(Fill, GivesFloatTheRoundedNumbersOfDouble) {
  mora::Matrix<float> single(3, 5);
  mora::Matrix<double> exact(3, 5);
  SplitMix64 for_single(5);
  SplitMix64 for_exact(5);
  mora::fill_normal(single, 0.7, for_single);
  mora::fill_normal(exact, 0.7, for_exact);
  EXPECT_TRUE(same_bits(single, exact.cast<float>()));
  mora::fill_uniform(single, 0.7, for_single);
  mora::fill_uniform(exact, 0.7, for_exact);
  EXPECT_TRUE(same_bits(single, exact.cast<float>()));
  EXPECT_EQ(for_single(), for_exact());
}

TEST(Fill, UniformStaysWithinItsBound) {
  std::mt19937_64 generator(6);
  mora::Matrix<double> numbers(100, 100);
  mora::fill_uniform(numbers, 0.25, generator);
  EXPECT_LT(numbers.maxCoeff(), 0.25);
  EXPECT_GE(numbers.minCoeff(), -0.25);
  const double deviation = 0.25 / std::sqrt(3.0);
  const double of_squares = 0.25 * 0.25 * std::sqrt(1.0 / 5.0 - 1.0 / 9.0);
  EXPECT_NEAR(numbers.mean(), 0.0, 5.0 * deviation / 100.0);
  EXPECT_NEAR(numbers.squaredNorm() / 1e4, deviation * deviation, 5.0 * of_squares / 100.0);
}

}  // namespace
}  // namespace mora_tests
