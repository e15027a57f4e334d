// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <random>
#include <span>
#include <utility>

#include "mora/core/elementwise.hpp"
#include "mora/core/matrix.hpp"

/// \file
/// Random numbers that are the same on every platform: the standard fixes what std::mt19937_64
/// returns, but not what its distributions make of it. Generators are always passed in.

namespace mora::inline MORA_ABI {

namespace detail {

template <class G>
inline constexpr bool has_64_bits = G::min() == 0 && G::max() == std::uint64_t(-1);

}  // namespace detail

/// A generator of 64 random bits a call, such as std::mt19937_64 or SplitMix64.
template <class G>
concept Generator64 = std::uniform_random_bit_generator<G> && detail::has_64_bits<G>;

/// A tiny generator whose whole state is its seed: for what is stored as a seed, such as the
/// groups of RandomSharing. Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014.
class SplitMix64 {
 public:
  using result_type = std::uint64_t;
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}
  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return ~result_type{0}; }
  result_type operator()() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

 private:
  std::uint64_t state_;
};

/// Uniform in [0, 1), a multiple of 2^-53.
template <Generator64 G>
[[nodiscard]] double uniform(G& generator) {
  return static_cast<double>(generator() >> 11) * 0x1p-53;
}

/// Uniform in {0, ..., bound - 1}, without bias. Throws ArgumentError unless bound >= 1.
template <Generator64 G>
[[nodiscard]] std::uint64_t uniform_below(std::uint64_t bound, G& generator) {
  detail::require_at_least<std::uint64_t>("bound", 1, bound);
  const std::uint64_t largest_multiple =
      ~std::uint64_t{0} - (~std::uint64_t{0} % bound + 1) % bound;
  std::uint64_t bits = generator();
  while (bits > largest_multiple) bits = generator();
  return bits % bound;
}

/// Standard normal (Box and Muller, the cosine branch).
template <Generator64 G>
[[nodiscard]] double normal(G& generator) {
  const double u = 1.0 - uniform(generator);  // (0, 1]
  const double v = uniform(generator);
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

/// Fills with normal numbers of the given standard deviation, any finite one, row by row.
template <Real T, Generator64 G>
void fill_normal(std::span<T> numbers, double deviation, G& generator) {
  for (T& number : numbers) number = static_cast<T>(deviation * normal(generator));
}
template <Real T, Generator64 G>
void fill_normal(Matrix<T>& matrix, double deviation, G& generator) {
  fill_normal(std::span(matrix.data(), static_cast<std::size_t>(matrix.size())), deviation,
              generator);
}

/// Fills with numbers uniform in [-bound, bound], for any finite bound, row by row.
template <Real T, Generator64 G>
void fill_uniform(Matrix<T>& matrix, double bound, G& generator) {
  for (Index i = 0; i < matrix.size(); ++i) {
    matrix.data()[i] = static_cast<T>(bound * (2.0 * uniform(generator) - 1.0));
  }
}

/// Fills with orthonormal rows of random directions: normal numbers, each row without its parts
/// along those before it (Gram and Schmidt, twice, which leaves rounding alone). Throws ShapeError
/// for more rows than columns, which cannot be orthogonal.
template <Real T, Generator64 G>
void fill_orthonormal_rows(Matrix<T>& matrix, G& generator) {
  if (matrix.rows() > matrix.cols()) {
    throw ShapeError(detail::concat("orthonormal rows: expected at most ", matrix.cols(),
                                    ", as many as columns, found ", matrix.rows()));
  }
  Matrix<double> rows(matrix.rows(), matrix.cols());
  fill_normal(rows, 1.0, generator);
  const auto row_of = [&rows](Index i) { return rows.data() + i * rows.cols(); };
  for (Index i = 0; i < rows.rows(); ++i) {
    for (int pass = 0; pass < 2; ++pass) {
      for (Index j = 0; j < i; ++j) {
        rows.row(i) -= detail::dot(row_of(i), row_of(j), rows.cols()) * rows.row(j);
      }
    }
    rows.row(i) /= std::sqrt(detail::dot(row_of(i), row_of(i), rows.cols()));
  }
  matrix = rows.cast<T>();
}

/// A random permutation in place (Fisher and Yates), for a range of random access.
template <class Range, Generator64 G>
void shuffle(Range& range, G& generator) {
  for (std::uint64_t i = range.size(); i > 1; --i) {
    std::swap(range[i - 1], range[uniform_below(i, generator)]);
  }
}

}  // namespace mora::inline MORA_ABI
