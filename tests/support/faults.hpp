// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <filesystem>
#include <iterator>
#include <string>

/// \file
/// Calls of the system that fail, are interrupted, or do a part of their work. They are replaced by
/// the linker (-Wl,--wrap=read) in a program with support/faults.cpp; see the function
/// mora_inject_faults of tests/CMakeLists.txt. open, fstat, mmap, read, pwrite, fsync, close,
/// rename and unlink are; what the standard library calls itself (removing folders, listing them)
/// is not.

namespace mora_tests {

/// Descriptors of this process.
[[nodiscard]] inline std::ptrdiff_t open_files() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return std::distance(begin(files), end(files));
}

/// What happens to the calls of the thread that made it, while it lives. One at a time.
struct Faults {
  int fail_at = 0;          ///< The call that fails, counted from 1; 0 is none.
  int code = 0;             ///< Its errno; 0 lets a read find the file's end.
  int interrupt_every = 0;  ///< Every so many calls one is interrupted (EINTR); 0 is none.
  int most_bytes = 0;       ///< Reads and writes do at most so many bytes; 0 is any number.

  int calls = 0;            ///< So far.
  std::string failed = {};  ///< The name of the call that failed.
};

/// Begins and ends it.
class FaultyCalls {
 public:
  explicit FaultyCalls(Faults& faults);
  FaultyCalls(const FaultyCalls&) = delete;
  FaultyCalls& operator=(const FaultyCalls&) = delete;
  ~FaultyCalls();
};

}  // namespace mora_tests
