// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <mora/core/narrow_product.hpp>
#include <mora/core/product.hpp>
#include <span>
#include <utility>

#include "support/compare.hpp"
#include "support/not_finite.hpp"
#include "support/random.hpp"

/// \file
/// The matrix product against Eigen's, for each way in which the library calls it.

namespace mora_tests {
namespace {

using mora::Matrix;
using mora::detail::map_of;
using mora::detail::Operand;

struct Sizes {
  Index rows;
  Index cols;
  Index depth;
};
// The last two: more rows than are packed at once, by two threads too, and more depth.
constexpr Sizes awkward_sizes[] = {
    {1, 1, 1},   {1, 7, 5},     {7, 1, 5},   {5, 7, 1},      {2, 3, 4},      {3, 300, 2},
    {13, 29, 3}, {16, 16, 8},   {64, 4, 31}, {31, 25, 11},   {1, 400, 300},  {400, 1, 300},
    {12, 8, 90}, {0, 5, 3},     {5, 0, 3},   {5, 3, 0},      {97, 101, 103}, {2, 513, 700},
    {1, 1, 999}, {3, 33, 1024}, {17, 33, 5}, {129, 65, 257}, {2300, 2, 60},  {1100, 2, 1100},
};
// About as narrow as a vector, and not: whole vectors and rests, and more depth than is summed in
// one go.
constexpr Sizes narrow_sizes[] = {
    {260, 8, 128}, {128, 8, 260}, {8, 128, 260}, {47, 5, 400},  {5, 47, 400}, {99, 4, 33},
    {4, 99, 33},   {33, 7, 500},  {7, 99, 32},   {2000, 6, 24}, {40, 3, 200}, {3, 40, 200},
    {31, 8, 77},   {8, 77, 31},   {300, 8, 0},   {300, 2, 50},  {2, 300, 50}, {34, 9, 70},
};

/// A block of a larger matrix that is NaN around it.
template <class T>
class Surrounded {
 public:
  explicit Surrounded(const Matrix<T>& inner)
      : memory_(Matrix<T>::Constant(inner.rows() + 2, inner.cols() + 3, nan<T>)),
        rows_(inner.rows()),
        cols_(inner.cols()) {
    memory_.block(1, 2, rows_, cols_) = inner;
  }
  [[nodiscard]] mora::MutableMap<T> map() {
    return {&memory_(1, 2), rows_, cols_, Eigen::OuterStride<>(memory_.cols())};
  }
  [[nodiscard]] mora::ConstMap<T> map() const {
    return {&memory_(1, 2), rows_, cols_, Eigen::OuterStride<>(memory_.cols())};
  }
  [[nodiscard]] bool is_untouched_around() const {
    Matrix<T> copy = memory_;
    copy.block(1, 2, rows_, cols_).setConstant(nan<T>);
    return copy.array().isNaN().all();
  }

 private:
  Matrix<T> memory_;
  Index rows_;
  Index cols_;
};

template <class T, Operand OpA, Operand OpB>
struct Factors {
  Factors(const Sizes& sizes, Random& random)
      : a(OpA == Operand::plain ? random.matrix<T>(sizes.rows, sizes.depth)
                                : random.matrix<T>(sizes.depth, sizes.rows)),
        b(OpB == Operand::plain ? random.matrix<T>(sizes.depth, sizes.cols)
                                : random.matrix<T>(sizes.cols, sizes.depth)) {}
  [[nodiscard]] Matrix<T> product() const {
    const Matrix<T> op_a = OpA == Operand::plain ? Matrix<T>(a) : Matrix<T>(a.transpose());
    const Matrix<T> op_b = OpB == Operand::plain ? Matrix<T>(b) : Matrix<T>(b.transpose());
    if (op_a.cols() == 0) return Matrix<T>::Zero(op_a.rows(), op_b.cols());
    return op_a.lazyProduct(op_b);
  }
  Matrix<T> a;
  Matrix<T> b;
};

template <class T, Operand OpA, Operand OpB, class Product>
void expect_is_eigens_product(std::span<const Sizes> all, const Product& add_product) {
  for (const Sizes& sizes : all) {
    SCOPED_TRACE(testing::Message() << sizes.rows << " x " << sizes.depth << " x " << sizes.cols);
    Random random(1);
    const Factors<T, OpA, OpB> factors(sizes, random);
    const Surrounded<T> a(factors.a);
    const Surrounded<T> b(factors.b);
    const auto there = random.matrix<T>(sizes.rows, sizes.cols);
    Surrounded<T> c(there);
    const Matrix<T> expected = there + T(0.75) * factors.product();
    add_product(c.map(), T(0.75), std::as_const(a).map(), std::as_const(b).map());
    // The size that a sum of products of normal numbers has; a single one may be near zero.
    const double size = 1.0 + std::sqrt(double(sizes.depth));
    EXPECT_TRUE(near(c.map(), expected, {.magnitude = size}));
    EXPECT_TRUE(c.is_untouched_around());
  }
}

template <class T, Operand OpA, Operand OpB>
void expect_is_eigens_product() {
  expect_is_eigens_product<T, OpA, OpB>(awkward_sizes,
                                        [](auto c, T alpha, const auto& a, const auto& b) {
                                          mora::detail::add_product<OpA, OpB, T>(c, alpha, a, b);
                                        });
}

template <class T>
class Product : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Product, Scalars);

TYPED_TEST(Product, OfXAndTransposedW) {
  expect_is_eigens_product<TypeParam, Operand::plain, Operand::transposed>();
}
TYPED_TEST(Product, OfDyAndW) {
  expect_is_eigens_product<TypeParam, Operand::plain, Operand::plain>();
}
TYPED_TEST(Product, OfTransposedDyAndX) {
  expect_is_eigens_product<TypeParam, Operand::transposed, Operand::plain>();
}

/// c += alpha a op(v) by the function that sets c.
template <Operand OpV>
constexpr auto add_narrow_product = [](auto c, auto alpha, const auto& a, const auto& v) {
  using T = decltype(alpha);
  const Matrix<T> old = c;
  c.setConstant(nan<T>);
  mora::detail::narrow_product<OpV, T>(c, alpha, a, v);
  c += old;
};

/// The narrow factor is the left one, and the right one.
constexpr auto add_outer_product = [](auto c, auto alpha, const auto& g, const auto& x) {
  mora::detail::add_narrow_outer_product<Operand::plain, decltype(alpha)>(c, alpha, g, x);
};
constexpr auto add_transposed_outer_product = [](auto c, auto alpha, const auto& x, const auto& g) {
  mora::detail::add_narrow_outer_product<Operand::transposed, decltype(alpha)>(c, alpha, g, x);
};

TYPED_TEST(Product, WithANarrowRightFactor) {
  using T = TypeParam;
  for (const std::span<const Sizes> all :
       {std::span<const Sizes>(awkward_sizes), std::span<const Sizes>(narrow_sizes)}) {
    expect_is_eigens_product<T, Operand::plain, Operand::plain>(all,
                                                                add_narrow_product<Operand::plain>);
    expect_is_eigens_product<T, Operand::plain, Operand::transposed>(
        all, add_narrow_product<Operand::transposed>);
  }
}

// Where rows of the narrow factor follow one another as vectors it is read in its place.
TYPED_TEST(Product, WithAFactorThatConsistsOfVectors) {
  using T = TypeParam;
  const Index lanes = mora::detail::narrow_lanes<T>;
  Random random(1);
  const auto x = random.matrix<T>(70, 300);
  const auto v = random.matrix<T>(300, lanes);
  const auto g = random.matrix<T>(70, lanes);
  Matrix<T> c(70, lanes);
  mora::detail::narrow_product<Operand::plain, T>(map_of(c), T(2), map_of(x), map_of(v));
  EXPECT_TRUE(near(c, T(2) * x.lazyProduct(v), {.magnitude = 20.0}));
  Matrix<T> outer = Matrix<T>::Zero(lanes, 300);
  mora::detail::add_narrow_outer_product<Operand::plain, T>(map_of(outer), T(2), map_of(g),
                                                            map_of(x));
  EXPECT_TRUE(near(outer, T(2) * g.transpose().lazyProduct(x), {.magnitude = 20.0}));
}

// As tiles of tokens rely on.
TYPED_TEST(Product, WithANarrowFactorHasTheSameBitsOfARowInAnyPlace) {
  using T = TypeParam;
  const Index r = mora::detail::narrow_lanes<T>;
  Random random(1);
  const auto x = random.matrix<T>(79, 500);
  const auto a = random.matrix<T>(r, 500);
  Matrix<T> all(79, r);
  mora::detail::narrow_product<Operand::transposed, T>(map_of(all), T(0.3), map_of(x), map_of(a));
  for (Index first = 0; first < 40; ++first) {
    const Matrix<T> some = x.middleRows(first, 39);
    Matrix<T> c(39, r);
    mora::detail::narrow_product<Operand::transposed, T>(map_of(c), T(0.3), map_of(some),
                                                         map_of(a));
    EXPECT_TRUE(same_bits(c, Matrix<T>(all.middleRows(first, 39)))) << first;
  }
}

// A single chain of additions would be wrong by 3e-6.
template <class F>
void expect_exact_over_a_great_depth(const F& add_product) {
  Random random(1);
  const auto x = random.matrix<double>(32, 100'000);
  const auto v = random.matrix<double>(100'000, 8);
  const Matrix<float> x_float = x.cast<float>();
  const Matrix<float> v_float = v.cast<float>();
  Matrix<float> c = Matrix<float>::Zero(32, 8);
  add_product(map_of(c), 1.0F, map_of(x_float), map_of(v_float));
  const Matrix<double> expected = x_float.cast<double>().lazyProduct(v_float.cast<double>());
  EXPECT_LE((c.cast<double>() - expected).norm(), 1e-6 * expected.norm());
}

TEST(ProductOfAGreatDepth, IsExact) {
  expect_exact_over_a_great_depth([](auto c, float alpha, const auto& x, const auto& v) {
    mora::detail::add_product<Operand::plain, Operand::plain, float>(c, alpha, x, v);
  });
}
TEST(ProductOfAGreatDepth, WithAPackedFactorIsExact) {
  expect_exact_over_a_great_depth([](auto c, float alpha, const auto& x, const auto& v) {
    mora::detail::PackedFactor<float>(v).product(c, alpha, x);
  });
}
TEST(ProductOfAGreatDepth, WithANarrowFactorIsExact) {
  expect_exact_over_a_great_depth([](auto c, float alpha, const auto& x, const auto& v) {
    mora::detail::narrow_product<Operand::plain, float>(c, alpha, x, v);
  });
}

TYPED_TEST(Product, OfANarrowFactorsTransposeAndOfItsOwn) {
  using T = TypeParam;
  for (const std::span<const Sizes> all :
       {std::span<const Sizes>(awkward_sizes), std::span<const Sizes>(narrow_sizes)}) {
    expect_is_eigens_product<T, Operand::transposed, Operand::plain>(all, add_outer_product);
    expect_is_eigens_product<T, Operand::transposed, Operand::plain>(all,
                                                                     add_transposed_outer_product);
  }
}

TYPED_TEST(Product, WithAFactorThatIsPackedOnceForAllRows) {
  using T = TypeParam;
  for (const Sizes& sizes : awkward_sizes) {
    SCOPED_TRACE(testing::Message() << sizes.rows << " x " << sizes.depth << " x " << sizes.cols);
    Random random(1);
    const Factors<T, Operand::plain, Operand::plain> factors(sizes, random);
    const Surrounded<T> a(factors.a);
    const Surrounded<T> b(factors.b);
    const Surrounded<T> b_transposed(Matrix<T>(factors.b.transpose()));
    const auto there = random.matrix<T>(sizes.rows, sizes.cols);
    const Index upper = sizes.rows / 2;
    mora::detail::PackedFactor<T> packed;
    for (const bool transposed : {false, true}) {
      if (transposed) {
        packed.template pack<Operand::transposed>(b_transposed.map());
      } else {
        packed.pack(b.map());
      }
      for (const bool adds : {false, true}) {
        Surrounded<T> c(adds ? there : Matrix<T>::Constant(sizes.rows, sizes.cols, nan<T>));
        for (const auto& [first, count] :
             {std::pair(Index{0}, upper), {upper, sizes.rows - upper}}) {
          const auto part = mora::detail::rows_of(c.map(), first, count);
          const auto rows = mora::detail::rows_of(a.map(), first, count);
          adds ? packed.add_product(part, T(0.75), rows) : packed.product(part, T(0.75), rows);
        }
        const double size = 1.0 + std::sqrt(double(sizes.depth));
        Matrix<T> expected = T(0.75) * factors.product();
        if (adds) expected += there;
        EXPECT_TRUE(near(c.map(), expected, {.magnitude = size}));
        EXPECT_TRUE(c.is_untouched_around());
      }
    }
  }
}

#if defined(_OPENMP)
template <class T, Operand OpA, Operand OpB, class Product>
void expect_same_for_every_number_of_threads(const Product& add_product) {
  const int usual = omp_get_max_threads();
  for (const Sizes& sizes :
       {Sizes{97, 1001, 103}, Sizes{1001, 97, 103}, Sizes{1, 3001, 701}, Sizes{300, 301, 299},
        Sizes{2, 701, 900}, Sizes{701, 2, 900}, Sizes{1, 65, 2048}, Sizes{1, 129, 2048},
        Sizes{1, 1025, 2048}, Sizes{1, 2049, 300}, Sizes{2300, 30, 64}, Sizes{701, 8, 900},
        Sizes{8, 701, 900}, Sizes{701, 6, 900}, Sizes{5, 701, 900}, Sizes{13, 20, 4096},
        Sizes{13, 2, 4096}}) {
    SCOPED_TRACE(testing::Message() << sizes.rows << " x " << sizes.depth << " x " << sizes.cols);
    Random random(1);
    const Factors<T, OpA, OpB> factors(sizes, random);
    Matrix<T> with_one;
    for (const int threads : {1, 2, 3, 4, 7, 16}) {
      omp_set_num_threads(threads);
      Matrix<T> c = Matrix<T>::Zero(sizes.rows, sizes.cols);
      add_product(mora::detail::map_of(c), T(1), mora::detail::map_of(factors.a),
                  mora::detail::map_of(factors.b));
      if (threads == 1) with_one = c;
      EXPECT_TRUE(same_bits(c, with_one)) << threads << " threads";
    }
  }
  omp_set_num_threads(usual);
}

template <class T, Operand OpA, Operand OpB>
void expect_same_for_every_number_of_threads() {
  expect_same_for_every_number_of_threads<T, OpA, OpB>(
      [](auto c, T alpha, const auto& a, const auto& b) {
        mora::detail::add_product<OpA, OpB, T>(c, alpha, a, b);
      });
}

TYPED_TEST(Product, IsTheSameForEveryNumberOfThreads) {
  using T = TypeParam;
  expect_same_for_every_number_of_threads<T, Operand::plain, Operand::transposed>();
  expect_same_for_every_number_of_threads<T, Operand::plain, Operand::plain>();
  expect_same_for_every_number_of_threads<T, Operand::transposed, Operand::plain>();
  expect_same_for_every_number_of_threads<T, Operand::plain, Operand::transposed>(
      add_narrow_product<Operand::transposed>);
  expect_same_for_every_number_of_threads<T, Operand::transposed, Operand::plain>(
      add_outer_product);
  expect_same_for_every_number_of_threads<T, Operand::transposed, Operand::plain>(
      add_transposed_outer_product);
}
#endif

}  // namespace
}  // namespace mora_tests
