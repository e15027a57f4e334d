// SPDX-License-Identifier: MIT
#pragma once

#include <cstring>
#include <type_traits>
#include <utility>

#include "mora/core/index.hpp"

/// \file
/// Vectors of numbers as wide as the registers of the processor for which this is compiled.

namespace mora::inline MORA_ABI::detail {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif

template <class T, int bytes = vector_bytes>
struct VectorOf {
  using type [[gnu::vector_size(bytes)]] = T;
};
/// The numbers of a vector.
template <class T>
inline constexpr Index vector_lanes = vector_bytes / Index{sizeof(T)};
/// What whole vectors hold.
template <class T>
[[nodiscard]] Index whole_lanes(Index size) {
  return (size + vector_lanes<T> - 1) / vector_lanes<T> * vector_lanes<T>;
}

/// A vector from memory, of any alignment, and back.
template <class Vector, class T>
[[gnu::always_inline]] inline void load(Vector& to, const T* from) {
  std::memcpy(&to, from, sizeof to);
}
template <class T, class Vector>
[[gnu::always_inline]] inline void store(T* to, const Vector& from) {
  std::memcpy(to, &from, sizeof from);
}

/// Calls f(i) for i < n, as constants: compilers keep arrays in registers only where they see every
/// index.
template <class F, int... i>
[[gnu::always_inline]] inline void repeat(const F& f, std::integer_sequence<int, i...>) {
  (f(std::integral_constant<int, i>()), ...);
}
template <int n, class F>
[[gnu::always_inline]] inline void repeat(const F& f) {
  repeat(f, std::make_integer_sequence<int, n>());
}

/// sums[i][j] += a[i stride] b[j], for `vectors` vectors b[j] that follow one another. One
/// expression rather than a repeat(), of which builds without optimisation would make so many
/// calls.
template <int vectors, class Vector, class T, int... i, int... j>
[[gnu::always_inline]] inline void add_outer_product(Vector* sums, const T* a, Index stride,
                                                     const T* b, std::integer_sequence<int, i...>,
                                                     std::integer_sequence<int, j...>) {
  Vector factors[vectors];
  (load(factors[j], b + j * Index{sizeof(Vector) / sizeof(T)}), ...);
  ((sums[i] += factors[i % vectors] * a[i / vectors * stride]), ...);
}
template <int rows, int vectors, class Vector, class T>
[[gnu::always_inline]] inline void add_outer_product(Vector (&sums)[rows * vectors], const T* a,
                                                     Index stride, const T* b) {
  add_outer_product<vectors>(sums, a, stride, b, std::make_integer_sequence<int, rows * vectors>(),
                             std::make_integer_sequence<int, vectors>());
}

}  // namespace mora::inline MORA_ABI::detail
