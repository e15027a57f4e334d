// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <mora/core/random.hpp>
#include <random>
#include <string>

namespace mora_tests {

using mora::Index;

/// Random numbers of a test, the same in every run. While one lives, failures print its seed. The
/// environment's MORA_TEST_SEED is added to it, to run a test on other numbers.
class Random {
 public:
  explicit Random(std::uint64_t seed)
      : seed_(seed + offset()),
        trace_(__FILE__, __LINE__, "random seed " + std::to_string(seed_)),
        generator_(seed_) {}

  template <class T>
  [[nodiscard]] mora::Matrix<T> matrix(Index rows, Index cols, double deviation = 1.0) {
    mora::Matrix<T> numbers(rows, cols);
    mora::fill_normal(numbers, deviation, generator_);
    return numbers;
  }
  template <class T>
  [[nodiscard]] mora::RowVector<T> vector(Index size, double deviation = 1.0) {
    return matrix<T>(1, size, deviation);
  }
  [[nodiscard]] std::mt19937_64& generator() { return generator_; }

 private:
  static std::uint64_t offset() {
    const char* const text = std::getenv("MORA_TEST_SEED");
    return text == nullptr ? 0 : std::strtoull(text, nullptr, 10);
  }
  std::uint64_t seed_;
  testing::ScopedTrace trace_;
  std::mt19937_64 generator_;
};

}  // namespace mora_tests
