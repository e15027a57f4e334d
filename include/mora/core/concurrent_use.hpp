// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <thread>

#include "mora/core/error.hpp"

/// \file
/// Const functions of a layer or model may run on any number of threads, everything else needs the
/// object to itself. Builds with asserts notice where a program breaks that rule while it does, and
/// throw; with NDEBUG nothing is counted, as threads that only read would wait for each other's
/// counting.

namespace mora::inline MORA_ABI::detail {

#if defined(NDEBUG)
inline constexpr bool notices_concurrent_use = false;
#else
inline constexpr bool notices_concurrent_use = true;
#endif

enum class Access { reading, changing };

/// What uses an object at the moment. A member of it; copies of the object have uses of their own.
/// The counting orders no memory, so that tools that look for data races still see them.
template <bool counted = notices_concurrent_use>
class ConcurrentUse {
 public:
  ConcurrentUse() = default;
  ConcurrentUse(const ConcurrentUse&) noexcept {}
  ConcurrentUse& operator=(const ConcurrentUse&) noexcept { return *this; }
  ~ConcurrentUse() = default;

  /// Throws StateError where another call forbids it, of this thread too where that only reads: a
  /// callback of a const visitor may not change the object. False inside a call of this thread that
  /// changes the object: what that calls is a part of it.
  [[nodiscard]] bool begin(Access access, const char* call) {
    if (changer_.load(std::memory_order_relaxed) == std::this_thread::get_id()) return false;
    int count = readers_.load(std::memory_order_relaxed);
    do {
      if (count == changed || (access == Access::changing && count > 0)) {
        throw StateError(concat(call, ": another call is ",
                                count == changed ? "changing" : "reading", " the object"));
      }
    } while (!readers_.compare_exchange_weak(
        count, access == Access::changing ? changed : count + 1, std::memory_order_relaxed));
    if (access == Access::changing) {
      changer_.store(std::this_thread::get_id(), std::memory_order_relaxed);
    }
    return true;
  }
  void end(Access access) {
    if (access == Access::reading) {
      readers_.fetch_sub(1, std::memory_order_relaxed);
    } else {
      changer_.store({}, std::memory_order_relaxed);
      readers_.store(0, std::memory_order_relaxed);
    }
  }

 private:
  static constexpr int changed = -1;
  std::atomic<int> readers_{0};
  std::atomic<std::thread::id> changer_{};
};

template <>
class ConcurrentUse<false> {};

/// While it lives a call uses the object.
template <bool counted>
class InUse {
 public:
  InUse(ConcurrentUse<counted>& use, Access access, const char* call) {
    if constexpr (counted) {
      if (use.begin(access, call)) use_ = &use;
      access_ = access;
    }
  }
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;
  ~InUse() {
    if constexpr (counted) {
      if (use_) use_->end(access_);
    }
  }

 private:
  ConcurrentUse<counted>* use_ = nullptr;
  Access access_ = Access::reading;
};

}  // namespace mora::inline MORA_ABI::detail
