// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <new>
#include <thread>

#include "support/allocations.hpp"

namespace mora_tests {

enum class Outcome { done, out_of_memory };

/// The call on a thread of its own, which has no working memory yet, with its k-th allocation
/// failing.
template <class F>
[[nodiscard]] Outcome run_with_failure(long k, const F& call) {
  Outcome outcome = Outcome::done;
  std::thread([&] {
    fail_allocation(k);
    try {
      call();
    } catch (const std::bad_alloc&) {
      outcome = Outcome::out_of_memory;
    }
    const bool failed = allocation_failed();
    fail_allocation(0);
    EXPECT_EQ(failed, outcome == Outcome::out_of_memory) << "allocation " << k;
  }).join();
  return outcome;
}

/// What a failed call may keep: nothing, or memory that it needs when it is made again.
enum class Keeps { nothing, memory };

/// `check()` after each failure of `call`, until it succeeds. Returns the number of allocations.
template <class F, class Check>
long fail_each_allocation(const F& call, const Check& check, Keeps keeps = Keeps::nothing) {
  for (long k = 1; k < 1000; ++k) {
    const long before = live_allocations();
    const Outcome outcome = run_with_failure(k, call);
    if (outcome == Outcome::done) return k - 1;
    if (keeps == Keeps::nothing) {
      // Threads of OpenMP give their working memory back some time after their master has ended:
      // those of this call, and of earlier ones.
      for (int wait = 0; live_allocations() > before && wait < 5000; ++wait) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      EXPECT_LE(live_allocations(), before) << "allocation " << k << " leaks";
    }
    SCOPED_TRACE(testing::Message() << "allocation " << k);
    check();
    if (testing::Test::HasFailure()) return k;
  }
  ADD_FAILURE() << "no end of allocations";
  return 0;
}

}  // namespace mora_tests
