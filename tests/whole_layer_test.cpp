// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <memory>
#include <mora/adapters/mora.hpp>
#include <vector>

#include "support/compare.hpp"
#include "support/operators.hpp"
#include "support/random.hpp"

/// \file
/// A MoRA adapter that computes a whole layer (on the way it may add its update to parts of W)
/// against the frozen layer and the formulas, token by token.

namespace mora_tests {
namespace {

using mora::FrozenLinear;
using mora::Matrix;
using mora::RowVector;
namespace detail = mora::detail;

constexpr double scale = 0.75;

/// s D(M C(x)) and the gradients, from nothing but the operators' required members.
template <class T, class Op>
struct Expected {
  Matrix<T> y;
  Matrix<T> dx;
  Matrix<T> dm;

  Expected(const mora::MoraAdapter<T, Op>& adapter, const Matrix<T>& x, const Matrix<T>& dy) {
    const auto& c = adapter.compressor();
    const auto& d = adapter.decompressor();
    const Index side = c.side();
    const Matrix<T>& m = adapter.matrix().value;
    y.setZero(x.rows(), adapter.out_features());
    dx.setZero(x.rows(), adapter.in_features());
    dm.setZero(side, side);
    for (Index t = 0; t < x.rows(); ++t) {
      Matrix<T> z(c.blocks(), side);
      Matrix<T> g(c.blocks(), side);
      c.apply(detail::row_span(detail::map_of(x), t), all_of(z));
      d.apply_adjoint(detail::row_span(detail::map_of(dy), t), all_of(g));
      Matrix<T> mz = T(scale) * z * m.transpose();
      Matrix<T> gm = T(scale) * g * m;
      d.add(std::span<const T>(all_of(mz)), detail::row_span(detail::map_of(y), t));
      c.add_adjoint(std::span<const T>(all_of(gm)), detail::row_span(detail::map_of(dx), t));
      dm += T(scale) * g.transpose() * z;
    }
  }
  static std::span<T> all_of(Matrix<T>& x) {
    return {x.data(), static_cast<std::size_t>(x.size())};
  }
};

template <class T, class Op>
void expect_whole_layer(const Op& op, const Shape& shape, Index tokens, const FrozenLinear<T>& base,
                        Random& random) {
  if (!side_for(op, shape)) return;
  mora::MoraAdapter<T, Op> adapter(
      shape.in, shape.out,
      {.rank = shape.rank, .rounding = shape.rounding, .scale = scale, .op = op});
  adapter.matrix().value = random.matrix<T>(adapter.side(), adapter.side());
  const auto x = random.matrix<T>(tokens, shape.in);
  const auto dy = random.matrix<T>(tokens, shape.out);
  const Expected<T, Op> expected(adapter, x, dy);

  const Matrix<T> w = base.read_weight();
  Matrix<T> y = Matrix<T>::Ones(tokens, shape.out);
  typename mora::MoraAdapter<T, Op>::Saved saved;
  adapter.add_forward(base, detail::map_of(x), detail::map_of(y), &saved);
  Matrix<T> expected_y = x * w.transpose() + expected.y;
  if (base.bias().size() != 0) expected_y.rowwise() += base.bias();
  EXPECT_TRUE(near(y, expected_y + Matrix<T>::Ones(tokens, shape.out)));

  // Whichever way that took.
  using Adapter = mora::MoraAdapter<T, Op>;
  using Update =
      detail::MoraUpdate<T, typename Adapter::Compressor, typename Adapter::Decompressor>;
  if (Update::possible(adapter.compressor())) {
    Matrix<T> updated = Matrix<T>::Zero(tokens, shape.out);
    const Update update(adapter.compressor(), adapter.decompressor(),
                        detail::map_of(std::as_const(adapter.matrix().value)), T(scale));
    detail::FrozenAccess::add_updated_product<detail::Operand::transposed>(
        base, detail::map_of(updated), detail::map_of(x), update);
    EXPECT_TRUE(near(updated, x * w.transpose() + expected.y));
  }

  Matrix<T> inferred = Matrix<T>::Ones(tokens, shape.out);
  adapter.add_forward(base, detail::map_of(x), detail::map_of(inferred), nullptr);
  EXPECT_TRUE(same_bits(inferred, y));

  Matrix<T> dx = Matrix<T>::Ones(tokens, shape.in);
  mora::MutableMap<T> map = detail::map_of(dx);
  adapter.add_backward(base, detail::map_of(x), detail::map_of(dy), saved, &map);
  EXPECT_TRUE(near(dx, dy * w + expected.dx + Matrix<T>::Ones(tokens, shape.in)));
  EXPECT_TRUE(near(adapter.matrix().gradient, expected.dm));
}

template <class T>
class WholeLayer : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(WholeLayer, Scalars);

TYPED_TEST(WholeLayer, IsTheFrozenOneAndTheFormulas) {
  using T = TypeParam;
  for_each_operator([](const char* name, const auto& op) {
    SCOPED_TRACE(name);
    std::uint64_t seed = 1;
    for (const Shape& shape : awkward_shapes) {
      SCOPED_TRACE(shape);
      Random random(seed++);
      const auto w = random.matrix<T>(shape.out, shape.in);
      // Few tokens, which M multiplies; and so many that W takes the update up on the way.
      for (const Index tokens : {3, 60}) {
        SCOPED_TRACE(tokens);
        expect_whole_layer<T>(op, shape, tokens, FrozenLinear<T>(w, random.vector<T>(shape.out)),
                              random);
        if (testing::Test::HasFailure()) return;
      }
    }
  });
}

TYPED_TEST(WholeLayer, OfMoreTokensThanATileHas) {
  using T = TypeParam;
  for_each_operator([](const char* name, const auto& op) {
    SCOPED_TRACE(name);
    Random random(11);
    const Shape shape{25, 31, 2};
    expect_whole_layer<T>(op, shape, 1100, FrozenLinear<T>(random.matrix<T>(shape.out, shape.in)),
                          random);
  });
}

// Several parts of W each way, with the update's borders in between.
TYPED_TEST(WholeLayer, OfManyParts) {
  using T = TypeParam;
  for_each_operator([](const char* name, const auto& op) {
    SCOPED_TRACE(name);
    for (const Shape& shape : {Shape{700, 330, 4}, Shape{330, 700, 4}}) {
      SCOPED_TRACE(shape);
      Random random(7);
      const auto numbers = random.matrix<T>(shape.out, shape.in);
      const auto halves = std::make_shared<std::vector<mora::BFloat16>>();
      for (const T number : numbers.reshaped())
        halves->push_back(mora::narrow<mora::BFloat16>(number));
      expect_whole_layer<T>(op, shape, 320, FrozenLinear<T>(numbers), random);
      expect_whole_layer<T>(op, shape, 320,
                            FrozenLinear<T>(halves->data(), shape.out, shape.in, halves), random);
    }
  });
}

}  // namespace
}  // namespace mora_tests
