// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <memory>
#include <mora/adapters/linear.hpp>
#include <string>
#include <utility>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "support/compare.hpp"
#include "support/not_finite.hpp"
#include "support/random.hpp"
#include "support/throws.hpp"

/// \file
/// Frozen weights of 16 bits, against the same layer over the widened numbers.

namespace mora_tests {
namespace {

using mora::FrozenLinear;
using mora::Matrix;

/// The same weight twice: as F, and as T.
template <class F, class T>
class Weights {
 public:
  Weights(Index out, Index in, Random& random)
      : small_(std::make_shared<std::vector<F>>(static_cast<std::size_t>(out * in))),
        wide_(out, in),
        bias_(random.vector<T>(out)) {
    const auto numbers = random.matrix<T>(out, in);
    for (Index i = 0; i < wide_.size(); ++i) {
      F& number = (*small_)[static_cast<std::size_t>(i)];
      number = mora::narrow<F>(numbers.data()[i]);
      wide_.data()[i] = mora::widen<T>(number);
    }
  }
  [[nodiscard]] FrozenLinear<T> small() const {
    return {small_->data(), wide_.rows(), wide_.cols(), small_, bias_};
  }
  [[nodiscard]] FrozenLinear<T> wide() const { return {wide_, bias_}; }
  [[nodiscard]] const Matrix<T>& numbers() const { return wide_; }
  [[nodiscard]] std::vector<F>& stored() { return *small_; }

 private:
  std::shared_ptr<std::vector<F>> small_;
  Matrix<T> wide_;
  mora::RowVector<T> bias_;
};

/// Forward and backward, bit for bit.
template <class F, class T>
void expect_same_sums(const Weights<F, T>& weights, Index tokens, Random& random) {
  const auto x = random.matrix<T>(tokens, weights.numbers().cols());
  const auto dy = random.matrix<T>(tokens, weights.numbers().rows());
  EXPECT_TRUE(same_bits(weights.small().forward(x), weights.wide().forward(x)));
  EXPECT_TRUE(same_bits(weights.small().backward(dy), weights.wide().backward(dy)));
}

template <class Pair>
class SmallWeights : public testing::Test {};
using Pairs = testing::Types<std::pair<mora::Float16, float>, std::pair<mora::BFloat16, float>,
                             std::pair<mora::Float16, double>, std::pair<mora::BFloat16, double>>;
struct PairNames {
  template <class Pair>
  static std::string GetName(int) {
    using Small = typename Pair::first_type;
    return std::string(std::same_as<Small, mora::Float16> ? "Float16" : "BFloat16") +
           (std::same_as<typename Pair::second_type, float> ? "AsFloat" : "AsDouble");
  }
};
TYPED_TEST_SUITE(SmallWeights, Pairs, PairNames);

TYPED_TEST(SmallWeights, GiveTheSumsOfTheWidenedWeightBitForBit) {
  using F = typename TypeParam::first_type;
  using T = typename TypeParam::second_type;
  Random random(1);
  // Below and beyond the kernel's panels, its blocks of the depth and a thread's pieces.
  for (const auto& [out, in] : std::vector<std::pair<Index, Index>>{
           {1, 1}, {7, 5}, {5, 700}, {47, 49}, {96, 33}, {97, 1500}, {700, 97}, {1100, 515}}) {
    const Weights<F, T> weights(out, in, random);
    for (const Index tokens : {0, 2, 3, 13, 64, 257}) {
      SCOPED_TRACE(testing::Message() << out << "x" << in << ", " << tokens << " tokens");
      expect_same_sums(weights, tokens, random);
    }
  }
}

/// As on a processor with small caches, so that products are cut into many blocks.
class SmallCaches {
 public:
  SmallCaches() { Eigen::setCpuCacheSizes(2048, 8192, 16384); }
  SmallCaches(const SmallCaches&) = delete;
  SmallCaches& operator=(const SmallCaches&) = delete;
  ~SmallCaches() { Eigen::setCpuCacheSizes(first_, second_, last_); }

 private:
  std::ptrdiff_t first_ = Eigen::l1CacheSize();
  std::ptrdiff_t second_ = Eigen::l2CacheSize();
  std::ptrdiff_t last_ = Eigen::l3CacheSize();
};

TYPED_TEST(SmallWeights, GiveTheSameSumsFromManyBlocks) {
  using F = typename TypeParam::first_type;
  using T = typename TypeParam::second_type;
  Random random(6);
  const SmallCaches caches;
  for (const auto& [out, in] : std::vector<std::pair<Index, Index>>{{400, 300}, {301, 501}}) {
    const Weights<F, T> weights(out, in, random);
    for (const Index tokens : {7, 300, 2100}) {
      SCOPED_TRACE(testing::Message() << out << "x" << in << ", " << tokens << " tokens");
      expect_same_sums(weights, tokens, random);
    }
  }
}

TYPED_TEST(SmallWeights, ComputeOneTokenInAnotherOrder) {
  using F = typename TypeParam::first_type;
  using T = typename TypeParam::second_type;
  Random random(2);
  for (const auto& [out, in] : std::vector<std::pair<Index, Index>>{
           {1, 1}, {7, 5}, {8, 512}, {9, 513}, {5, 1700}, {1700, 5}, {900, 1100}}) {
    SCOPED_TRACE(testing::Message() << out << "x" << in);
    const Weights<F, T> weights(out, in, random);
    const auto x = random.matrix<T>(1, in);
    const auto dy = random.matrix<T>(1, out);
    EXPECT_TRUE(near(weights.small().forward(x), weights.wide().forward(x)));
    EXPECT_TRUE(near(weights.small().backward(dy), weights.wide().backward(dy)));
  }
}

TYPED_TEST(SmallWeights, CarryAdaptersAndMerge) {
  using F = typename TypeParam::first_type;
  using T = typename TypeParam::second_type;
  Random random(3);
  const Weights<F, T> weights(37, 53, random);
  const auto check = [&](auto small, auto wide) {
    small.visit_parameters(
        [&](std::string_view, auto& p) { mora::fill_normal(p.value, 0.1, random.generator()); });
    wide.adapter() = small.adapter();
    typename decltype(small)::Saved small_saved;
    typename decltype(wide)::Saved wide_saved;
    const auto x = random.matrix<T>(9, 53);
    const auto dy = random.matrix<T>(9, 37);
    EXPECT_TRUE(same_bits(small.forward(x, small_saved), wide.forward(x, wide_saved)));
    EXPECT_TRUE(same_bits(small.backward(dy, small_saved), wide.backward(dy, wide_saved)));
    EXPECT_TRUE(same_bits(small.update(), wide.update()));
    Matrix<T> target = weights.numbers();
    Matrix<T> wide_target = weights.numbers();
    small.merge_into(target);
    wide.merge_into(wide_target);
    EXPECT_TRUE(same_bits(target, wide_target));
    EXPECT_FALSE(small.merged());
    EXPECT_TRUE(small.merge());
    EXPECT_TRUE(wide.merge());
    EXPECT_TRUE(same_bits(small.forward(x), wide.forward(x)));
    EXPECT_TRUE(small.unmerge());
    EXPECT_TRUE(wide.unmerge());
    EXPECT_TRUE(same_bits(small.forward(x), wide.forward(x)));
  };
  check(mora::MoraLinear<T>(weights.small(), {.rank = 2}),
        mora::MoraLinear<T>(weights.wide(), {.rank = 2}));
  check(mora::LoraLinear<T>(weights.small(), {.rank = 2}, random.generator()),
        mora::LoraLinear<T>(weights.wide(), {.rank = 2}, random.generator()));
  check(mora::FullLinear<T>(weights.small()), mora::FullLinear<T>(weights.wide()));
}

/// With that many threads inside, where there is OpenMP; and what was before, afterwards.
template <class F>
auto with_threads(int number, const F& f) {
#if defined(_OPENMP)
  const int before = omp_get_max_threads();
  omp_set_num_threads(number);
  auto result = f();
  omp_set_num_threads(before);
  return result;
#else
  (void)number;
  return f();
#endif
}

TYPED_TEST(SmallWeights, DoNotDependOnTheNumberOfThreads) {
  using F = typename TypeParam::first_type;
  using T = typename TypeParam::second_type;
  Random random(7);
  const Weights<F, T> weights(523, 1031, random);
  const FrozenLinear<T> layer = weights.small();
  for (const Index tokens : {1, 5, 200}) {
    const auto x = random.matrix<T>(tokens, 1031);
    const auto dy = random.matrix<T>(tokens, 523);
    const auto y = with_threads(1, [&] { return layer.forward(x); });
    const auto dx = with_threads(1, [&] { return layer.backward(dy); });
    for (const int number : {2, 3, 4}) {
      EXPECT_TRUE(same_bits(with_threads(number, [&] { return layer.forward(x); }), y));
      EXPECT_TRUE(same_bits(with_threads(number, [&] { return layer.backward(dy); }), dx));
    }
  }
}

TYPED_TEST(SmallWeights, KeepNumbersThatAreNotFinite) {
  using F = typename TypeParam::first_type;
  using T = typename TypeParam::second_type;
  Random random(4);
  Weights<F, T> weights(30, 20, random);
  weights.stored()[5 * 20 + 3] = mora::narrow<F>(nan<T>);
  weights.stored()[6 * 20 + 4] = mora::narrow<F>(infinity<T>);
  weights.stored()[7 * 20 + 0] = F{1};  // the least of all
  const Matrix<T> read = weights.small().read_weight();
  EXPECT_TRUE(std::isnan(read(5, 3)));
  EXPECT_EQ(read(6, 4), infinity<T>);
  EXPECT_EQ(read(7, 0), mora::widen<T>(F{1}));
  for (const Index tokens : {1, 4}) {
    const Matrix<T> y = weights.small().forward(Matrix<T>::Ones(tokens, 20));
    EXPECT_TRUE(y.col(5).array().isNaN().all());
    EXPECT_TRUE((y.col(6).array() == infinity<T>).all());
    EXPECT_TRUE(y.leftCols(5).array().isFinite().all());
  }
  mora::MoraLinear<T> layer(weights.small(), {.rank = 2});
  EXPECT_TRUE(throws<mora::NumericError>({"entry (5, 3)"}, [&] { layer.merge(); }));
  EXPECT_FALSE(layer.merged());
}

TYPED_TEST(SmallWeights, AreReadByRowsAndHaveNoViewInPlace) {
  using F = typename TypeParam::first_type;
  using T = typename TypeParam::second_type;
  Random random(5);
  const Weights<F, T> weights(6, 4, random);
  FrozenLinear<T> small = weights.small();
  FrozenLinear<T> wide = weights.wide();
  EXPECT_EQ(small.weight_bits(), 16);
  EXPECT_EQ(wide.weight_bits(), int(8 * sizeof(T)));
  EXPECT_FALSE(small.has_weight_in_place());
  EXPECT_TRUE(wide.has_weight_in_place());
  EXPECT_TRUE(throws<mora::StateError>({"16 bits", "read_weight"}, [&] { (void)small.weight(); }));
  for (const FrozenLinear<T>& layer : {small, wide}) {
    EXPECT_TRUE(same_bits(layer.read_weight(), weights.numbers()));
    Matrix<T> rows(2, 4);
    layer.read_weight(4, rows);
    EXPECT_TRUE(same_bits(rows, weights.numbers().bottomRows(2)));
    const Matrix<T> before = rows;
    EXPECT_TRUE(throws<mora::ShapeError>({"6", "5"}, [&] { layer.read_weight(5, rows); }));
    EXPECT_TRUE(throws<mora::ShapeError>({"6", "-1"}, [&] { layer.read_weight(-1, rows); }));
    Matrix<T> narrow(2, 3);
    EXPECT_TRUE(throws<mora::ShapeError>({"4", "3"}, [&] { layer.read_weight(0, narrow); }));
    EXPECT_TRUE(same_bits(rows, before));
  }
  EXPECT_TRUE(throws<mora::ArgumentError>({"overlap"}, [&] {
    Matrix<T> w = weights.numbers();
    const FrozenLinear<T> over(w);
    over.read_weight(0, w.middleRows(1, 2));
  }));
  Matrix<T> apart(2, 4);
  mora::MutableMap<T> tight(apart.data(), 2, 4, Eigen::OuterStride<>(3));
  EXPECT_TRUE(throws<mora::ArgumentError>(
      {"overlap"}, [&] { small.read_weight(0, mora::MutableView<T>(tight)); }));
  const FrozenLinear<T> moved = std::move(small);
  // NOLINTNEXTLINE(bugprone-use-after-move)
  EXPECT_TRUE(throws<mora::StateError>({"moved from"}, [&] { (void)small.read_weight(); }));
  EXPECT_TRUE(same_bits(moved.read_weight(), weights.numbers()));
}

TYPED_TEST(SmallWeights, RefuseResultsInTheirMemory) {
  using F = typename TypeParam::first_type;
  using T = typename TypeParam::second_type;
  alignas(T) std::array<std::byte, 1024> arena{};
  const auto* const weight = reinterpret_cast<const F*>(arena.data() + 512);
  const FrozenLinear<T> layer(weight, 4, 6, nullptr);  // 48 bytes from 512 on
  const Matrix<T> x = Matrix<T>::Ones(2, 6);
  const auto result_at = [&](std::size_t byte) {
    return mora::MutableMap<T>(reinterpret_cast<T*>(arena.data() + byte), 2, 4,
                               Eigen::OuterStride<>(4));
  };
  for (const std::size_t byte : {512 - 8 * sizeof(T), std::size_t{560}}) {
    mora::MutableMap<T> beside = result_at(byte);
    layer.forward(x, beside);
  }
  for (const std::size_t byte : {512 - 7 * sizeof(T), std::size_t{512}, std::size_t{552}}) {
    mora::MutableMap<T> on_it = result_at(byte);
    EXPECT_TRUE(
        throws<mora::ArgumentError>({"result", "overlaps"}, [&] { layer.forward(x, on_it); }));
  }
}

TYPED_TEST(SmallWeights, RefuseOddAddressesAndNull) {
  using F = typename TypeParam::first_type;
  using T = typename TypeParam::second_type;
  alignas(F) std::array<std::byte, 64> bytes{};
  const auto* const odd = reinterpret_cast<const F*>(bytes.data() + 1);
  EXPECT_TRUE(throws<mora::ArgumentError>({"multiple of 2", "1"},
                                          [&] { FrozenLinear<T>(odd, 2, 2, nullptr); }));
  EXPECT_TRUE(throws<mora::ArgumentError>(
      {"null"}, [&] { FrozenLinear<T>(static_cast<const F*>(nullptr), 2, 2, nullptr); }));
}

}  // namespace
}  // namespace mora_tests
