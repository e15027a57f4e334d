// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <Eigen/SVD>
#include <cmath>
#include <mora/adapters/linear.hpp>
#include <mora/analysis/spectrum.hpp>
#include <mora/operators/sharing.hpp>
#include <mora/operators/truncation.hpp>
#include <vector>

#include "support/compare.hpp"
#include "support/random.hpp"

/// \file
/// Ranks: of spectra that are known, and of the updates that each operator can make.

namespace mora_tests {
namespace {

using mora::Spectrum;
using Dense = mora::Matrix<double>;

Spectrum spectrum(const Dense& matrix) {
  return {matrix.rows(), matrix.cols(), Eigen::JacobiSVD<Eigen::MatrixXd>(matrix).singularValues()};
}

TEST(Ranks, OfTheIdentity) {
  const Spectrum s = spectrum(Dense(3.0 * Dense::Identity(6, 9)));
  EXPECT_EQ(s.numerical_rank(), 6);
  EXPECT_TRUE(near<double>(s.effective_rank(), 6.0, 6.0));
  EXPECT_TRUE(near<double>(s.stable_rank(), 6.0, 6.0));
  EXPECT_EQ(s.count_above(2.999), 6);
  EXPECT_EQ(s.count_above(3.001), 0);
}

TEST(Ranks, OfRankOne) {
  Random random(1);
  const Dense u = random.matrix<double>(7, 1);
  const Dense v = random.matrix<double>(1, 5);
  const Spectrum s = spectrum(Dense(u * v));
  EXPECT_EQ(s.numerical_rank(), 1);
  EXPECT_TRUE(near<double>(s.stable_rank(), 1.0, 1.0));
  EXPECT_TRUE(near<double>(s.values[0], u.norm() * v.norm(), s.values[0]));
  EXPECT_EQ(s.count_above(0.5 * s.values[0]), 1);
}

TEST(Ranks, OfZeroAndOfNothing) {
  for (const Spectrum& s : {spectrum(Dense(Dense::Zero(4, 3))), Spectrum{}}) {
    EXPECT_EQ(s.numerical_rank(), 0);
    EXPECT_EQ(s.effective_rank(), 0.0);
    EXPECT_EQ(s.stable_rank(), 0.0);
    EXPECT_EQ(s.count_above(0.0), 0);
  }
}

// sigma = 2, 1, 1: p = 1/2, 1/4, 1/4, whose entropy is 1.5 log 2.
TEST(Ranks, OfAKnownSpectrum) {
  const Spectrum s{4, 3, Eigen::Vector3d(2.0, 1.0, 1.0)};
  EXPECT_EQ(s.numerical_rank(), 3);
  EXPECT_EQ(s.numerical_rank(0.5), 1);
  EXPECT_EQ(s.numerical_rank(0.499), 3);
  EXPECT_TRUE(near<double>(s.effective_rank(), std::pow(2.0, 1.5), 3.0));
  EXPECT_TRUE(near<double>(s.stable_rank(), 1.5, 1.5));
}

// What the paper is about: the ranks that updates can have at LoRA's number of parameters.

template <class Op>
Dense random_update(Index in, Index out, Index rank, const Op& op, Random& random) {
  mora::MoraSettings<Op> settings;
  settings.rank = rank;
  settings.op = op;
  mora::MoraLinear<double, Op> layer(Dense::Zero(out, in).eval(), settings);
  mora::fill_normal(layer.adapter().matrix().value, 1.0, random.generator());
  return layer.update();
}
template <class Op>
Index update_rank(Index in, Index out, Index rank, const Op& op) {
  Random random(1);
  return spectrum(random_update(in, out, rank, op, random)).numerical_rank();
}

TEST(RankFacts, RotationIsFullWhereLoraHasItsRank) {
  Random random(1);
  mora::LoraLinear<double> lora(Dense::Zero(80, 96).eval(), {.rank = 3}, random.generator());
  mora::fill_normal(lora.adapter().b().value, 1.0, random.generator());
  EXPECT_EQ(spectrum(lora.update()).numerical_rank(), 3);
  EXPECT_EQ(update_rank(96, 80, 3, mora::Rotation()), 80);
  EXPECT_EQ(update_rank(80, 96, 3, mora::Rotation()), 80);
  EXPECT_EQ(update_rank(96, 96, 3, mora::Decoupling()), 96);
}

TEST(RankFacts, SharingAndTruncationHaveAtMostTheSide) {
  EXPECT_EQ(update_rank(96, 96, 3, mora::Sharing()), 24);
  EXPECT_EQ(update_rank(96, 96, 3, mora::AdjacentSharing()), 24);
  EXPECT_EQ(update_rank(96, 96, 3, mora::RandomSharing()), 24);
  EXPECT_EQ(update_rank(96, 96, 3, mora::Truncation()), 24);
}

// 96 -> 96 at rank 3 (side 24), merging again and again with a new M. Every M adds side - 1 with
// new random groups, as all groupings share the direction of equal numbers; the two published
// groupings by turns stop at 42.
TEST(RankFacts, FreshRandomGroupsAtEveryMergeReachFullRank) {
  Random random(1);
  Dense sum = Dense::Zero(96, 96);
  std::vector<Index> ranks;
  for (std::uint64_t merge = 0; merge < 6; ++merge) {
    sum += random_update(96, 96, 3, mora::RandomSharing{.seed = merge}, random);
    ranks.push_back(spectrum(sum).numerical_rank());
  }
  EXPECT_EQ(ranks, (std::vector<Index>{24, 47, 70, 93, 96, 96}));
}

TEST(RankFacts, ThePublishedGroupingsByTurnsStopBelowTwiceTheSide) {
  Random random(1);
  Dense sum = Dense::Zero(96, 96);
  for (int merge = 0; merge < 4; ++merge) {
    sum += random_update(96, 96, 3, mora::Sharing(), random);
    sum += random_update(96, 96, 3, mora::AdjacentSharing(), random);
    EXPECT_EQ(spectrum(sum).numerical_rank(), 42);
  }
}

}  // namespace
}  // namespace mora_tests
