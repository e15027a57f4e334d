// SPDX-License-Identifier: MIT
#include <cmath>
#include <mora/adapters/linear.hpp>
#include <vector>

#include "support/compare.hpp"
#include "support/operators.hpp"
#include "support/random.hpp"

/// \file
/// What each operator computes, as dense matrices that are written here from the formulas, without
/// the library: read off C and D by unit vectors, both have to be these.

namespace mora_tests {
namespace {

using mora::Matrix;
using mora::RowVector;
using Dense = Matrix<double>;

/// [rows, cols], column j being what `apply(unit vector j, column)` leaves in a zero column.
template <class F>
Dense matrix_of(Index rows, Index cols, const F& apply) {
  Dense transposed = Dense::Zero(cols, rows);
  const Dense units = Dense::Identity(cols, cols);
  for (Index j = 0; j < cols; ++j) {
    apply(std::span<const double>(&units(j, 0), static_cast<std::size_t>(cols)),
          std::span<double>(&transposed(j, 0), static_cast<std::size_t>(rows)));
  }
  return transposed.transpose();
}

using Definition = Dense(Index features, Index side, Index blocks);

/// Checks an operator's C [blocks * side, in] and D [out, blocks * side] at every awkward shape.
template <class Op>
void expect_is(const Op& op, Definition c_of, Definition d_of) {
  for (const Shape& shape : awkward_shapes) {
    SCOPED_TRACE(shape);
    const auto side = side_for(op, shape);
    if (!side) continue;
    const auto [c, d] = op.make(shape.in, shape.out, *side);
    const Index width = c.blocks() * *side;
    const Dense found_c = matrix_of(width, shape.in, [&c = c](auto x, auto z) { c.apply(x, z); });
    const Dense found_d = matrix_of(shape.out, width, [&d = d](auto z, auto y) { d.add(z, y); });
    EXPECT_TRUE(near(found_c, c_of(shape.in, *side, c.blocks())));
    EXPECT_TRUE(near(found_d, d_of(shape.out, *side, c.blocks())));
    if (testing::Test::HasFailure()) return;
  }
}

/// ceil(in / side) * side entries, entry p being x[p mod in].
Dense wrapped(Index in, Index side) {
  const Index width = (in + side - 1) / side * side;
  Dense result = Dense::Zero(width, in);
  for (Index p = 0; p < width; ++p) result(p, p % in) = 1.0;
  return result;
}

/// All entries p of a wrapped x with the same p mod side, summed.
Dense strided_sum(Index in, Index side, Index /*blocks*/) {
  const Dense x = wrapped(in, side);
  Dense result = Dense::Zero(side, in);
  for (Index p = 0; p < x.rows(); ++p) result.row(p % side) += x.row(p);
  return result;
}

/// [features, groups]: in which group each feature is, the first features mod groups of them having
/// one member more.
Dense adjacent(Index features, Index groups) {
  std::vector<Index> group_of;
  for (Index group = 0; group < groups; ++group) {
    const Index members = features / groups + (group < features % groups ? 1 : 0);
    group_of.insert(group_of.end(), static_cast<std::size_t>(members), group);
  }
  Dense result = Dense::Zero(features, groups);
  for (Index i = 0; i < features; ++i) result(i, group_of.at(static_cast<std::size_t>(i))) = 1.0;
  return result;
}
Dense adjacent_sum(Index in, Index side, Index /*blocks*/) {
  return adjacent(in, side).transpose();
}
Dense adjacent_repeat(Index out, Index side, Index /*blocks*/) { return adjacent(out, side); }

/// The blocks one after another, again and again, cut at the end of the output.
Dense tiled(Index out, Index side, Index blocks) {
  Dense result = Dense::Zero(out, side * blocks);
  for (Index i = 0; i < out; ++i) result(i, i % (side * blocks)) = 1.0;
  return result;
}

/// The blocks of a wrapped x, those that are used.
Dense block_wise(Index in, Index side, Index blocks) {
  return wrapped(in, side).topRows(blocks * side);
}

/// Block b turned by RoPE's rotation at position b: with [b1, b2] the halves of the block,
/// b * cos + [-b2, b1] * sin, theta_j = 10000^(-2j / side).
Dense rotated(Index in, Index side, Index blocks) {
  const Dense x = block_wise(in, side, blocks);
  const Index half = side / 2;
  Dense result = Dense::Zero(x.rows(), in);
  for (Index block = 0; block < blocks; ++block) {
    for (Index j = 0; j < half; ++j) {
      const double angle = double(block) * std::pow(10000.0, -2.0 * double(j) / double(side));
      const auto b1 = x.row(block * side + j);
      const auto b2 = x.row(block * side + j + half);
      result.row(block * side + j) = b1 * std::cos(angle) - b2 * std::sin(angle);
      result.row(block * side + j + half) = b2 * std::cos(angle) + b1 * std::sin(angle);
    }
  }
  return result;
}

/// As tiled; blocks that do not fit start again at the first output.
Dense folded(Index out, Index side, Index blocks) {
  Dense result = tiled(out, side, blocks);
  const Index places = (out + side - 1) / side;
  for (Index block = places; block < blocks; ++block) {
    for (Index i = 0; i < side; ++i) {
      const Index output = block % places * side + i;
      if (output < out) result(output, block * side + i) = 1.0;
    }
  }
  return result;
}

Dense leading(Index in, Index side, Index /*blocks*/) { return Dense::Identity(side, in); }
Dense padded(Index out, Index side, Index /*blocks*/) { return Dense::Identity(out, side); }

TEST(Definition, Truncation) { expect_is(mora::Truncation(), leading, padded); }
TEST(Definition, SharingIsType1) { expect_is(mora::Sharing(), strided_sum, tiled); }
TEST(Definition, AdjacentSharingIsType2) {
  expect_is(mora::AdjacentSharing(), adjacent_sum, adjacent_repeat);
}
TEST(Definition, AdjacentStridedSharingIsType3) {
  expect_is(mora::AdjacentStridedSharing(), adjacent_sum, tiled);
}
TEST(Definition, StridedAdjacentSharingIsType4) {
  expect_is(mora::StridedAdjacentSharing(), strided_sum, adjacent_repeat);
}
TEST(Definition, Decoupling) { expect_is(mora::Decoupling(), block_wise, tiled); }
TEST(Definition, RotationIsType6) { expect_is(mora::Rotation(), rotated, tiled); }
TEST(Definition, CoveringRotation) { expect_is(mora::CoveringRotation(), rotated, folded); }

TEST(Blocks, AreThoseThatReachAnOutput) {
  const auto blocks = [](const auto& op, Index in, Index out) {
    const Index side = op.fit_side(mora::mora_side(in, out, 8));
    return op.make(in, out, side).compress.blocks();
  };
  EXPECT_EQ(blocks(mora::Rotation(), 11008, 4096), 12);  // of 32
  EXPECT_EQ(blocks(mora::Decoupling(), 11008, 4096), 12);
  EXPECT_EQ(blocks(mora::CoveringRotation(), 11008, 4096), 32);
  EXPECT_EQ(blocks(mora::Rotation(), 4096, 11008), 12);
  EXPECT_EQ(blocks(mora::Decoupling(), 4096, 11008), 12);
}

/// `Op` computes what `All`, which makes all blocks of the input and drops some, does.
template <class Op, class All>
void expect_drops_nothing() {
  Random random(1);
  for (const Shape& shape : awkward_shapes) {
    if (shape.side() < 2) continue;
    SCOPED_TRACE(shape);
    const auto weight = random.matrix<double>(shape.out, shape.in);
    mora::MoraLinear<double, Op> layer(weight, {.rank = shape.rank});
    const Index side = layer.adapter().side();
    layer.adapter().matrix().value = random.matrix<double>(side, side);
    struct FixedSide : All {
      Index side = 0;
      Index fit_side(Index) const { return side; }
    };
    FixedSide all;
    all.side = side;
    mora::MoraLinear<double, FixedSide> other(weight, {.rank = shape.rank, .op = all});
    other.adapter().matrix().value = layer.adapter().matrix().value;

    const auto x = random.matrix<double>(3, shape.in);
    const auto dy = random.matrix<double>(3, shape.out);
    typename mora::MoraLinear<double, Op>::Saved saved;
    typename mora::MoraLinear<double, FixedSide>::Saved other_saved;
    EXPECT_TRUE(near(layer.forward(x, saved), other.forward(x, other_saved)));
    EXPECT_TRUE(near(layer.backward(dy, saved), other.backward(dy, other_saved)));
    EXPECT_TRUE(near(layer.adapter().matrix().gradient, other.adapter().matrix().gradient));
    EXPECT_TRUE(near(layer.update(), other.update()));
    if (testing::Test::HasFailure()) return;
  }
}
TEST(Blocks, BeyondTheOutputChangeNothing) {
  using Spread = mora::GroupSpread<mora::StridedGroups>;
  expect_drops_nothing<mora::Rotation, mora::Pair<mora::RotatedBlocks, Spread>>();
  expect_drops_nothing<mora::Decoupling, mora::Pair<mora::Blocks, Spread>>();
}

TEST(Definition, RotationNeedsASideOfTwo) {
  for (const Index side : {0, 1}) {
    EXPECT_THROW((void)mora::Rotation().fit_side(side), mora::ArgumentError);
    EXPECT_THROW((void)mora::CoveringRotation().fit_side(side), mora::ArgumentError);
  }
  EXPECT_EQ(mora::Rotation().fit_side(2), 2);
  EXPECT_EQ(mora::Rotation().fit_side(3), 2);
  EXPECT_EQ(mora::CoveringRotation().fit_side(349), 348);
}

/// The inputs of the blocks that no output depends on: where C^T D^T y is 0.
template <class Op>
Index ignored_inputs(const Op& op, Index in, Index out, Index side) {
  const auto [c, d] = op.make(in, out, side);
  const RowVector<double> y = RowVector<double>::LinSpaced(out, 1.0, 2.0);
  RowVector<double> z(c.blocks() * side);
  RowVector<double> x = RowVector<double>::Zero(in);
  d.apply_adjoint(std::span<const double>(y.data(), static_cast<std::size_t>(out)),
                  std::span<double>(z.data(), static_cast<std::size_t>(z.size())));
  c.add_adjoint(std::span<const double>(z.data(), static_cast<std::size_t>(z.size())),
                std::span<double>(x.data(), static_cast<std::size_t>(in)));
  Index ignored = 0;
  for (Index first = 0; first < in; first += side) {
    const Index count = std::min(side, in - first);
    if ((x.segment(first, count).array() == 0.0).all()) ignored += count;
  }
  return ignored;
}

// 11008 -> 4096 is the down projection of LLaMA-2 7B.
TEST(Definition, RotationIgnoresInputsWhichCoveringRotationReads) {
  EXPECT_EQ(ignored_inputs(mora::Rotation(), 11008, 4096, 348), 6832);
  EXPECT_EQ(ignored_inputs(mora::CoveringRotation(), 11008, 4096, 348), 0);
  for (const Shape& shape : awkward_shapes) {
    const auto side = side_for(mora::CoveringRotation(), shape);
    if (!side) continue;
    EXPECT_EQ(ignored_inputs(mora::CoveringRotation(), shape.in, shape.out, *side), 0);
  }
}

}  // namespace
}  // namespace mora_tests
