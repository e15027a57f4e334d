// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <exception>

#include "mora/core/matrix.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace mora::inline MORA_ABI::detail {

/// How many threads a parallel loop may use here: one inside another parallel region.
[[nodiscard]] inline Index thread_count() {
#if defined(_OPENMP)
  return omp_in_parallel() ? 1 : static_cast<Index>(omp_get_max_threads());
#else
  return 1;
#endif
}

/// Calls `body(first, count)` for consecutive pieces of [0, size), each of `piece` items (the last
/// one shorter), on all threads when the program is compiled with OpenMP. The pieces do not depend
/// on the number of threads, so neither do results that depend on the piece alone. Pieces begin in
/// their order, so that one may wait for an earlier one. An exception from a piece reaches the
/// caller. Every thread calls `prepare()` first; when one of these calls
/// throws there is no piece, so that what takes memory there cannot run out of it half-way.
template <class Prepare, class Body>
void parallel_pieces(Index size, Index piece, const Prepare& prepare, const Body& body) {
  const Index pieces = (size + piece - 1) / piece;
  const auto run = [&](Index p) { body(p * piece, std::min(piece, size - p * piece)); };
#if defined(_OPENMP)
  // All of them, also for fewer pieces: where teams differ in size, GNU's OpenMP ends threads and
  // starts others, which cost more than waiting does and have no working memory yet.
  const Index threads = pieces > 1 ? thread_count() : 1;
  if (threads > 1) {
    std::exception_ptr failure;
    bool prepared = true;  // no thread writes it after the barrier
#pragma omp parallel num_threads(static_cast <int>(threads))
    {
      try {
        prepare();
      } catch (...) {
#pragma omp critical(mora_parallel_failure)
        {
          failure = std::current_exception();
          prepared = false;
        }
      }
#pragma omp barrier
      if (prepared) {
#pragma omp for schedule(monotonic : dynamic)
        for (Index p = 0; p < pieces; ++p) {
          try {
            run(p);
          } catch (...) {
#pragma omp critical(mora_parallel_failure)
            failure = std::current_exception();
          }
        }
      }
    }
    if (failure) std::rethrow_exception(failure);
    return;
  }
#endif
  if (pieces > 0) prepare();
  for (Index p = 0; p < pieces; ++p) run(p);
}
template <class Body>
void parallel_pieces(Index size, Index piece, const Body& body) {
  parallel_pieces(
      size, piece, [] {}, body);
}

/// Calls `f(i)` for `rows` rows of `width` numbers, on all threads where there is work for them.
template <class F>
void for_each_row(Index rows, Index width, const F& f) {
  const Index piece = std::max<Index>(1, (Index{1} << 16) / std::max<Index>(width, 1));
  parallel_pieces(rows, piece, [&](Index first, Index count) {
    for (Index i = first; i < first + count; ++i) f(i);
  });
}

/// Makes all numbers 0, on all threads: one alone would write to memory more slowly.
template <class T>
void fill_zero(MutableMap<T> x) {
  for_each_row(x.rows(), x.cols(),
               [&](Index i) { std::fill_n(x.data() + i * x.outerStride(), x.cols(), T(0)); });
}

}  // namespace mora::inline MORA_ABI::detail
