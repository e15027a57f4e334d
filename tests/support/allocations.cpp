// SPDX-License-Identifier: MIT
#include "support/allocations.hpp"

#include <malloc.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<long> count{0};
std::atomic<long> live{0};
std::atomic<long> until_failure{0};
std::atomic<bool> for_good{false};
std::atomic<std::size_t> largest{0};
std::atomic<long> bytes{0};
std::atomic<long> most_bytes{0};

/// Whether this allocation may be made.
bool admit(std::size_t size) {
  ++count;
  std::size_t known = largest;
  while (known < size && !largest.compare_exchange_weak(known, size)) {
  }
  if (until_failure.load() <= 0 || --until_failure != 0) return true;
  if (for_good) until_failure = 1;
  return false;
}

void count_bytes(void* memory, long sign) {
  const long now = bytes += sign * static_cast<long>(malloc_usable_size(memory));
  long known = most_bytes;
  while (known < now && !most_bytes.compare_exchange_weak(known, now)) {
  }
}

void* counted(void* memory) {
  if (memory != nullptr) {
    ++live;
    count_bytes(memory, 1);
  }
  return memory;
}

void* or_throw(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

namespace mora_tests {

long allocation_count() { return count; }
long live_allocations() { return live; }
long take_largest_allocation() { return static_cast<long>(largest.exchange(0)); }
long live_bytes() { return bytes; }
long take_most_live_bytes() { return most_bytes.exchange(bytes); }
void fail_allocation(long k) {
  for_good = false;
  until_failure = k;
}
void fail_allocations_from(long k) {
  for_good = true;
  until_failure = k;
}
bool allocation_failed() { return until_failure <= 0; }

}  // namespace mora_tests

extern "C" {

void* __real_malloc(std::size_t size);
void* __real_calloc(std::size_t number, std::size_t size);
void* __real_realloc(void* memory, std::size_t size);
void* __real_aligned_alloc(std::size_t alignment, std::size_t size);
int __real_posix_memalign(void** memory, std::size_t alignment, std::size_t size);
void __real_free(void* memory);

void* __wrap_malloc(std::size_t size) {
  return admit(size) ? counted(__real_malloc(size)) : nullptr;
}
void* __wrap_calloc(std::size_t number, std::size_t size) {
  return admit(number * size) ? counted(__real_calloc(number, size)) : nullptr;
}
void* __wrap_realloc(void* memory, std::size_t size) {
  if (!admit(size)) return nullptr;
  const auto before = static_cast<long>(malloc_usable_size(memory));  // 0 for a null pointer
  void* const moved = __real_realloc(memory, size);
  if (moved == nullptr) return nullptr;
  bytes -= before;
  if (memory != nullptr) --live;
  return counted(moved);
}
void* __wrap_aligned_alloc(std::size_t alignment, std::size_t size) {
  return admit(size) ? counted(__real_aligned_alloc(alignment, size)) : nullptr;
}
int __wrap_posix_memalign(void** memory, std::size_t alignment, std::size_t size) {
  if (!admit(size)) return 12;  // ENOMEM
  const int error = __real_posix_memalign(memory, alignment, size);
  if (error == 0) counted(*memory);
  return error;
}
void __wrap_free(void* memory) {
  if (memory != nullptr) {
    --live;
    count_bytes(memory, -1);
  }
  __real_free(memory);
}

}  // extern "C"

void* operator new(std::size_t size) { return or_throw(std::malloc(size == 0 ? 1 : size)); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return std::malloc(size == 0 ? 1 : size);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  const auto step = static_cast<std::size_t>(alignment);
  return or_throw(std::aligned_alloc(step, (size + step - 1) / step * step));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
