// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <mora/analysis/singular_values.hpp>
#include <utility>
#include <vector>

#include "support/compare.hpp"
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

TEST(Spectrum, RefusesWhatIsNotFinite) {
  Dense matrix = Dense::Ones(3, 4);
  matrix(1, 2) = std::nan("");
  EXPECT_THROW((void)spectrum(matrix), mora::NumericError);
  mora::MoraLinear<double> layer(Dense::Ones(8, 8).eval(), {.rank = 2});
  layer.adapter().matrix().value(0, 1) = std::nan("");
  EXPECT_THROW((void)spectrum(layer), mora::NumericError);
}

}  // namespace
}  // namespace mora_tests
