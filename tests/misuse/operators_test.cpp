// SPDX-License-Identifier: MIT
// Operators on their own, and adapters without a layer around them.
#include <limits>
#include <mora/analysis/singular_values.hpp>

#include "support/layer_types.hpp"
#include "support/misuse.hpp"

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::ShapeError;
using mora::StateError;

template <class Op>
void expect_refuses_sizes_below_one() {
  constexpr Index least = std::numeric_limits<Index>::min();
  for (const Index wrong : {Index{0}, Index{-1}, Index{-2}, least}) {
    const std::string found = "found " + std::to_string(wrong);
    EXPECT_TRUE(throws<ArgumentError>({found}, [&] { (void)Op{}.make(wrong, 8, 4); }));
    EXPECT_TRUE(throws<ArgumentError>({found}, [&] { (void)Op{}.make(8, wrong, 4); }));
    EXPECT_TRUE(throws<ArgumentError>({"side", found}, [&] { (void)Op{}.make(8, 8, wrong); }));
  }
}

TEST(Operators, RefuseSizesBelowOne) {
  expect_refuses_sizes_below_one<mora::Sharing>();
  expect_refuses_sizes_below_one<mora::AdjacentSharing>();
  expect_refuses_sizes_below_one<mora::AdjacentStridedSharing>();
  expect_refuses_sizes_below_one<mora::StridedAdjacentSharing>();
  expect_refuses_sizes_below_one<mora::RandomSharing>();
  expect_refuses_sizes_below_one<mora::Truncation>();
  expect_refuses_sizes_below_one<mora::Decoupling>();
  expect_refuses_sizes_below_one<mora::Rotation>();
  expect_refuses_sizes_below_one<mora::CoveringRotation>();
}

TEST(Operators, RefuseWhatDoesNotFit) {
  EXPECT_TRUE(
      throws<ArgumentError>({"even", "found 5"}, [] { (void)mora::Rotation{}.make(8, 8, 5); }));
  EXPECT_TRUE(throws<ArgumentError>({"multiple of the side 3", "found 4"}, [] {
    (void)mora::GroupSpread<mora::StridedGroups>(mora::StridedGroups(8, 4), 3);
  }));
  for (const Index side : {Index{-1}, Index{0}}) {
    EXPECT_TRUE(throws<ArgumentError>({"side", "at least 1", "found " + std::to_string(side)}, [&] {
      (void)mora::GroupSpread<mora::StridedGroups>(mora::StridedGroups(8, 4), side);
    }));
  }
}

constexpr Index most = std::numeric_limits<Index>::max();

// Blocks and side whose product no number holds: 2^80 would be 0.
TEST(Operators, RefuseMoreThanCanBeCounted) {
  constexpr Index many = Index{1} << 40;
  const auto parts = {std::string_view("blocks * side"),
                      std::string_view("found 1099511627776 * ")};
  EXPECT_TRUE(throws<ArgumentError>(
      parts, [] { (void)mora::GroupSpread<mora::StridedGroups>(8, many, many); }));
  EXPECT_TRUE(throws<ArgumentError>(
      parts, [] { (void)mora::GroupSpread<mora::AdjacentGroups>(8, many, many); }));
  EXPECT_TRUE(throws<ArgumentError>(parts, [] { (void)mora::ZeroPadding(8, many, many); }));
  EXPECT_TRUE(throws<ArgumentError>(parts, [] { (void)mora::FoldedBlocks(8, many, many); }));
  EXPECT_TRUE(throws<ArgumentError>({"blocks * side"}, [] { (void)mora::Blocks(most, 2); }));
  EXPECT_EQ(mora::ZeroPadding(8, many, 1).side(), many);
}

TEST(Operators, CountBlocksOfTheLargestSides) {
  EXPECT_EQ(mora::Blocks(3, most).blocks(), 1);
  EXPECT_EQ(mora::Blocks(3, most).side(), most);
  EXPECT_EQ(mora::Blocks(most, most).blocks(), 1);
  EXPECT_EQ(mora::Blocks(7, 3).blocks(), 3);
  EXPECT_EQ(mora::Blocks(6, 3).blocks(), 2);
  EXPECT_EQ(mora::Blocks(7, 3, 2).blocks(), 2);
  EXPECT_EQ(mora::Decoupling{}.make(3, 5, most).decompress.blocks(), 1);
  EXPECT_TRUE(throws<ArgumentError>({"blocks", "found 0"}, [] { (void)mora::Blocks(7, 3, 0); }));
  int sources = 0;
  mora::FoldedBlocks(3, most, 1).for_each_source(2, [&](Index p) {
    EXPECT_EQ(p, 2);
    ++sources;
  });
  EXPECT_EQ(sources, 1);
}

/// An operator of a user's own whose sizes are wrong.
template <Index wrong_side, Index wrong_blocks>
struct Wrong {
  [[nodiscard]] Index fit_side(Index) const { return 1; }
  struct Nothing {
    [[nodiscard]] Index in_features() const { return 4; }
    [[nodiscard]] Index out_features() const { return 6; }
    [[nodiscard]] Index side() const { return wrong_side; }
    [[nodiscard]] Index blocks() const { return wrong_blocks; }
    template <class T>
    void apply(std::span<const T>, std::span<T>) const {}
    template <class T>
    void add_adjoint(std::span<const T>, std::span<T>) const {}
    template <class T>
    void add(std::span<const T>, std::span<T>) const {}
    template <class T>
    void apply_adjoint(std::span<const T>, std::span<T>) const {}
  };
  [[nodiscard]] mora::OperatorPair<Nothing, Nothing> make(Index, Index, Index) const { return {}; }
};

TEST(Operators, OfAUserNeedASideAndBlocks) {
  EXPECT_TRUE(throws<ArgumentError>({"compressor, side", "at least 1", "found 0"},
                                    [] { (void)mora::MoraAdapter<float, Wrong<0, 1>>(4, 6); }));
  EXPECT_TRUE(throws<ArgumentError>({"compressor, blocks", "at least 1", "found 0"},
                                    [] { (void)mora::MoraAdapter<float, Wrong<1, 0>>(4, 6); }));
}

template <class Layer>
[[nodiscard]] mora::Matrix<double> merged_by_plan(const Layer& layer, const auto& plan) {
  mora::Matrix<double> rows = mora::Matrix<double>::Zero(layer.out_features(), layer.in_features());
  layer.adapter().merge_rows(plan, 0, mora::detail::map_of(rows));
  return rows;
}

// Somebody's adapter may be made of two.
template <class Layer>
void expect_plans_live_side_by_side() {
  const auto first = make_layer<Layer>(20, 16, 1, 1);
  const auto second = make_layer<Layer>(40, 30, 3, 2);
  const auto plan = first.adapter().plan_merge();
  const auto other = second.adapter().plan_merge();
  // Before update(), which makes a plan too.
  const auto rows = merged_by_plan(first, plan);
  const auto others = merged_by_plan(second, other);
  EXPECT_TRUE(near(rows, first.update()));
  EXPECT_TRUE(near(others, second.update()));
}

TEST(MergePlans, LiveSideBySide) {
  expect_plans_live_side_by_side<mora::LoraLinear<double>>();
  expect_plans_live_side_by_side<mora::MoraLinear<double, mora::RandomSharing>>();
}

template <class Layer>
void expect_keeps_dx_when_saved_is_another() {
  auto layer = make_layer<Layer>(12, 10, 1);
  const auto other = make_layer<Layer>(12, 10, 3);
  typename Layer::Saved saved;
  (void)other.forward(random_numbers<double>(3, 12), saved);
  const auto before = random_numbers<double>(3, 12);
  auto dx = before;
  EXPECT_TRUE(refuses<ShapeError>(
      layer, {"saved"}, [&] { layer.backward(random_numbers<double>(3, 10), saved, dx); }));
  EXPECT_TRUE(same_bits(dx, before));
}

TEST(BackwardPass, KeepsTheResultOfWhoPassesAnothersSaved) {
  expect_keeps_dx_when_saved_is_another<mora::LoraLinear<double>>();
  expect_keeps_dx_when_saved_is_another<mora::MoraLinear<double, mora::Sharing>>();
}

TEST(Spectrum, NeedsTheShapesOfTheAdapter) {
  auto layer = make_layer<mora::MoraLinear<double>>(12, 10, 2);
  layer.adapter().matrix().value.setOnes(2, 2);
  EXPECT_TRUE(throws<ShapeError>({"M", "found 2"}, [&] { (void)mora::spectrum(layer.adapter()); }));
  auto lora = make_layer<mora::LoraLinear<double>>(12, 10, 2);
  lora.adapter().a().value.setOnes(5, 12);
  EXPECT_TRUE(throws<ShapeError>({"A", "found 5"}, [&] { (void)mora::spectrum(lora.adapter()); }));
  auto miss = make_layer<mora::MissLinear<double>>(12, 10, 2);
  miss.adapter().matrix().value.setOnes(5, 10);
  EXPECT_TRUE(
      throws<ShapeError>({"D, rows", "found 5"}, [&] { (void)mora::spectrum(miss.adapter()); }));
  auto lokr = make_layer<mora::LokrLinear<double>>(12, 10, 2);
  lokr.adapter().w1().a.value.setOnes(5, 3);
  EXPECT_TRUE(
      throws<ShapeError>({"W1, rows", "found 5"}, [&] { (void)mora::spectrum(lokr.adapter()); }));
}

TEST(AnyAdapter, SaysThatItWasMovedFrom) {
  mora::AnyAdapter<double> one(make_layer<mora::MoraLinear<double>>(12, 10, 2).adapter());
  const mora::AnyAdapter<double> other = std::move(one);
  EXPECT_EQ(other.in_features(), 12);
  // NOLINTBEGIN(bugprone-use-after-move)
  EXPECT_TRUE(throws<StateError>({"moved from"}, [&] { (void)one.in_features(); }));
  EXPECT_TRUE(throws<StateError>({"moved from"}, [&] { (void)mora::AnyAdapter<double>(one); }));
  EXPECT_TRUE(throws<StateError>({"moved from"}, [&] { one.require_shapes(); }));
  EXPECT_TRUE(throws<StateError>({"moved from"}, [&] { (void)one.parameters(); }));
  one = other;
  EXPECT_EQ(one.out_features(), 10);
  // NOLINTEND(bugprone-use-after-move)
}

// What it is given comes from no layer that has checked it.
TYPED_TEST(EveryLayer, RefusesOtherSizesBehindAnyAdapter) {
  using T = typename TypeParam::Scalar;
  using Any = mora::AnyAdapter<T>;
  using mora::Matrix;
  using mora::detail::as_const;
  using mora::detail::map_of;
  const TypeParam layer = make_layer<TypeParam>(4, 6);
  const auto other = make_layer<TypeParam>(40, 60);
  Any adapter(layer.adapter());
  const mora::FrozenLinear<T>& base = layer.base();
  Matrix<T> x = random_numbers<T>(3, 4), y = Matrix<T>::Ones(3, 6), dx = Matrix<T>::Ones(3, 4);
  Matrix<T> wide = Matrix<T>::Ones(3, 40), tall = Matrix<T>::Ones(5, 6);
  Matrix<T> low = Matrix<T>::Ones(5, 4);
  const auto in = [](Matrix<T>& m) { return as_const(map_of(m)); };

  EXPECT_TRUE(throws<ShapeError>({"in_features", "expected 40", "found 4"},
                                 [&] { (void)adapter.merged(other.base()); }));
  EXPECT_TRUE(throws<ShapeError>({"in_features", "expected 40", "found 4"},
                                 [&] { (void)adapter.update(other.base()); }));
  const auto merge = adapter.row_merge();
  EXPECT_TRUE(throws<ShapeError>({"merge_rows, columns", "expected 4", "found 40"},
                                 [&] { merge->merge_rows(0, map_of(wide)); }));
  for (const Index first : {Index{-1}, Index{4}, Index{6}, std::numeric_limits<Index>::max(),
                            std::numeric_limits<Index>::min()}) {
    EXPECT_TRUE(throws<ShapeError>({"merge_rows", "rows of 6", "found 3 from"},
                                   [&] { merge->merge_rows(first, map_of(dx)); }));
  }

  typename Any::SavedPointer saved;
  const auto forward = [&](Matrix<T>& input, Matrix<T>& output) {
    return [&] { adapter.add_forward(base, in(input), map_of(output), &saved); };
  };
  EXPECT_TRUE(throws<ShapeError>({"columns of x", "expected 4", "found 40"}, forward(wide, y)));
  EXPECT_TRUE(throws<ShapeError>({"result, rows", "expected 3", "found 5"}, forward(x, tall)));
  EXPECT_TRUE(throws<ShapeError>({"result, columns", "expected 6", "found 40"}, forward(x, wide)));
  EXPECT_TRUE(throws<ShapeError>({"in_features", "expected 40", "found 4"}, [&] {
    adapter.add_forward(other.base(), in(wide), map_of(y), nullptr);
  }));
  EXPECT_TRUE((y.array() == T(1)).all() && (dx.array() == T(1)).all());
  forward(x, y)();

  const auto backward = [&](Matrix<T>& input, Matrix<T>& dy, Matrix<T>& result) {
    return [&] {
      auto map = map_of(result);
      adapter.add_backward(base, in(input), in(dy), *saved, &map);
    };
  };
  EXPECT_TRUE(throws<ShapeError>({"rows of dy", "expected 3", "found 5"}, backward(x, tall, dx)));
  EXPECT_TRUE(
      throws<ShapeError>({"columns of dy", "expected 6", "found 40"}, backward(x, wide, dx)));
  EXPECT_TRUE(throws<ShapeError>({"result, columns", "expected 4", "found 6"}, backward(x, y, y)));
  EXPECT_TRUE(throws<ShapeError>({"result, rows", "expected 3", "found 5"}, backward(x, y, low)));
  if (adapter.saves_input()) {
    EXPECT_TRUE(throws<ShapeError>({"columns of x", "found 40"}, backward(wide, y, dx)));
    EXPECT_TRUE(throws<ShapeError>({"rows of x", "expected 3", "found 5"}, backward(low, y, dx)));
  }
  auto& gradient = adapter.parameters()[0].parameter->gradient;
  gradient.setOnes(2, 1);
  EXPECT_TRUE(throws<ShapeError>({"gradient of ", "found 2x1"}, backward(x, y, dx)));
  EXPECT_TRUE((dx.array() == T(1)).all());
  gradient.resize(0, 0);
  backward(x, y, dx)();
  EXPECT_TRUE(throws<StateError>({"no training forward pass"}, backward(x, y, dx)));
  forward(x, y)();

  // Without the frozen layer, where the adapter has a part of its own.
  if (adapter.additive()) {
    EXPECT_TRUE(throws<ShapeError>({"columns of x", "found 40"},
                                   [&] { adapter.add_forward(in(wide), map_of(y), &saved); }));
    EXPECT_TRUE(throws<ShapeError>({"rows of dy", "found 5"}, [&] {
      adapter.add_backward(in(x), in(tall), *saved, nullptr);
    }));
    EXPECT_TRUE(throws<ShapeError>({"add_update, rows", "expected 6", "found 3"},
                                   [&] { adapter.add_update(map_of(dx)); }));
    EXPECT_TRUE(throws<ShapeError>({"add_update, columns", "expected 4", "found 6"}, [&] {
      Matrix<T> square = Matrix<T>::Ones(6, 6);
      adapter.add_update(map_of(square));
    }));
    Matrix<T> weight = Matrix<T>::Zero(6, 4);
    adapter.add_update(map_of(weight));
    EXPECT_TRUE(near(weight, adapter.update(base)));
    forward(x, y)();
  } else {
    EXPECT_TRUE(throws<StateError>({"depends on the frozen weight"},
                                   [&] { adapter.add_update(map_of(low)); }));
    EXPECT_TRUE(throws<StateError>({"whole layers"},
                                   [&] { adapter.add_forward(in(x), map_of(y), nullptr); }));
    EXPECT_TRUE(throws<StateError>({"whole layers"},
                                   [&] { adapter.add_backward(in(x), in(y), *saved, nullptr); }));
  }
  EXPECT_TRUE(throws<ShapeError>({"in_features", "expected 40", "found 4"}, [&] {
    adapter.add_backward(other.base(), in(x), in(y), *saved, nullptr);
  }));
  if (adapter.can_save()) {
    EXPECT_TRUE(
        throws<ShapeError>({"columns of x", "found 40"}, [&] { adapter.save(in(wide), saved); }));
    // What it saves is what a forward pass does, and one backward pass uses it up.
    gradient.setZero();
    adapter.add_backward(in(x), in(y), *saved, nullptr);
    const Matrix<T> expected = gradient;
    gradient.setZero();
    adapter.save(in(x), saved);
    adapter.add_backward(in(x), in(y), *saved, nullptr);
    EXPECT_TRUE(same_bits(gradient, expected));
    EXPECT_TRUE(throws<StateError>({"no training forward pass"},
                                   [&] { adapter.add_backward(in(x), in(y), *saved, nullptr); }));
    adapter.save(in(x), saved);
  } else {
    EXPECT_TRUE(throws<StateError>({"comes with its output"}, [&] { adapter.save(in(x), saved); }));
  }

  // Parameters may have been given another shape.
  adapter.parameters()[0].parameter->value.conservativeResize(5, Eigen::NoChange);
  adapter.parameters()[0].parameter->gradient.resize(0, 0);
  const auto refused = [](const auto& call) {
    EXPECT_TRUE(throws<ShapeError>({"expected", "found"}, call));
  };
  refused([&] { adapter.require_shapes(); });
  refused([&] { (void)adapter.row_merge(); });
  refused([&] { (void)adapter.merged(base); });
  refused([&] { (void)adapter.update(base); });
  refused(forward(x, y));
  refused(backward(x, y, dx));
  if (adapter.additive()) {
    refused([&] { adapter.add_forward(in(x), map_of(y), nullptr); });
    refused([&] { adapter.add_backward(in(x), in(y), *saved, nullptr); });
  }
}

// A merge by rows may outlast the shapes that it began with.
template <class Layer>
void expect_refuses_rows_of_another_shape(std::string_view name) {
  const mora::FrozenLinear<double> frozen(random_numbers<double>(6, 4));
  Random random(1);
  mora::AnyAdapter<double> adapter(Layer(frozen, {.rank = 2}, random.generator()).adapter());
  const auto merge = adapter.row_merge();
  auto rows = random_numbers<double>(3, 4);
  const auto before = rows;
  mora::Matrix<double>& value = adapter.parameters()[0].parameter->value;
  value.setOnes(value.rows() + 1, value.cols());
  EXPECT_TRUE(throws<ShapeError>({name, "rows", "found " + std::to_string(value.rows())},
                                 [&] { merge->merge_rows(0, mora::detail::map_of(rows)); }));
  EXPECT_TRUE(same_bits(rows, before));
}

TEST(AnyAdapter, RefusesToMergeRowsOfParametersOfAnotherShape) {
  expect_refuses_rows_of_another_shape<mora::LoraLinear<double>>("A");
  expect_refuses_rows_of_another_shape<mora::MoraLinear<double>>("M");
  expect_refuses_rows_of_another_shape<mora::MissLinear<double>>("D");
}

TEST(AnyAdapter, RefusesWhatAnotherSaved) {
  using Any = mora::AnyAdapter<double>;
  using mora::detail::as_const;
  using mora::detail::map_of;
  const auto layer = make_layer<mora::LoraLinear<double>>(4, 6, 2);
  Any adapter(layer.adapter());
  mora::Matrix<double> x = random_numbers<double>(3, 4);
  mora::Matrix<double> y = random_numbers<double>(3, 6);
  const auto saved_by = [&](const Any& any) {
    Any::SavedPointer saved;
    any.add_forward(as_const(map_of(x)), map_of(y), &saved);
    return saved;
  };
  const auto before = random_numbers<double>(3, 4, 2);
  mora::Matrix<double> dx = before;
  const auto backward = [&](const Any::SavedPointer& saved) {
    auto map = map_of(dx);
    adapter.add_backward(layer.base(), as_const(map_of(x)), as_const(map_of(y)), *saved, &map);
  };
  const auto type = saved_by(Any(make_layer<mora::MoraLinear<double>>(4, 6).adapter()));
  EXPECT_TRUE(throws<StateError>({"another adapter's"}, [&] { backward(type); }));
  const auto rank = saved_by(Any(make_layer<mora::LoraLinear<double>>(4, 6, 3).adapter()));
  EXPECT_TRUE(throws<ShapeError>({"rank", "expected 2", "found 3"}, [&] { backward(rank); }));
  EXPECT_EQ(adapter.parameters()[0].parameter->gradient.size(), 0);
  EXPECT_TRUE(same_bits(dx, before));
  backward(saved_by(adapter));
  EXPECT_FALSE(near(dx, before));
}

// Adding zeros turns -0 into +0.
template <class Layer>
void expect_zero_update_changes_no_bit(Layer layer) {
  const auto weight = mora::Matrix<float>::Constant(6, 4, -0.0f).eval();
  auto target = weight;
  layer.merge_into(target);
  EXPECT_TRUE(same_bits(target, weight));
}

TEST(ZeroUpdates, ChangeNoBit) {
  using mora::Matrix;
  auto lora = make_layer<mora::LoraLinear<float>>(4, 6, 2);
  lora.adapter().a().value.setZero();
  expect_zero_update_changes_no_bit(lora);
  auto rotation = make_layer<mora::MoraLinear<float>>(4, 6, 2);
  rotation.adapter().matrix().value.setZero();
  expect_zero_update_changes_no_bit(rotation);
  auto sharing = make_layer<mora::MoraLinear<float, mora::RandomSharing>>(4, 6, 2);
  sharing.adapter().matrix().value.setZero();
  expect_zero_update_changes_no_bit(sharing);
  auto truncated = make_layer<mora::MoraLinear<float, mora::Truncation>>(40, 60, 1);
  const Matrix<float> large = Matrix<float>::Constant(60, 40, -0.0f);
  auto corner = large;
  truncated.merge_into(corner);
  const Index side = truncated.adapter().side();
  EXPECT_TRUE(same_bits(Matrix<float>(corner.rightCols(40 - side)),
                        Matrix<float>(large.rightCols(40 - side))));
}

}  // namespace
}  // namespace mora_tests
