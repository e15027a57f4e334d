// SPDX-License-Identifier: MIT
// Once warmed up, passes into the caller's memory allocate nothing.
#include "support/allocations.hpp"

#include <thread>
#include <vector>

#include "support/layer_types.hpp"
#include "support/misuse.hpp"
#include "support/threads.hpp"

namespace mora_tests {
namespace {

using mora::Matrix;

/// The allocations of one call, after two others. In Debug Eigen is a second witness: it asserts
/// where it would allocate (EIGEN_RUNTIME_NO_MALLOC).
template <class F>
[[nodiscard]] long allocations_of(const F& call) {
  call();
  call();
  const long before = allocation_count();
  Eigen::internal::set_is_malloc_allowed(false);
  call();
  Eigen::internal::set_is_malloc_allowed(true);
  return allocation_count() - before;
}

template <class Layer>
void expect_no_allocations(Index in, Index out, Index tokens) {
  using T = typename Layer::Scalar;
  SCOPED_TRACE(testing::Message() << in << " to " << out << ", " << tokens << " tokens");
  Layer layer = make_layer<Layer>(in, out, 8);
  const auto x = random_numbers<T>(tokens, in);
  const auto dy = random_numbers<T>(tokens, out);
  Matrix<T> y(tokens, out);
  Matrix<T> dx(tokens, in);
  EXPECT_EQ(allocations_of([&] { layer.forward(x, y); }), 0);
  typename Layer::Saved saved;
  mora::AdamW<T> optimizer;
  EXPECT_EQ(allocations_of([&] {
              mora::zero_gradients(layer);
              layer.forward(x, saved, y);
              layer.backward(dy, saved, dx);
              optimizer.step(layer);
            }),
            0);
  EXPECT_EQ(allocations_of([&] {
              layer.forward(x, saved, y);
              layer.backward_parameters(dy, saved);
            }),
            0);
  layer.merge();
  EXPECT_EQ(allocations_of([&] { layer.forward(x, y); }), 0);
}

/// `test` on threads without working memory, that use 1, 2, 3 and 4 threads inside with OpenMP.
template <class F>
void on_any_number_of_threads(const F& test) {
#if defined(_OPENMP)
  const std::initializer_list<int> numbers = {1, 2, 3, 4};
#else
  const std::initializer_list<int> numbers = {1};
#endif
  for (const int number : numbers) {
    SCOPED_TRACE(testing::Message() << number << " threads");
    std::thread([&] {
      use_threads(number);
      test();
    }).join();
  }
}

TYPED_TEST(EveryLayer, AllocatesNothingOnceWarmedUp) {
  on_any_number_of_threads([] {
    for (const Index tokens : {1, 2, 64, 512}) expect_no_allocations<TypeParam>(40, 30, tokens);
  });
}

template <class F>
void expect_no_allocations_over(Index in, Index out, Index tokens) {
  const std::vector<F> weight(static_cast<std::size_t>(in * out));
  const mora::FrozenLinear<float> frozen(weight.data(), out, in, nullptr);
  const auto x = random_numbers<float>(tokens, in);
  const auto dy = random_numbers<float>(tokens, out);
  Matrix<float> y(tokens, out);
  Matrix<float> dx(tokens, in);
  EXPECT_EQ(allocations_of([&] { frozen.forward(x, y); }), 0);
  EXPECT_EQ(allocations_of([&] { frozen.backward(dy, dx); }), 0);
}

TEST(SmallWeights, AllocateNothingOnceWarmedUp) {
  on_any_number_of_threads([] {
    for (const Index tokens : {1, 2, 64, 512}) {
      expect_no_allocations_over<mora::BFloat16>(600, 300, tokens);
      expect_no_allocations_over<mora::Float16>(300, 600, tokens);
    }
  });
}

// Where Eigen's own expression of a product would allocate.
TYPED_TEST(EveryLayer, AllocatesNothingForLargeProducts) {
  on_any_number_of_threads([] {
    expect_no_allocations<TypeParam>(1024, 1024, 1);
    expect_no_allocations<TypeParam>(1024, 1024, 64);
    expect_no_allocations<TypeParam>(200, 300, 512);
  });
}

// The buffers of a larger product serve a smaller one.
TYPED_TEST(EveryLayer, AllocatesNothingForFewerTokens) {
  using T = typename TypeParam::Scalar;
  const TypeParam layer = make_layer<TypeParam>(200, 300, 8);
  const auto x = random_numbers<T>(64, 200);
  Matrix<T> y(64, 300);
  for (int turn = 0; turn < 2; ++turn) {
    const long before = allocation_count();
    for (const Index tokens : {64, 33, 2, 1, 64, 0}) {
      layer.forward(x.topRows(tokens), y.topRows(tokens));
    }
    if (turn > 0) {
      EXPECT_EQ(allocation_count() - before, 0);
    }
  }
}

/// The bytes of the largest allocation of a call on a thread without working memory.
template <class F>
[[nodiscard]] long largest_allocation_of(const F& call) {
  (void)take_largest_allocation();
  std::thread(call).join();
  return take_largest_allocation();
}

// Small beside the rows of M C, [537, 2000] numbers here, x A^T, and the weight.
constexpr long bytes_of_tile = (1 << 20) * long{sizeof(float)} + 4096;

template <class Op>
void expect_merges_in_tiles() {
  constexpr Index in = 2000;
  constexpr Index out = 64;
  mora::MoraLinear<float, Op> layer = make_layer<mora::MoraLinear<float, Op>>(in, out, 140);
  ASSERT_GT(layer.adapter().side() * in, Index{1} << 20);
  const auto x = random_numbers<float>(2, in);
  const Matrix<float> y = layer.forward(x);
  Matrix<float> target = layer.base().weight();
  EXPECT_LE(largest_allocation_of([&] { layer.merge_into(target); }), bytes_of_tile);
  layer.merge();
  EXPECT_TRUE(near(layer.forward(x), y));
}
TEST(WorkingMemory, OfAMergeIsATile) {
  expect_merges_in_tiles<mora::Sharing>();
  expect_merges_in_tiles<mora::RandomSharing>();
}

TEST(WorkingMemory, OfALoraPassIsATile) {
  constexpr Index tokens = 1500;
  auto layer = make_layer<mora::LoraLinear<float>>(5, 3, 1000);
  const auto x = random_numbers<float>(tokens, 5);
  const auto dy = random_numbers<float>(tokens, 3);
  Matrix<float> y(tokens, 3);
  Matrix<float> dx(tokens, 5);
  mora::LoraLinear<float>::Saved saved;
  const Matrix<float> trained = layer.forward(x, saved);
  EXPECT_LE(largest_allocation_of([&] { layer.forward(x, y); }), bytes_of_tile);
  EXPECT_TRUE(near(y, trained));
  EXPECT_LE(largest_allocation_of([&] { layer.backward(dy, saved, dx); }), bytes_of_tile);

  auto in_pieces = make_layer<mora::LoraLinear<float>>(5, 3, 1000);
  for (const Index first : {0, 500, 1000}) {
    EXPECT_TRUE(near(in_pieces.forward(x.middleRows(first, 500), saved), y.middleRows(first, 500)));
    EXPECT_TRUE(
        near(in_pieces.backward(dy.middleRows(first, 500), saved), dx.middleRows(first, 500)));
  }
  EXPECT_TRUE(near(layer.adapter().a().gradient, in_pieces.adapter().a().gradient));
  EXPECT_TRUE(near(layer.adapter().b().gradient, in_pieces.adapter().b().gradient));
}

// A test of the test.
TEST(Allocations, AreCounted) {
  const auto allocates = [](const auto& call) {
    const long before = allocation_count();
    call();
    return allocation_count() > before;
  };
  EXPECT_TRUE(allocates([] {
    int* volatile number = new int(1);
    delete number;
  }));
  EXPECT_TRUE(allocates([] { Matrix<float>(300, 300).setZero(); }));
  EXPECT_TRUE(allocates([] {
    void* volatile memory = std::malloc(8);
    std::free(memory);
  }));
  EXPECT_TRUE(allocates([] { (void)(std::string(100, 'x') + "y"); }));
  const Matrix<float> large = random_numbers<float>(300, 300);
  Matrix<float> product(300, 300);
  EXPECT_TRUE(allocates([&] { product.noalias() = large * large; }));
  EXPECT_FALSE(allocates([&] { product = large; }));
}

}  // namespace
}  // namespace mora_tests
