// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <mora/analysis/singular_values.hpp>
#include <utility>
#include <vector>

#include "support/compare.hpp"
#include "support/throws.hpp"
#include "support/updates.hpp"

/// \file
/// Spectra through the adapters' structure against the dense SVD of the update.

namespace mora_tests {
namespace {

using mora::Matrix;
using mora::Spectrum;
using mora::spectrum;
using Dense = Matrix<double>;

/// By another algorithm than the library's.
Eigen::VectorXd singular_values(const Dense& matrix) {
  return Eigen::JacobiSVD<Eigen::MatrixXd>(matrix).singularValues();
}

/// Of an adapter with random parameters.
template <class Adapter>
void expect_is_that_of_the_update(Adapter empty, Random& random) {
  using T = typename Adapter::Scalar;
  const Adapter adapter = filled(std::move(empty), random);
  const Spectrum found = spectrum(adapter);
  const Eigen::VectorXd expected = singular_values(update_of(adapter));
  ASSERT_EQ(found.rows, adapter.out_features());
  ASSERT_EQ(found.cols, adapter.in_features());
  ASSERT_LE(found.values.size(), expected.size());
  // Those that are zero by the structure may be missing.
  Eigen::VectorXd all = Eigen::VectorXd::Zero(expected.size());
  all.head(found.values.size()) = found.values;
  EXPECT_TRUE(near(all, expected, {.relative = tolerance<T>}));
  EXPECT_TRUE(std::is_sorted(all.begin(), all.end(), std::greater<>()));
}

TEST(Spectrum, OfMoraIsThatOfTheUpdate) {
  for_each_mora([]<class Settings>(const Shape& shape, const Settings& settings) {
    Random random(1);
    expect_is_that_of_the_update(MoraOf<Settings>(shape.in, shape.out, settings), random);
  });
}

TEST(Spectrum, OfLoraIsThatOfTheUpdate) {
  for (const Shape& shape : awkward_shapes) {
    SCOPED_TRACE(shape);
    Random random(1);
    mora::LoraSettings settings;
    settings.rank = shape.rank;
    settings.alpha = -3.0;
    expect_is_that_of_the_update(
        mora::LoraAdapter<double>(shape.in, shape.out, settings, random.generator()), random);
  }
}

TEST(Spectrum, OfLokrIsThatOfTheUpdate) {
  for (const Shape& shape : awkward_shapes) {
    SCOPED_TRACE(shape);
    Random random(1);
    expect_is_that_of_the_update(
        mora::LokrAdapter<double>(shape.in, shape.out, {.rank = shape.rank, .alpha = -3.0},
                                  random.generator()),
        random);
  }
}

TEST(Spectrum, OfFloatAdaptersIsComputedInDouble) {
  Random random(1);
  expect_is_that_of_the_update(mora::MoraAdapter<float>(31, 25, {.rank = 2}), random);
  expect_is_that_of_the_update(mora::LoraAdapter<float>(31, 25, {}, random.generator()), random);
}

// Full fine-tuning has no structure: the difference of the weights.
TEST(Spectrum, OfALayerIsThatOfItsUpdate) {
  Random random(1);
  const auto weight = random.matrix<double>(13, 29);
  mora::FullLinear<double> full(weight);
  full.adapter().weight().value = random.matrix<double>(13, 29);
  EXPECT_TRUE(near(spectrum(full).values, singular_values(full.update())));
  mora::MoraLinear<double> mora(weight, {.rank = 3});
  mora.adapter().matrix().value.setConstant(0.1);
  EXPECT_TRUE(same_bits(spectrum(mora).values, spectrum(mora.adapter()).values));
}

TEST(Spectrum, OfAFreshLayerIsZero) {
  const Dense weight = Dense::Ones(31, 25);
  const Spectrum zero = spectrum(mora::MoraLinear<double>(weight, {.rank = 2}));
  EXPECT_EQ(zero.values.cwiseAbs().sum(), 0.0);
  EXPECT_EQ(zero.numerical_rank(), 0);
}

/// LoRA of these factors, all ones times a number each.
[[nodiscard]] mora::LoraAdapter<double> constant_lora(double a, double b) {
  return {Dense::Constant(2, 6, a), Dense::Constant(5, 2, b), {.rank = 2, .alpha = 2.0}};
}

// Squares and products of such numbers are infinite or zero.
TEST(Spectrum, OfLargeAndSmallNumbersIsThatOfOthers) {
  Random random(1);
  const Dense matrix = random.matrix<double>(7, 5);
  for (const double size : {0x1p1000, 0x1p-1000}) {
    EXPECT_TRUE(near(spectrum(Dense(matrix * size)).values / size, singular_values(matrix)));
  }
  for (const double size : {0x1p600, 0x1p-600}) {
    const Spectrum found = spectrum(constant_lora(size, 1.0 / size));
    EXPECT_EQ(found.numerical_rank(), 1);
    EXPECT_TRUE(near<double>(found.values[0], 2.0 * std::sqrt(30.0), 10.0));
  }
  mora::MoraAdapter<double, mora::Sharing> adapter(31, 25, {.rank = 2});
  adapter.matrix().value.setConstant(0x1p1000);
  EXPECT_EQ(spectrum(adapter).numerical_rank(), 1);
}

TEST(Spectrum, RefusesSingularValuesBeyondDouble) {
  const auto refused = [](const auto& of) {
    EXPECT_TRUE(
        throws<mora::NumericError>({"singular values", "found"}, [&] { (void)spectrum(of); }));
  };
  refused(Dense::Constant(4, 4, 1e308).eval());
  refused(constant_lora(1e200, 1e200));
  mora::MoraAdapter<double> adapter(31, 25, {.rank = 2});
  adapter.matrix().value.setConstant(1e308);
  refused(adapter);
}

TEST(Spectrum, HasAnEffectiveRankUpToTheLargestNumber) {
  const Spectrum two{3, 3, Eigen::Vector2d(1e308, 1e308)};
  EXPECT_TRUE(near<double>(two.effective_rank(), 2.0, 2.0));
}

TEST(Spectrum, RefusesWhatIsNotFinite) {
  Dense matrix = Dense::Ones(3, 4);
  matrix(1, 2) = std::nan("");
  EXPECT_THROW((void)spectrum(matrix), mora::NumericError);
  mora::MoraLinear<double> layer(Dense::Ones(8, 8).eval(), {.rank = 2});
  layer.adapter().matrix().value(0, 1) = std::nan("");
  EXPECT_THROW((void)spectrum(layer), mora::NumericError);
  // A factor that the other one does not let through.
  const double infinite = std::numeric_limits<double>::infinity();
  for (const auto& lora : {constant_lora(infinite, 0.0), constant_lora(0.0, infinite)}) {
    EXPECT_TRUE(
        throws<mora::NumericError>({"spectrum", "not finite"}, [&] { (void)spectrum(lora); }));
  }
}

}  // namespace
}  // namespace mora_tests
