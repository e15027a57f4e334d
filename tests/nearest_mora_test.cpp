// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <Eigen/QR>
#include <cmath>
#include <limits>
#include <mora/analysis/nearest_mora.hpp>
#include <mora/operators/reference_types.hpp>
#include <mora/operators/truncation.hpp>

#include "support/compare.hpp"
#include "support/not_finite.hpp"
#include "support/operators.hpp"
#include "support/random.hpp"
#include "support/shapes.hpp"
#include "support/throws.hpp"

/// \file
/// The MoRA adapter that is nearest to an update, against a dense least-squares solution of
/// Eigen's.

namespace mora_tests {
namespace {

using mora::Matrix;
using mora::MoraAdapter;
using mora::MoraSettings;

template <class Op>
[[nodiscard]] Matrix<double> update_of(const MoraAdapter<double, Op>& adapter) {
  Matrix<double> update = Matrix<double>::Zero(adapter.out_features(), adapter.in_features());
  adapter.merge_rows(adapter.plan_merge(), 0, mora::detail::map_of(update));
  return update;
}

/// Column i: the update of the i-th unit M.
template <class Op>
[[nodiscard]] Eigen::MatrixXd dense_map(MoraAdapter<double, Op> adapter) {
  Matrix<double>& m = adapter.matrix().value;
  Eigen::MatrixXd map(adapter.out_features() * adapter.in_features(), m.size());
  for (Index i = 0; i < m.size(); ++i) {
    m.setZero();
    m.data()[i] = 1.0;
    map.col(i) = update_of(adapter).template reshaped<Eigen::RowMajor>();
  }
  return map;
}

/// Calls `f(settings)` for every operator, the user's own among them.
template <class F>
void for_each_settings(Index rank, const F& f) {
  for_each_operator([&]<class Op>(const char* name, const Op& op) {
    SCOPED_TRACE(name);
    f(MoraSettings<Op>{.rank = rank, .scale = -1.5, .op = op});
  });
}

TEST(NearestMora, IsTheLeastSquaresSolution) {
  Random random(1);
  for_each_settings(2, [&](const auto& settings) {
    for (const Shape& shape : {Shape{12, 12, 2}, Shape{7, 13, 2}, Shape{13, 7, 2}}) {
      SCOPED_TRACE(testing::Message() << shape.in << "x" << shape.out);
      const auto update = random.matrix<double>(shape.out, shape.in);
      const auto nearest = mora::nearest_mora<double>(update, settings);
      const Eigen::MatrixXd map = dense_map(nearest.adapter);
      const Eigen::VectorXd wanted = update.template reshaped<Eigen::RowMajor>();
      const Eigen::VectorXd best = map * map.completeOrthogonalDecomposition().solve(wanted);
      const Matrix<double> found = update_of(nearest.adapter);
      EXPECT_TRUE(near(found.template reshaped<Eigen::RowMajor>(), best,
                       {.relative = least_squares_tolerance}));
      EXPECT_TRUE(near(mora::RowVector<double>::Constant(1, nearest.relative_error),
                       mora::RowVector<double>::Constant(1, (wanted - best).norm() / wanted.norm()),
                       {.relative = least_squares_tolerance}));
    }
  });
}

TEST(NearestMora, IsExactWhereTheOperatorCanSayTheUpdate) {
  Random random(2);
  for_each_settings(3, [&]<class Op>(const MoraSettings<Op>& settings) {
    for (const double magnitude : {1.0, 1e-160, 1e200}) {
      MoraAdapter<double, Op> adapter(17, 11, settings);
      mora::fill_normal(adapter.matrix().value, magnitude, random.generator());
      const Matrix<double> update = update_of(adapter);
      const auto nearest = mora::nearest_mora<double>(update, settings);
      EXPECT_TRUE(near(update_of(nearest.adapter), update, {.relative = least_squares_tolerance}));
      EXPECT_LE(nearest.relative_error, least_squares_tolerance);
    }
  });
}

// What is left has no part that the operator could say, but for rounding.
TEST(NearestMora, OfWhatIsLeftIsNothing) {
  Random random(3);
  for_each_settings(2, [&](const auto& settings) {
    Matrix<double> update = random.matrix<double>(12, 12);
    update -= update_of(mora::nearest_mora<double>(update, settings).adapter);
    const auto nearest = mora::nearest_mora<double>(update, settings);
    EXPECT_LE(update_of(nearest.adapter).norm(), least_squares_tolerance * update.norm());
    EXPECT_TRUE(near<double>(nearest.relative_error, 1.0, 1.0));
  });
}

TEST(NearestMora, TakesScalesOfAnySize) {
  Random random(4);
  const auto update = random.matrix<double>(11, 17);
  const auto one = mora::nearest_mora<double>(update, MoraSettings<>{.rank = 2});
  for (const double scale : {1e-200, -3.0, 1e200}) {
    const auto nearest =
        mora::nearest_mora<double>(update, MoraSettings<>{.rank = 2, .scale = scale});
    EXPECT_EQ(nearest.relative_error, one.relative_error);
    EXPECT_TRUE(near(scale * nearest.adapter.matrix().value, one.adapter.matrix().value));
  }
  const auto none = mora::nearest_mora<double>(update, MoraSettings<>{.rank = 2, .scale = 0.0});
  EXPECT_FALSE(none.adapter.matrix().value.array().any());
  EXPECT_EQ(none.relative_error, 1.0);
}

TEST(NearestMora, IsRoundedToFloatOrRefused) {
  Random random(5);
  const auto update = random.matrix<float>(11, 17);
  const auto nearest = mora::nearest_mora<float>(update, MoraSettings<>{.rank = 2});
  const Matrix<double> wide = update.cast<double>();
  const auto exact = mora::nearest_mora<double>(wide, MoraSettings<>{.rank = 2});
  EXPECT_TRUE(
      same_bits(nearest.adapter.matrix().value, exact.adapter.matrix().value.cast<float>().eval()));
  EXPECT_TRUE(throws<mora::NumericError>({"beyond the scalar", "1e-38"}, [&] {
    (void)mora::nearest_mora<float>(Matrix<float>(1e20F * update),
                                    MoraSettings<>{.rank = 2, .scale = 1e-38});
  }));
}

TEST(NearestMora, OfNothingIsNothing) {
  for_each_settings(2, [&](const auto& settings) {
    const Matrix<double> update = Matrix<double>::Zero(5, 8);
    const auto nearest = mora::nearest_mora<double>(update, settings);
    EXPECT_TRUE((nearest.adapter.matrix().value.array() == 0.0).all());
    EXPECT_EQ(nearest.relative_error, 0.0);
  });
}

TEST(NearestMora, OfWhatIsNotFiniteIsRefused) {
  for (const double bad : {nan<double>, infinity<double>}) {
    Matrix<double> update = Matrix<double>::Ones(5, 8);
    update(3, 2) = bad;
    EXPECT_TRUE(throws<mora::NumericError>({"not finite"},
                                           [&] { (void)mora::nearest_mora<double>(update); }));
  }
  const Eigen::Map<const Matrix<double>> nowhere(nullptr, 5, 8);
  EXPECT_TRUE(throws<mora::ArgumentError>({"update", "null"},
                                          [&] { (void)mora::nearest_mora<double>(nowhere); }));
  const Matrix<double> empty(0, 8);
  EXPECT_TRUE(throws<mora::ShapeError>({"0"}, [&] { (void)mora::nearest_mora<double>(empty); }));
}

}  // namespace
}  // namespace mora_tests
