// SPDX-License-Identifier: MIT
#include <algorithm>
#include <atomic>
#include <mora/adapters/any_adapter.hpp>
#include <mora/core/parallel.hpp>
#include <stdexcept>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "support/layer_types.hpp"
#include "support/misuse.hpp"
#include "support/not_finite.hpp"
#include "support/threads.hpp"

namespace mora_tests {
namespace {

using mora::Matrix;

TYPED_TEST(EveryLayer, InfersOnEightThreadsAtOnce) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(45, 37, 4);
  const auto x = random_numbers<T>(19, 45);
  for (const bool merged : {false, true}) {
    if (merged) layer.merge();
    const TypeParam& shared = layer;
    const Matrix<T> expected = shared.forward(x);
    std::vector<Matrix<T>> results(thread_count);
    on_eight_threads([&](std::size_t i) {
      for (int turn = 0; turn < 5; ++turn) results[i] = shared.forward(x);
    });
    for (const Matrix<T>& y : results) EXPECT_TRUE(same_bits(y, expected));
  }
}

TYPED_TEST(EveryLayer, ReadsOnEightThreadsAtOnce) {
  using T = typename TypeParam::Scalar;
  const TypeParam layer = make_layer<TypeParam>(45, 37, 4);
  const Bits expected = bits_of(layer);
  const Matrix<T> update = layer.update();
  std::vector<Bits> bits(thread_count);
  std::vector<Matrix<T>> updates(thread_count);
  on_eight_threads([&](std::size_t i) {
    const TypeParam copy = layer;
    updates[i] = layer.update();
    bits[i] = bits_of(copy);
    (void)layer.warnings();
    (void)mora::parameter_count(layer);
  });
  for (const Matrix<T>& each : updates) EXPECT_TRUE(same_bits(each, update));
  for (const Bits& each : bits) EXPECT_EQ(each, expected);
}

TYPED_TEST(EveryLayer, AddsItsUpdateInPlaceInSeveralPieces) {
  using T = typename TypeParam::Scalar;
  TypeParam layer = make_layer<TypeParam>(301, 701, 4);
  ASSERT_GT(layer.out_features(), 3 * mora::detail::weight_chunk(layer.in_features()));
  Matrix<T> target = layer.base().weight();
  const Matrix<T> expected = target + layer.update();
  layer.merge_into(target);
  EXPECT_TRUE(near(target, expected));
}

TYPED_TEST(EveryLayer, MergesAFewRowsAtATimeAsAnyAdapter) {
  using T = typename TypeParam::Scalar;
  const TypeParam layer = make_layer<TypeParam>(45, 37, 4);
  const mora::AnyAdapter<T> adapter(layer.adapter());
  const Matrix<T> expected = layer.base().weight() + layer.update();
  const auto merge = adapter.row_merge();
  for (mora::Index first = 0; first < expected.rows(); first += 7) {
    const mora::Index count = std::min<mora::Index>(7, expected.rows() - first);
    Matrix<T> rows = layer.base().weight().middleRows(first, count);
    merge->merge_rows(first, mora::detail::map_of(rows));
    EXPECT_TRUE(near(rows, expected.middleRows(first, count)));
  }
}

/// Some steps of training towards random targets.
template <class Layer>
void train(Layer& layer, std::uint64_t seed) {
  using T = typename Layer::Scalar;
  mora::AdamW<T> optimizer({.learning_rate = 1e-2});
  typename Layer::Saved saved;
  const auto x = random_numbers<T>(11, layer.in_features(), seed);
  const auto target = random_numbers<T>(11, layer.out_features(), seed + 1);
  for (int step = 0; step < 5; ++step) {
    mora::zero_gradients(layer);
    const Matrix<T> y = layer.forward(x, saved);
    (void)layer.backward(y - target, saved);
    optimizer.step(layer);
  }
  layer.merge();
}

TYPED_TEST(EveryLayer, TrainsEightAdaptersOfOneWeightAtOnce) {
  using T = typename TypeParam::Scalar;
  const auto weight = random_numbers<T>(37, 45);
  std::vector<TypeParam> serial;
  for (std::size_t i = 0; i < thread_count; ++i) {
    serial.emplace_back(mora::FrozenLinear<T>(weight, mora::RowVector<T>::Ones(37)),
                        make_layer<TypeParam>(45, 37, 4, i).adapter());
  }
  std::vector<TypeParam> parallel = serial;
  for (std::size_t i = 0; i < thread_count; ++i) train(serial[i], i);
  on_eight_threads([&](std::size_t i) { train(parallel[i], i); });
  for (std::size_t i = 0; i < thread_count; ++i) {
    EXPECT_EQ(bits_of(parallel[i]), bits_of(serial[i]));
  }
}

// Copies share the tables of rotation and of random groups.
TYPED_TEST(EveryLayer, TouchesItsTablesFirstOnEightThreadsAtOnce) {
  using T = typename TypeParam::Scalar;
  const auto x = random_numbers<T>(3, 45);
  const Matrix<T> expected = make_layer<TypeParam>(45, 37, 4).forward(x);
  std::vector<TypeParam> copies(thread_count, make_layer<TypeParam>(45, 37, 4));
  on_eight_threads([&](std::size_t i) {
    EXPECT_TRUE(same_bits(copies[i].forward(x), expected));
    TypeParam moved = std::move(copies[i]);
    EXPECT_TRUE(same_bits(moved.forward(x), expected));
    const TypeParam fresh = make_layer<TypeParam>(45, 37, 4);
    EXPECT_TRUE(same_bits(fresh.forward(x), expected));
  });
}

TEST(ParallelPieces, HandOnAnExceptionAndCanBeUsedAgain) {
  for (const Index bad : {0, 1, 37, 99}) {
    std::atomic<Index> visited{0};
    const auto work = [&](Index first, Index count) {
      visited += count;
      if (first <= bad && bad < first + count) throw std::domain_error("piece");
    };
    EXPECT_TRUE(
        throws<std::domain_error>({"piece"}, [&] { mora::detail::parallel_pieces(100, 3, work); }));
    visited = 0;
    mora::detail::parallel_pieces(100, 3, [&](Index, Index count) { visited += count; });
    EXPECT_EQ(visited, 100);
  }
}

TEST(ParallelPieces, HandOnExceptionsOfEveryPiece) {
  on_eight_threads([](std::size_t) {
    EXPECT_TRUE(throws<std::domain_error>({"piece"}, [] {
      mora::detail::parallel_pieces(64, 1, [](Index, Index) { throw std::domain_error("piece"); });
    }));
  });
}

TEST(ParallelPieces, HandOnAnExceptionFromTheMiddleOfAMerge) {
  const auto weight = random_numbers<float>(3000, 70);
  mora::LoraLinear<float> layer(weight, make_layer<mora::LoraLinear<float>>(70, 3000).adapter());
  layer.adapter().b().value(2500, 1) = infinity<float>;
  EXPECT_TRUE(throws<mora::NumericError>({"merge", "entry (2500, "}, [&] { layer.merge(); }));
  EXPECT_FALSE(layer.merged());
}

#if defined(_OPENMP)
TYPED_TEST(EveryLayer, ComputesTheSameBitsOnAnyNumberOfThreads) {
  using T = typename TypeParam::Scalar;
  const int threads = omp_get_max_threads();
  const auto x = random_numbers<T>(130, 300);
  const auto dy = random_numbers<T>(130, 500);
  std::vector<Bits> results;
  for (const int number : {1, 2, 3, 4, 7}) {
    omp_set_num_threads(number);
    TypeParam layer = make_layer<TypeParam>(300, 500, 8);
    typename TypeParam::Saved saved;
    Bits bits = bits_of(layer.forward(x, saved));
    bits.bytes += bits_of(layer.backward(dy, saved)).bytes;
    bits.bytes += bits_of(layer.forward(x.topRows(1))).bytes;
    layer.merge();
    bits.bytes += bits_of(layer).bytes;
    results.push_back(bits);
  }
  omp_set_num_threads(threads);
  for (const Bits& bits : results) EXPECT_EQ(bits, results.front());
}

/// Parameters of many sizes, some of several pieces and some of less than one.
template <class T>
struct ManyParameters {
  std::vector<mora::Parameter<T>> all;
  explicit ManyParameters(Random& random) {
    for (const Index size : {3, 40000, 1, 16384, 16385, 700, 100000}) {
      all.push_back({random.matrix<T>(1, size), random.matrix<T>(1, size)});
    }
  }
  template <class F>
  void visit_parameters(const F& f) {
    for (std::size_t i = 0; i < all.size(); ++i)
      f(std::string_view("abcdefg").substr(i, 1), all[i]);
  }
};

template <class O>
void expect_same_steps_on_any_number_of_threads() {
  using T = typename O::Scalar;
  const int threads = omp_get_max_threads();
  std::vector<Bits> results;
  for (const int number : {1, 2, 3, 4, 7}) {
    omp_set_num_threads(number);
    Random random(1);
    ManyParameters<T> module(random);
    O optimizer(typename O::Settings{.weight_decay = 0.1});
    Bits bits;
    for (int step = 0; step < 3; ++step) {
      const mora::GradientNorm norm = mora::clip_gradient_norm(module, 5.0);
      bits.bytes += bits_of(mora::RowVector<double>::Constant(1, norm.norm)).bytes;
      optimizer.step(module);
    }
    for (const auto& p : module.all)
      bits.bytes += bits_of(p.value).bytes + bits_of(p.gradient).bytes;
    // The first bad parameter is named, whichever thread finds one first.
    for (const std::size_t bad : {5, 3, 1}) {
      module.all[bad].gradient(0, 600) = nan<T>;
      const std::string name("abcdefg", bad, 1);
      EXPECT_TRUE(throws<mora::NumericError>({"gradient of " + name + ":"},
                                             [&] { optimizer.step(module); }));
      EXPECT_EQ(mora::gradient_norm(module).not_finite, name);
    }
    results.push_back(bits);
  }
  omp_set_num_threads(threads);
  for (const Bits& bits : results) EXPECT_EQ(bits, results.front());
}

TEST(Optimizers, StepTheSameBitsOnAnyNumberOfThreads) {
  expect_same_steps_on_any_number_of_threads<mora::AdamW<float>>();
  expect_same_steps_on_any_number_of_threads<mora::AdamW<double>>();
  expect_same_steps_on_any_number_of_threads<mora::Sgd<float>>();
}
#endif

}  // namespace
}  // namespace mora_tests
