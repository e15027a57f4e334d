// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <mora/analysis/low_rank.hpp>
#include <optional>

#include "support/compare.hpp"
#include "support/misuse.hpp"
#include "support/not_finite.hpp"
#include "support/updates.hpp"

/// \file
/// Adapters as plain LoRA against their dense updates, whose best approximations are those of an
/// SVD by another algorithm than the library's.

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::LoraAdapter;
using mora::low_rank;
using mora::LowRankSettings;
using mora::LowRankUpdate;
using mora::Matrix;

/// ||update - best of that rank||_F / ||update||_F.
[[nodiscard]] double least_error(const Matrix<double>& update, Index rank) {
  const Eigen::VectorXd values = Eigen::JacobiSVD<Eigen::MatrixXd>(update).singularValues();
  const Index kept = std::min<Index>(rank, values.size());
  return values.norm() > 0.0 ? values.tail(values.size() - kept).norm() / values.norm() : 0.0;
}

void expect_best(const Matrix<double>& update, const LowRankUpdate<double>& found) {
  const double error = (update_of(found.adapter) - update).norm() / update.norm();
  const double best = least_error(update, found.adapter.settings().rank);
  EXPECT_TRUE(near<double>(error, best, 1.0));
  EXPECT_TRUE(near<double>(found.relative_error, best, 1.0));
}

template <class Adapter>
void expect_all_forms(Adapter empty, Index exact_rank, Random& random) {
  const Adapter adapter = filled(std::move(empty), random);
  const Matrix<double> update = update_of(adapter);
  const auto exact = low_rank(adapter);
  EXPECT_EQ(exact.relative_error, 0.0);
  EXPECT_EQ(exact.adapter.settings().scale(), 1.0);
  EXPECT_LE(exact.adapter.settings().rank, exact_rank);
  EXPECT_TRUE(near(update_of(exact.adapter), update));
  for (const Index rank : {1, 3}) expect_best(update, low_rank(adapter, {.rank = rank}));

  const auto bounded = low_rank(adapter, {.relative_error = 0.3});
  EXPECT_LE(bounded.relative_error, 0.3);
  expect_best(update, bounded);
  const Index rank = bounded.adapter.settings().rank;
  EXPECT_TRUE(rank == 1 || least_error(update, rank - 1) > 0.3);
  // A rank that is too small for the error has the last word.
  EXPECT_EQ(low_rank(adapter, {.rank = 1, .relative_error = 0.0}).adapter.settings().rank, 1);
}

TEST(LowRank, OfMoraIsItsUpdateOrTheBestOfARank) {
  for_each_mora([]<class Settings>(const Shape& shape, const Settings& settings) {
    Random random(1);
    MoraOf<Settings> adapter(shape.in, shape.out, settings);
    const Index width = adapter.compressor().blocks() * adapter.side();
    expect_all_forms(std::move(adapter), std::min({width, shape.in, shape.out}), random);
  });
}

TEST(LowRank, OfLoraIsItsUpdateOrTheBestOfARank) {
  for (const Shape& shape : awkward_shapes) {
    SCOPED_TRACE(shape);
    Random random(1);
    expect_all_forms(LoraAdapter<double>(shape.in, shape.out, {.rank = shape.rank, .alpha = -3.0},
                                         random.generator()),
                     shape.rank, random);
  }
}

TEST(LowRank, OfLokrIsItsUpdateOrTheBestOfARank) {
  for (const Shape& shape : awkward_shapes) {
    SCOPED_TRACE(shape);
    for (const bool both : {false, true}) {
      Random random(1);
      const mora::LokrSettings settings{.rank = shape.rank,
                                        .alpha = -3.0,
                                        .decompose_factor = both ? 12 : -1,
                                        .decompose_both = both};
      mora::LokrAdapter<double> adapter(shape.in, shape.out, settings, random.generator());
      const auto& sizes = adapter.shape();
      const Index rank1 = sizes.thin1 ? sizes.rank : std::min(sizes.rows1, sizes.cols1);
      const Index rank2 = sizes.thin2 ? sizes.rank : std::min(sizes.rows2, sizes.cols2);
      expect_all_forms(std::move(adapter), rank1 * rank2, random);
    }
  }
}

TEST(LowRank, OfFullFineTuningIsTheBestOfARank) {
  Random random(1);
  for (const auto& [out, in] : {std::pair<Index, Index>{13, 29}, {29, 13}}) {
    const auto weight = random.matrix<double>(out, in);
    mora::FullLinear<double> layer(weight);
    layer.adapter().weight().value = random.matrix<double>(out, in);
    const Matrix<double> update = layer.update();
    expect_best(update, low_rank(layer, {.rank = 4}));
    EXPECT_TRUE(near(update_of(low_rank(layer).adapter), update));
  }
}

TEST(LowRank, OfAZeroUpdateIsZero) {
  const mora::MoraAdapter<float> adapter(31, 25, {.rank = 2});
  for (const LowRankSettings& settings :
       {LowRankSettings{}, LowRankSettings{.rank = 3}, LowRankSettings{.relative_error = 0.0}}) {
    const auto found = low_rank(adapter, settings);
    EXPECT_EQ(found.relative_error, 0.0);
    EXPECT_TRUE((update_of(found.adapter).array() == 0.0).all());
  }
}

// Where the factors' products would be none, but the update's numbers are.
TEST(LowRank, OfLargeFactorsIsTheBestOfARank) {
  Random random(1);
  LoraAdapter<double> adapter =
      filled(LoraAdapter<double>(9, 7, {.rank = 3, .alpha = 3.0}, random.generator()), random);
  const auto expected = low_rank(adapter, {.rank = 2});
  adapter.a().value *= 0x1p600;
  adapter.b().value *= 0x1p-600;
  const auto found = low_rank(adapter, {.rank = 2});
  EXPECT_TRUE(near(update_of(found.adapter), update_of(expected.adapter)));
  EXPECT_TRUE(near<double>(found.relative_error, expected.relative_error, 1.0));
  adapter.b().value *= 0x1p600;
  adapter.b().value *= 0x1p600;
  EXPECT_TRUE(throws<mora::NumericError>({"singular values", "found"},
                                         [&] { (void)low_rank(adapter, {.rank = 2}); }));
}

TEST(LowRank, RefusesWhatItCannotDo) {
  mora::MoraAdapter<float> adapter(31, 25, {.rank = 2});
  const auto refused = [&](const LowRankSettings& settings, std::string_view what) {
    EXPECT_TRUE(throws<ArgumentError>({what, "found"}, [&] { (void)low_rank(adapter, settings); }));
  };
  refused({.rank = 0}, "rank");
  refused({.relative_error = -0.1}, "relative_error");
  refused({.relative_error = 1.0}, "relative_error");
  refused({.relative_error = std::nan("")}, "relative_error");
  adapter.matrix().value(0, 0) = infinity<float>;
  for (const LowRankSettings& settings : {LowRankSettings{}, LowRankSettings{.rank = 3}}) {
    EXPECT_TRUE(throws<mora::NumericError>({"low rank", "update"},
                                           [&] { (void)low_rank(adapter, settings); }));
  }
}

// The update's own factors in double, which float has no room for.
TEST(LowRank, RefusesFactorsBeyondTheScalar) {
  mora::MoraAdapter<float> adapter(31, 25, {.rank = 2, .scale = 1e30});
  adapter.matrix().value.setConstant(1e30F);
  EXPECT_TRUE(throws<mora::NumericError>({"low rank", "beyond the scalar type"},
                                         [&] { (void)low_rank(adapter); }));
}

// Before there is memory for it: an update of such a rank has no room in a test.
TEST(LowRank, RefusesARankBeyondTheLargest) {
  EXPECT_TRUE(throws<ArgumentError>({"rank", "1 to 1000000", "found 1000001"}, [] {
    (void)mora::detail::zero_factors<float>(1, 1, mora::max_rank + 1);
  }));
}

TEST(LowRank, RefusesAnEmptyUpdate) {
  for (const LowRankSettings& settings : {LowRankSettings{}, LowRankSettings{.rank = 3}}) {
    EXPECT_TRUE(throws<mora::ShapeError>({"in_features", "found 0"},
                                         [&] { (void)low_rank(Matrix<double>(7, 0), settings); }));
    EXPECT_TRUE(throws<mora::ShapeError>({"out_features", "found 0"},
                                         [&] { (void)low_rank(Matrix<double>(0, 7), settings); }));
  }
}

TEST(LowRank, NeedsTheShapesOfTheAdapter) {
  Random random(1);
  mora::MissAdapter<double> miss(12, 10, {.rank = 2});
  miss.matrix().value.setOnes(5, 10);
  EXPECT_TRUE(throws<mora::ShapeError>({"D, rows", "found 5"}, [&] { (void)low_rank(miss); }));
  mora::LokrAdapter<double> lokr(12, 10, {.rank = 2}, random.generator());
  lokr.w1().a.value.setOnes(5, 3);
  EXPECT_TRUE(throws<mora::ShapeError>({"W1, rows", "found 5"}, [&] { (void)low_rank(lokr); }));
}

}  // namespace
}  // namespace mora_tests
