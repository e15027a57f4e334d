// SPDX-License-Identifier: MIT
#include "support/compare.hpp"
#include "support/not_finite.hpp"

#include <limits>

#include "support/random.hpp"

/// \file
/// The comparisons that the other tests rest on fail where they should.

namespace mora_tests {
namespace {

using Numbers = mora::Matrix<double>;

/// 2x2, with one of its entries replaced.
Numbers with(double number, Index place = 3) {
  Numbers numbers{{1.0, -2.0}, {0.5, 4.0}};
  numbers.data()[place] = number;
  return numbers;
}

TEST(Near, FailsOnNaNWhereverItIs) {
  for (Index place = 0; place < 4; ++place) {
    EXPECT_FALSE(near(with(nan<double>, place), with(1.0, place)));
    EXPECT_FALSE(near(with(1.0, place), with(nan<double>, place)));
    EXPECT_FALSE(near(with(nan<double>, place), with(nan<double>, place)));
    EXPECT_FALSE(equal(with(nan<double>, place), with(nan<double>, place)));
  }
  EXPECT_FALSE(near<double>(nan<double>, 1.0, 1.0));
  EXPECT_FALSE(near<double>(1.0, nan<double>, 1.0));
  EXPECT_FALSE(near<double>(1.0, 1.0, nan<double>));
}

TEST(Near, FailsOnInfinity) {
  EXPECT_FALSE(near(with(infinity<double>), with(4.0)));
  EXPECT_FALSE(near(with(4.0), with(infinity<double>)));
  EXPECT_FALSE(near(with(infinity<double>), with(infinity<double>)));
  EXPECT_FALSE(near<double>(1.0, 2.0, infinity<double>));
}

TEST(Near, FailsOnAnotherSize) {
  EXPECT_FALSE(near(Numbers::Zero(2, 3), Numbers::Zero(3, 2)));
  EXPECT_FALSE(near(Numbers::Zero(2, 2), Numbers::Zero(2, 3)));
  EXPECT_FALSE(near(Numbers::Zero(0, 2), Numbers::Zero(0, 3)));
  EXPECT_FALSE(equal(Numbers::Zero(2, 2), Numbers::Zero(1, 4)));
  EXPECT_FALSE(same_bits(Numbers::Zero(2, 2), Numbers::Zero(4, 1)));
  EXPECT_TRUE(near(Numbers::Zero(0, 2), Numbers::Zero(0, 2)));
}

TEST(Near, IsRelativeToTheLargestExpectedNumber) {
  const double step = 4.0 * tolerance<double>;
  EXPECT_TRUE(near(with(4.0 + 0.9 * step), with(4.0)));
  EXPECT_FALSE(near(with(4.0 + 1.1 * step), with(4.0)));
  EXPECT_FALSE(near(with(4.0 - 1.1 * step), with(4.0)));
  EXPECT_TRUE(near(with(1.0 + 0.9 * step, 0), with(1.0, 0)));
  EXPECT_FALSE(near(with(1.0 + 1.1 * step, 0), with(1.0, 0)));
  EXPECT_TRUE(near(with(5.0), with(4.0), {.relative = 0.25}));
  EXPECT_TRUE(near(with(5.0), with(4.0), {.relative = 0.5, .magnitude = 2.0}));
  EXPECT_FALSE(near(with(5.0), with(4.0), {.relative = 0.5, .magnitude = 1.9}));
  EXPECT_FALSE(near(Numbers::Constant(1, 1, 1e-300), Numbers::Zero(1, 1)));
}

TEST(Near, TakesTheToleranceOfWhatIsFound) {
  const double step = 2.0 * tolerance<float>;
  EXPECT_TRUE(near(mora::Matrix<float>::Constant(1, 1, float(2.0 + 0.9 * step)),
                   Numbers::Constant(1, 1, 2.0)));
  EXPECT_FALSE(
      near(Numbers::Constant(1, 1, 2.0 + 0.9 * step), mora::Matrix<float>::Constant(1, 1, 2.0f)));
}

TEST(SameBits, TellsZerosAndNaNsApart) {
  EXPECT_TRUE(same_bits(with(nan<double>), with(nan<double>)));
  EXPECT_FALSE(same_bits(with(nan<double>), with(-nan<double>)));
  EXPECT_FALSE(same_bits(with(0.0), with(-0.0)));
  EXPECT_TRUE(equal(with(0.0), with(-0.0)));
  EXPECT_FALSE(equal(with(1.0), with(1.0 + std::numeric_limits<double>::epsilon())));
}

TEST(Random, IsTheSameEveryTime) {
  const auto first = Random(3).matrix<double>(4, 5);
  EXPECT_TRUE(same_bits(Random(3).matrix<double>(4, 5), first));
  EXPECT_FALSE(near(Random(4).matrix<double>(4, 5), first));
}

}  // namespace
}  // namespace mora_tests
