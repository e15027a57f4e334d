// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace mora_tests {

inline constexpr std::size_t thread_count = 8;

/// From now on the library uses that many threads in calls from this one, with OpenMP.
inline void use_threads([[maybe_unused]] int number) {
#if defined(_OPENMP)
  omp_set_num_threads(number);
#endif
}

/// `work(i)` on thread i of eight that begin at the same time.
inline void on_eight_threads(const std::function<void(std::size_t)>& work) {
  std::atomic<std::size_t> waiting{thread_count};
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < thread_count; ++i) {
    threads.emplace_back([&, i] {
      --waiting;
      while (waiting != 0) std::this_thread::yield();
      work(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace mora_tests
