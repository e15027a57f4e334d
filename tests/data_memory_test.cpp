// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <mora/train/batches.hpp>
#include <mora/train/prompt_responses.hpp>
#include <mora/train/token_windows.hpp>

#include "support/batches.hpp"
#include "support/failing_allocations.hpp"

/// \file
/// Allocations of the data: none once warmed up, and nothing half-changed where one fails.

namespace mora_tests {
namespace {

using mora::Batches;
using mora::PromptResponses;
using mora::TokenWindows;

template <class D>
void expect_no_allocations(Batches<D> batches) {
  for (Index i = 0; i < 2 * batches.batches_per_epoch(); ++i) (void)batches.next();
  const auto start = batches.position();
  for (int turn = 0; turn < 2; ++turn) {
    batches.seek(start);
    const long before = allocation_count();
    for (Index i = 0; i < 3 * batches.batches_per_epoch(); ++i) (void)batches.next();
    if (turn > 0) {
      EXPECT_EQ(allocation_count(), before);
    }
  }
}

TEST(Batches, AllocateNothingOnceWarmedUp) {
  Random random(1);
  PromptResponses examples;
  for (Index i = 0; i < 50; ++i) {
    examples.add(random_tokens(random, 1 + i % 7, 9), random_tokens(random, 1 + i % 5, 9));
  }
  expect_no_allocations(Batches(examples, {.batch_size = 8}));
  expect_no_allocations(Batches(TokenWindows(Tokens(1000), {.length = 33}), {.batch_size = 8}));
}

// Batches of one size need no epoch to warm up.
TEST(Batches, OfOneSizeAllocateNothingAfterTheFirst) {
  Batches batches(TokenWindows(Tokens(1001), {.length = 10}), {.batch_size = 8});
  (void)batches.next();
  const long before = allocation_count();
  for (int step = 0; step < 100; ++step) (void)batches.next();
  EXPECT_EQ(allocation_count(), before);
}

TEST(Batch, IsUnchangedWhenThereIsNoMemory) {
  const Tokens text = {1, 2, 3, 4};
  const auto check = [](const auto& add) {
    Batch batch;
    batch.add_next_tokens(Tokens{7, 8});
    for (std::vector<Token>* memory : {&batch.tokens, &batch.targets}) memory->shrink_to_fit();
    batch.starts.shrink_to_fit();
    const Batch before = batch;
    EXPECT_GT(
        fail_each_allocation([&] { add(batch); }, [&] { EXPECT_EQ(batch, before); }, Keeps::memory),
        1);
    EXPECT_EQ(batch.sequences(), 2);
  };
  check([&](Batch& batch) { batch.add(text, text); });
  check([&](Batch& batch) { batch.add_next_tokens(text); });
  check([&](Batch& batch) { batch.add_window(text, 0, 3); });
}

TEST(PromptResponses, AreUnchangedWhenThereIsNoMemory) {
  PromptResponses examples({.end = 9, .max_length = 5});
  examples.add(Tokens{1, 2}, Tokens{3});
  const Tokens long_one(10, 4);
  EXPECT_GT(fail_each_allocation(
                [&] {
                  examples.add(Tokens{5, 6}, long_one);
                },
                [&] {
                  EXPECT_EQ(examples.size(), 1);
                  EXPECT_EQ(examples.truncated(), 0);
                },
                Keeps::memory),
            0);
  EXPECT_EQ(examples.size(), 2);
  EXPECT_EQ(examples.truncated(), 1);
}

// What is claimed takes no memory before it is found to be wrong, or to be a mere limit.
TEST(Batch, TakesNoMemoryForWhatIsClaimed) {
  Batch batch;
  PromptResponses examples({.max_length = mora::max_positions});
  const TokenWindows windows(Tokens(3), {.length = mora::max_positions});
  const long before = live_allocations();
  EXPECT_THROW(batch.add_next_tokens(claimed_tokens(Index{1} << 40)), mora::ShapeError);
  EXPECT_EQ(live_allocations(), before);
  windows.add_to(0, batch);
  examples.add(Tokens{1}, Tokens{2});
  EXPECT_LT(batch.tokens.capacity(), 16u);
}

}  // namespace
}  // namespace mora_tests
