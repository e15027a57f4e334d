// SPDX-License-Identifier: MIT
#pragma once

/// \file
/// The inline namespace of the library. Its name carries what changes the layout or the meaning of
/// the compiled templates (vector width, fused multiply-add, half floats, NDEBUG, OpenMP), so that
/// translation units compiled with different flags get different symbols: passing a mora type
/// between them fails to link instead of corrupting memory. Eigen's own functions have no tag:
/// where parts of one program are compiled for different vectors, all of them have to define the
/// same EIGEN_MAX_ALIGN_BYTES.

#if __cplusplus < 202002L
#error "mora: needs C++20; compile with -std=c++20"
#endif

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error \
    "mora: -ffast-math and -ffinite-math-only remove the checks for NaN and infinity; compile without them"
#endif

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define MORA_HAS_X86_64_V3  // of which core/small_matrix.hpp makes use
#endif

#if defined(__AVX512F__) && defined(MORA_HAS_X86_64_V3)
#define MORA_ABI_VECTORS avx512
#elif defined(__AVX512F__)
#define MORA_ABI_VECTORS avx512_alone
#elif defined(MORA_HAS_X86_64_V3)
#define MORA_ABI_VECTORS avx2
#elif defined(__AVX__) && defined(__FMA__)
#define MORA_ABI_VECTORS avx_fma  // other code, other bits
#elif defined(__AVX__)
#define MORA_ABI_VECTORS avx
#else
#define MORA_ABI_VECTORS base
#endif

#if defined(NDEBUG)
#define MORA_ABI_CHECKS ndebug
#else
#define MORA_ABI_CHECKS debug
#endif

#if defined(_OPENMP)
#define MORA_ABI_THREADS omp
#else
#define MORA_ABI_THREADS serial
#endif

#define MORA_ABI_JOIN_EXPANDED(a, b, c) a##_##b##_##c
#define MORA_ABI_JOIN(a, b, c) MORA_ABI_JOIN_EXPANDED(a, b, c)
/// `namespace mora::inline MORA_ABI { ... }` opens every header of the library.
#define MORA_ABI MORA_ABI_JOIN(MORA_ABI_VECTORS, MORA_ABI_CHECKS, MORA_ABI_THREADS)

namespace mora::inline MORA_ABI {}
