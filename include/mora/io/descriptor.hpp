// SPDX-License-Identifier: MIT
#pragma once

#if __has_include(<unistd.h>)

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cstdint>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <span>
#include <utility>

#include "mora/io/error.hpp"

/// \file
/// The calls of POSIX that read and write files, with the rules for interrupted and partial ones.

namespace mora::inline MORA_ABI::detail {

/// An open file, closed at the end of its life.
class Descriptor {
 public:
  /// Not open where the system refuses: see errno.
  Descriptor(const char* path, int flags, mode_t mode = 0) {
    do {
      number_ = ::open(path, flags | O_CLOEXEC, mode);
    } while (number_ < 0 && errno == EINTR);
  }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() {
    if (is_open()) ::close(number_);
  }

  [[nodiscard]] bool is_open() const { return number_ >= 0; }
  [[nodiscard]] int number() const { return number_; }

  /// False with errno where the system refuses; the descriptor is gone in any case.
  [[nodiscard]] bool close() {
    return ::close(std::exchange(number_, -1)) == 0 ||
           errno == EINTR;  // EINTR: closed all the same
  }

 private:
  int number_ = -1;
};

/// Some systems refuse more at once.
inline constexpr std::size_t most_bytes_a_call = std::size_t{1} << 30;

/// Fills the span. Returns how many bytes there were before the file's end; less than all of them
/// with errno 0, or with the system's reason.
[[nodiscard]] inline std::size_t read_fully(const Descriptor& file, std::span<std::byte> bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::read(file.number(), bytes.data() + done,
                                 std::min(bytes.size() - done, most_bytes_a_call));
    if (count < 0 && errno == EINTR) continue;
    if (count == 0) errno = 0;
    if (count <= 0) break;
    done += static_cast<std::size_t>(count);
  }
  return done;
}

/// Writes at this place of the file. False with errno where the system refuses.
[[nodiscard]] inline bool write_fully(const Descriptor& file, std::span<const std::byte> bytes,
                                      std::uint64_t place) {
  while (!bytes.empty()) {
    const ssize_t count =
        ::pwrite(file.number(), bytes.data(), std::min(bytes.size(), most_bytes_a_call),
                 static_cast<off_t>(place));
    if (count < 0 && errno == EINTR) continue;
    if (count == 0) errno = EIO;  // no progress and no reason
    if (count <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    place += static_cast<std::uint64_t>(count);
  }
  return true;
}

}  // namespace mora::inline MORA_ABI::detail

#endif
