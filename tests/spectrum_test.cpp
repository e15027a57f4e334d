// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <mora/analysis/singular_values.hpp>
#include <vector>

#include "support/compare.hpp"
#include "support/operators.hpp"
#include "support/random.hpp"

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
void expect_is_that_of_the_update(Adapter adapter, Random& random) {
  using T = typename Adapter::Scalar;
  adapter.visit_parameters(
      [&](std::string_view, auto& p) { mora::fill_normal(p.value, 1.0, random.generator()); });
  const Spectrum found = spectrum(adapter);
  Matrix<T> update = Matrix<T>::Zero(adapter.out_features(), adapter.in_features());
  adapter.merge_rows(adapter.plan_merge(), 0, mora::detail::map_of(update));
  const Eigen::VectorXd expected = singular_values(update.template cast<double>());
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
  for_each_operator([](const char* name, const auto& op) {
    SCOPED_TRACE(name);
    for (const Shape& shape : awkward_shapes) {
      SCOPED_TRACE(shape);
      if (!side_for(op, shape)) continue;
      Random random(1);
      mora::MoraSettings<std::decay_t<decltype(op)>> settings;
      settings.rank = shape.rank;
      settings.rounding = shape.rounding;
      settings.scale = -0.75;
      using Adapter = mora::MoraAdapter<double, std::decay_t<decltype(op)>>;
      expect_is_that_of_the_update(Adapter(shape.in, shape.out, settings), random);
    }
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
