// SPDX-License-Identifier: MIT
// Every allocation of every call fails once: std::bad_alloc comes out, nothing is half-changed,
// nothing leaks, and the call works when it is made again.
#include <new>
#include <optional>

#include "support/failing_allocations.hpp"
#include "support/layer_types.hpp"
#include "support/misuse.hpp"
#include "support/operators.hpp"
#include "support/threads.hpp"

namespace mora_tests {
namespace {

using mora::Matrix;

/// A layer that has been trained a little, so that it has gradients.
template <class Layer>
[[nodiscard]] Layer make_trained_layer() {
  using T = typename Layer::Scalar;
  Layer layer = make_layer<Layer>(9, 7, 3);
  typename Layer::Saved saved;
  (void)layer.forward(random_numbers<T>(2, 9), saved);
  (void)layer.backward(random_numbers<T>(2, 7), saved);
  return layer;
}

TYPED_TEST(EveryLayer, IsNotMadeWithoutMemory) {
  using T = typename TypeParam::Scalar;
  const auto weight = random_numbers<T>(7, 9);
  const auto bias = random_numbers<T>(1, 7);
  const auto nothing = [] {};
  EXPECT_GT(fail_each_allocation(
                [&] {
                  std::mt19937_64 generator(1);
                  TypeParam layer({Matrix<T>(weight), mora::RowVector<T>(bias)}, {}, generator);
                },
                nothing),
            3);
  const TypeParam layer = make_trained_layer<TypeParam>();
  const Bits before = bits_of(layer);
  EXPECT_GT(fail_each_allocation([&] { const TypeParam copy = layer; },
                                 [&] { EXPECT_EQ(bits_of(layer), before); }),
            1);
}

TYPED_TEST(EveryLayer, IsAssignedInFullOrNotAtAll) {
  using T = typename TypeParam::Scalar;
  TypeParam source = make_layer<TypeParam>(20, 30, 3, 2);
  TypeParam target = make_trained_layer<TypeParam>();
  typename TypeParam::Saved saved;
  (void)source.forward(random_numbers<T>(5, 20), saved);
  (void)source.backward(random_numbers<T>(5, 30), saved);
  source.merge();
  const Bits before = bits_of(target);
  EXPECT_GT(
      fail_each_allocation([&] { target = source; }, [&] { EXPECT_EQ(bits_of(target), before); }),
      3);
  EXPECT_EQ(bits_of(target), bits_of(source));
  source.unmerge();

  TypeParam other = make_trained_layer<TypeParam>();
  auto adapter = other.adapter();
  EXPECT_GT(fail_each_allocation([&] { other.adapter() = source.adapter(); },
                                 [&] { EXPECT_EQ(bits_of(other), before); }),
            1);
  other.adapter() = adapter;
  EXPECT_EQ(bits_of(other), before);

  mora::FrozenLinear<T> frozen = other.base();
  EXPECT_GT(fail_each_allocation([&] { frozen = source.base(); },
                                 [&] {
                                   EXPECT_TRUE(same_bits(frozen.weight(), other.base().weight()));
                                   EXPECT_TRUE(same_bits(frozen.bias(), other.base().bias()));
                                 }),
            0);
}

TYPED_TEST(EveryLayer, HasParametersThatAreAssignedInFullOrNotAtAll) {
  using T = typename TypeParam::Scalar;
  mora::Parameter<T> target;
  target.value = random_numbers<T>(2, 3);
  target.gradient = random_numbers<T>(2, 3);
  mora::Parameter<T> source = target;
  source.value = random_numbers<T>(4, 5, 2);
  source.gradient = random_numbers<T>(4, 5, 3);
  EXPECT_EQ(fail_each_allocation([&] { target = source; },
                                 [&] {
                                   EXPECT_TRUE(same_bits(target.value, random_numbers<T>(2, 3)));
                                   EXPECT_TRUE(same_bits(target.gradient, target.value));
                                 }),
            2);
  EXPECT_TRUE(same_bits(target.gradient, source.gradient));
}

// The forward pass that it goes back through is still the one of before.
TYPED_TEST(EveryLayer, HasSavedThatIsAssignedInFullOrNotAtAll) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_trained_layer<TypeParam>();
  const auto dy = random_numbers<T>(5, 7);
  typename TypeParam::Saved source;
  typename TypeParam::Saved target;
  (void)layer.forward(random_numbers<T>(2, 9), source);
  (void)layer.forward(random_numbers<T>(5, 9), target);
  const long failures = fail_each_allocation([&] { target = source; },
                                             [&] {
                                               TypeParam copy = layer;
                                               typename TypeParam::Saved used = target;
                                               (void)copy.backward(dy, used);
                                             });
  EXPECT_GT(failures, 0);
  EXPECT_THROW((void)layer.backward(dy, target), mora::ShapeError);  // it is that of two tokens
  (void)layer.backward(random_numbers<T>(2, 7), target);
}

TYPED_TEST(EveryLayer, InfersOrThrows) {
  using T = typename TypeParam::Scalar;
  const TypeParam layer = make_trained_layer<TypeParam>();
  const Bits before = bits_of(layer);
  const auto x = random_numbers<T>(5, 9);
  const Matrix<T> expected = layer.forward(x);
  Matrix<T> y(5, 7);
  const auto check = [&] {
    EXPECT_EQ(bits_of(layer), before);
    EXPECT_TRUE(same_bits(layer.forward(x), expected));
  };
  EXPECT_GT(fail_each_allocation([&] { (void)layer.forward(x); }, check), 1);
  EXPECT_GT(fail_each_allocation([&] { (void)layer.forward(T(2) * x); }, check), 2);
  EXPECT_GT(fail_each_allocation([&] { layer.forward(x, y); }, check), 0);
  EXPECT_TRUE(same_bits(y, expected));
}

TYPED_TEST(EveryLayer, KeepsNoHalfOfATrainingForwardPass) {
  using T = typename TypeParam::Scalar;
  const TypeParam layer = make_trained_layer<TypeParam>();
  const auto x = random_numbers<T>(5, 9);
  const auto dy = random_numbers<T>(5, 7);
  TypeParam trained = layer;
  typename TypeParam::Saved saved;
  const Matrix<T> y = trained.forward(x, saved);
  (void)trained.backward(dy, saved);

  // Saved memory of another size gives way to new memory.
  for (const Index tokens : {0, 2, 8}) {
    EXPECT_GT(fail_each_allocation(
                  [&] {
                    std::optional<typename TypeParam::Saved> used(std::in_place);
                    (void)layer.forward(random_numbers<T>(tokens, 9), *used);
                    (void)layer.forward(x, *used);
                  },
                  [] {}),
              2);
  }
  typename TypeParam::Saved again;
  (void)layer.forward(random_numbers<T>(2, 9), again);
  const auto check = [&] {
    // It is empty, or still that of two tokens.
    TypeParam copy = layer;
    EXPECT_THROW((void)copy.backward(dy, again), mora::Error);
  };
  EXPECT_GT(fail_each_allocation([&] { (void)layer.forward(x, again); }, check, Keeps::memory), 2);
  TypeParam copy = layer;
  EXPECT_TRUE(same_bits(copy.forward(x, again), y));
  (void)copy.backward(dy, again);
  EXPECT_EQ(bits_of(copy), bits_of(trained));
}

TYPED_TEST(EveryLayer, AddsAllGradientsOrNone) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_trained_layer<TypeParam>();
  const Bits before = bits_of(layer);
  const auto x = random_numbers<T>(5, 9);
  const auto dy = random_numbers<T>(5, 7);
  TypeParam expected = layer;
  typename TypeParam::Saved saved;
  const auto check = [&] { EXPECT_EQ(bits_of(layer), before); };
  const auto compare_and_reset = [&](auto&& backward) {
    backward(expected);
    EXPECT_EQ(bits_of(layer), bits_of(expected));
    layer = make_trained_layer<TypeParam>();
    expected = layer;
  };
  (void)layer.forward(x, saved);
  EXPECT_GT(fail_each_allocation([&] { (void)layer.backward(dy, saved); }, check), 1);
  (void)expected.forward(x, saved);
  compare_and_reset([&](TypeParam& each) { (void)each.backward(dy, saved); });

  (void)layer.forward(x, saved);
  EXPECT_GT(fail_each_allocation([&] { layer.backward_parameters(dy, saved); }, check), 0);
  (void)expected.forward(x, saved);
  compare_and_reset([&](TypeParam& each) { each.backward_parameters(dy, saved); });
}

TYPED_TEST(EveryLayer, MakesItsFirstGradientsOrNone) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(9, 7, 3);
  const auto x = random_numbers<T>(5, 9);
  const auto dy = random_numbers<T>(5, 7);
  typename TypeParam::Saved saved;
  (void)layer.forward(x, saved);
  fail_each_allocation([&] { (void)layer.backward(dy, saved); },
                       [&] {
                         layer.visit_parameters([](std::string_view, auto& p) {
                           EXPECT_TRUE((p.gradient.array() == T(0)).all());  // or empty
                         });
                       },
                       Keeps::memory);
}

TYPED_TEST(EveryLayer, MergesOrStaysAsItIs) {
  TypeParam layer = make_trained_layer<TypeParam>();
  const Bits before = bits_of(layer);
  TypeParam expected = layer;
  expected.merge();
  EXPECT_GT(fail_each_allocation([&] { layer.merge(); },
                                 [&] {
                                   EXPECT_FALSE(layer.merged());
                                   EXPECT_EQ(bits_of(layer), before);
                                 }),
            1);
  EXPECT_EQ(bits_of(layer), bits_of(expected));
  EXPECT_EQ(fail_each_allocation([&] { layer.unmerge(); }, [] {}), 0);
  EXPECT_GT(fail_each_allocation([&] { (void)layer.update(); },
                                 [&] { EXPECT_EQ(bits_of(layer), before); }),
            0);
}

template <class Layer>
void expect_merges_or_leaves(Index in, Index out) {
  using T = typename Layer::Scalar;
  const auto weight = random_numbers<T>(out, in);
  const mora::RowVector<T> bias = random_numbers<T>(1, out);
  const auto adapter = make_layer<Layer>(in, out, 3).adapter();
  for (const bool in_place : {true, false}) {
    Matrix<T> frozen = weight;
    Matrix<T> other = weight;
    Matrix<T>& target = in_place ? frozen : other;
    Layer layer({frozen, bias}, adapter);
    const long failures = fail_each_allocation(
        [&] {
          use_threads(4);
          layer.merge_into(target);
        },
        [&] {
          EXPECT_FALSE(layer.merged());
          EXPECT_TRUE(same_bits(target, weight));
        });
    EXPECT_GT(failures, 0);
    EXPECT_FALSE(same_bits(target, weight));
    EXPECT_EQ(layer.merged(), in_place);
  }
}

TYPED_TEST(EveryLayer, MergesIntoMemoryOrLeavesIt) { expect_merges_or_leaves<TypeParam>(9, 7); }

// Every thread takes working memory of its own.
TYPED_TEST(EveryLayer, MergesIntoMemoryOnManyThreadsOrLeavesIt) {
  expect_merges_or_leaves<TypeParam>(600, 700);
}
TEST(UsersOperator, MergesIntoMemoryOnManyThreadsOrLeavesIt) {
  expect_merges_or_leaves<mora::MoraLinear<float, UsersOperator>>(600, 700);
}

TYPED_TEST(EveryLayer, IsSteppedInFullOrNotAtAll) {
  using T = typename TypeParam::Scalar;
  const auto check_optimizer = [](auto optimizer) {
    TypeParam layer = make_trained_layer<TypeParam>();
    TypeParam expected = layer;
    const Bits before = bits_of(layer);
    auto twin = optimizer;
    EXPECT_GT(fail_each_allocation([&] { optimizer.step(layer); },
                                   [&] { EXPECT_EQ(bits_of(layer), before); }, Keeps::memory),
              1);
    for (int step = 0; step < 2; ++step) {
      twin.step(expected);
      EXPECT_EQ(bits_of(layer), bits_of(expected));
      optimizer.step(layer);
    }
  };
  check_optimizer(mora::AdamW<T>());
  check_optimizer(mora::Sgd<T>({.momentum = 0.9}));
}

/// Eigen's own resize keeps the size, and with it memory that is freed.
template <class Dense>
void expect_is_empty_without_memory(Index rows) {
  Dense x(rows, 5);
  fail_allocation(1);
  EXPECT_THROW(mora::detail::resize(x, rows, 7), std::bad_alloc);
  fail_allocation(0);
  EXPECT_EQ(x.size(), 0);
  mora::detail::resize(x, rows, 7);
  EXPECT_EQ(x.size(), 7 * rows);
}
TEST(Resize, WithoutMemoryLeavesAnEmptyMatrix) {
  expect_is_empty_without_memory<Matrix<float>>(3);
  expect_is_empty_without_memory<mora::RowVector<double>>(1);
}

}  // namespace
}  // namespace mora_tests
