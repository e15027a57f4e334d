// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <cstring>

#include "mora/core/matrix.hpp"
#include "mora/core/small_floats.hpp"

#if defined(MORA_HAS_X86_64_V3)
#include <immintrin.h>
#endif

namespace mora::inline MORA_ABI {

/// The formats of 16 bits, which a frozen weight may stay in.
template <class F>
concept Float16Bits = std::same_as<F, Float16> || std::same_as<F, BFloat16>;

namespace detail {

/// Eight numbers: compilers turn these into what the processor has.
inline constexpr Index lane_count = 8;
template <class T>
struct LanesOf {
  using type __attribute__((vector_size(lane_count * sizeof(T)))) = T;
};
using Lanes = LanesOf<float>::type;

/// to = eight numbers at any address; a signalling NaN may become a quiet one. By reference, as the
/// way in which such values are returned depends on the processor.
inline void widen_lanes(const BFloat16* from, Lanes& to) {
#if defined(MORA_HAS_X86_64_V3)
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  to = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
#else
  for (Index i = 0; i < lane_count; ++i) to[i] = widen<float>(from[i]);
#endif
}
inline void widen_lanes(const Float16* from, Lanes& to) {
#if defined(MORA_HAS_X86_64_V3)
  to = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  for (Index i = 0; i < lane_count; ++i) to[i] = widen<float>(from[i]);
#endif
}

/// Rows of contiguous numbers of 16 bits, for reading, in memory that someone else owns.
template <Float16Bits F>
struct SmallMatrix {
  const F* data;
  Index rows;
  Index cols;
  Index stride;

  [[nodiscard]] const F* at(Index row, Index col) const { return data + row * stride + col; }
};

/// to = the numbers from (row, col) on.
template <Float16Bits F, class T>
void widen_block(const SmallMatrix<F>& from, Index row, Index col, MutableMap<T> to) {
  for (Index i = 0; i < to.rows(); ++i) {
    const F* const numbers = from.at(row + i, col);
    T* const wide = to.data() + i * to.outerStride();
    Index j = 0;
    for (; j + lane_count <= to.cols(); j += lane_count) {
      Lanes eight;
      widen_lanes(numbers + j, eight);
      if constexpr (std::same_as<T, float>) {
        std::memcpy(wide + j, &eight, sizeof eight);
      } else {
        for (Index k = 0; k < lane_count; ++k) wide[j + k] = T(eight[k]);
      }
    }
    for (; j < to.cols(); ++j) wide[j] = widen<T>(numbers[j]);
  }
}

}  // namespace detail
}  // namespace mora::inline MORA_ABI
