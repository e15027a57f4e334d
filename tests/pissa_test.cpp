// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <Eigen/SVD>
#include <cmath>
#include <limits>
#include <mora/analysis/pissa.hpp>
#include <mora/mora.hpp>
#include <string>
#include <utility>

#include "support/compare.hpp"
#include "support/random.hpp"
#include "support/throws.hpp"

namespace mora_tests {
namespace {

using mora::Index;
using mora::Matrix;

/// With singular values that fall by half each.
Matrix<double> weight_of(Index out, Index in, Random& random) {
  const Index n = std::min(out, in);
  Matrix<double> u(n, out), v(n, in);
  mora::fill_orthonormal_rows(u, random.generator());
  mora::fill_orthonormal_rows(v, random.generator());
  Eigen::VectorXd values(n);
  for (Index i = 0; i < n; ++i) values[i] = std::ldexp(3.0, -static_cast<int>(i));
  return u.transpose() * values.asDiagonal() * v;
}

TEST(Pissa, TakesTheLargestSingularValues) {
  Random random(1);
  for (const auto& [out, in] : {std::pair<Index, Index>{30, 20}, {20, 30}, {12, 12}}) {
    for (const Index rank : {Index{1}, Index{4}, Index{12}}) {
      const Matrix<double> w = weight_of(out, in, random);
      const mora::FrozenLinear<double> frozen(w, random.vector<double>(out));
      const mora::LoraSettings settings{.rank = rank, .alpha = 3.0};
      const auto start = mora::pissa<double>(frozen, settings, random.generator());
      const Eigen::JacobiSVD<Eigen::MatrixXd> svd(w, Eigen::ComputeThinU | Eigen::ComputeThinV);
      const Matrix<double> largest = svd.matrixU().leftCols(rank) *
                                     svd.singularValues().head(rank).asDiagonal() *
                                     svd.matrixV().leftCols(rank).transpose();
      const Matrix<double>& a = start.adapter.a().value;
      const Matrix<double>& b = start.adapter.b().value;
      EXPECT_TRUE(near(Matrix<double>(settings.scale() * b * a), largest));
      // Both have half of every singular value.
      EXPECT_TRUE(near(Matrix<double>(a * a.transpose()), Matrix<double>(b.transpose() * b)));
      const Matrix<double> x = random.matrix<double>(3, in);
      const mora::LoraLinear<double> layer(start.residual, start.adapter);
      EXPECT_TRUE(near(layer.forward(x), frozen.forward(x)));
      EXPECT_TRUE(near(start.residual.read_weight(), Matrix<double>(w - largest),
                       {.magnitude = svd.singularValues()[0]}));
    }
  }
}

TEST(Pissa, IsAPlainLoraForTheFrozenWeight) {
  Random random(2);
  const mora::FrozenLinear<double> frozen(random.matrix<double>(9, 7));
  const auto start = mora::pissa<double>(frozen, {.rank = 2}, random.generator());
  mora::LoraAdapter<double> trained = start.adapter;
  trained.visit_parameters([&](std::string_view, auto& p) {
    p.value += random.matrix<double>(p.value.rows(), p.value.cols());
  });
  const auto plain = mora::weighted_sum<double>({{&trained, 1.0}, {&start.adapter, -1.0}});
  EXPECT_EQ(plain.settings().rank, 4);
  const Matrix<double> x = random.matrix<double>(3, 7);
  EXPECT_TRUE(near(mora::LoraLinear<double>(frozen, plain).forward(x),
                   mora::LoraLinear<double>(start.residual, trained).forward(x)));
}

TEST(Pissa, WorksInFloat) {
  Random random(3);
  const Matrix<float> w = weight_of(40, 30, random).cast<float>();
  const mora::FrozenLinear<float> frozen(w);
  const auto start = mora::pissa<float>(frozen, {.rank = 3}, random.generator());
  const Matrix<float> x = random.matrix<float>(3, 30);
  EXPECT_TRUE(
      near(mora::LoraLinear<float>(start.residual, start.adapter).forward(x), frozen.forward(x)));
  EXPECT_NEAR(double(start.residual.read_weight().norm() / w.norm()), 0.125, 1e-3);
}

TEST(Pissa, RefusesWhatHasNoSuchStart) {
  Random random(4);
  Matrix<double> w = random.matrix<double>(5, 6);
  const mora::FrozenLinear<double> frozen(w);
  const auto start = [&](const mora::LoraSettings& settings, Index iterations = 2) {
    (void)mora::pissa<double>(frozen, settings, random.generator(), iterations);
  };
  EXPECT_TRUE(throws<mora::ShapeError>({"rank", "5", "6"}, [&] { start({.rank = 6}); }));
  EXPECT_TRUE(throws<mora::ArgumentError>({"alpha", "0", "-1"},
                                          [&] { start({.rank = 2, .alpha = -2.0}); }));
  // Before the first random number.
  const auto state = random.generator();
  for (const Index rank : {0, -100}) {
    EXPECT_TRUE(throws<mora::ArgumentError>(
        {"rank", "1 to 1000000", "found " + std::to_string(rank)}, [&] { start({.rank = rank}); }));
  }
  mora::FrozenLinear<double> gone = frozen;
  const mora::FrozenLinear<double> taken = std::move(gone);
  EXPECT_TRUE(
      throws<mora::StateError>({"moved from"}, [&] {  // NOLINTNEXTLINE(bugprone-use-after-move)
        (void)mora::pissa<double>(gone, {.rank = 2}, random.generator());
      }));
  EXPECT_TRUE(random.generator() == state);
  EXPECT_TRUE(throws<mora::ArgumentError>({"iterations", "-1"}, [&] { start({.rank = 2}, -1); }));
  w(2, 3) = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(throws<mora::NumericError>({"pissa"}, [&] { start({.rank = 2}); }));
}

}  // namespace
}  // namespace mora_tests
