// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

#include "mora/core/index.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace mora::inline MORA_ABI::detail {

/// Uninitialised memory for a weight. On Linux it asks for huge pages, but for what does not fill
/// the last one: the kernel's work for the first touch of every page of 4 KiB would be a large part
/// of merging, and weights that are read once a token arrive faster (docs/results/train_step.md).
/// Throws std::bad_alloc.
template <class T>
[[nodiscard]] std::shared_ptr<T> allocate_large(Index count) {
  constexpr std::size_t page = std::size_t{1} << 21;
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
  const std::size_t alignment = bytes >= page ? page : std::size_t{64};
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* const memory = std::aligned_alloc(alignment, rounded);
  if (memory == nullptr) throw std::bad_alloc();
#if defined(__linux__)
  // Advice: no harm when refused.
  if (bytes >= page) madvise(memory, bytes / page * page, MADV_HUGEPAGE);
#endif
  return {static_cast<T*>(memory), [](T* p) { std::free(p); }};
}

}  // namespace mora::inline MORA_ABI::detail
