// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <mora/mora.hpp>

namespace mora_tests {
namespace {

using mora::Index;
using mora::Matrix;

/// A of a fresh adapter.
Matrix<double> start(mora::LoraInit init, Index rank, Index in, std::uint64_t seed) {
  mora::SplitMix64 generator(seed);
  const mora::LoraAdapter<double> adapter(in, 30, {.rank = rank, .init = init}, generator);
  EXPECT_EQ(adapter.b().value.rows(), 30);
  EXPECT_TRUE((adapter.b().value.array() == 0.0).all());
  return adapter.a().value;
}

// As torch.nn.init.kaiming_uniform_(a=sqrt(5)): uniform within 1 / sqrt(in), of variance 1 / (3
// in).
TEST(LoraStart, IsKaimingUniformByDefault) {
  EXPECT_EQ(mora::LoraSettings().init, mora::LoraInit::kaiming_uniform);
  for (const Index in : {100, 400}) {
    const Matrix<double> a = start(mora::LoraInit::kaiming_uniform, 50, in, 1);
    const double bound = 1.0 / std::sqrt(double(in));
    EXPECT_TRUE((a.array().abs() <= bound).all());
    EXPECT_GT(a.array().abs().maxCoeff(), 0.99 * bound);
    // The mean of n squares spreads by 0.9 / sqrt(n) of itself: 5000 numbers or more, 5 deviations.
    EXPECT_NEAR(a.array().square().mean() * 3.0 * double(in), 1.0, 0.065);
    EXPECT_NEAR(a.mean() / bound, 0.0, 0.041);
  }
}

// As in PEFT: of deviation 1 / r.
TEST(LoraStart, CanBeGaussian) {
  for (const Index rank : {4, 50}) {
    const Matrix<double> a = start(mora::LoraInit::gaussian, rank, 2000, 2);
    // Of n squares sqrt(2 / n): 8000 numbers or more, 5 deviations.
    EXPECT_NEAR(a.array().square().mean() * double(rank * rank), 1.0, 0.08);
    EXPECT_NEAR(a.mean() * double(rank), 0.0, 0.056);
    EXPECT_GT(a.array().abs().maxCoeff() * double(rank), 3.0);
  }
}

}  // namespace
}  // namespace mora_tests
