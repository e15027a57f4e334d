// SPDX-License-Identifier: MIT
#pragma once

#if !__has_include(<unistd.h>)
#error "mora/io/atomic_file.hpp: files are written by POSIX calls, which this system does not have"
#endif

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "mora/io/descriptor.hpp"
#include "mora/io/error.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

/// Holds back the signal by which the system ends a process that writes beyond its limit of a
/// file's size, so that the call fails instead (EFBIG). For the calling thread alone.
class HoldSizeSignal {
 public:
  HoldSizeSignal() : pending_before_(pending()) {
    const sigset_t set = size_signal();
    ::pthread_sigmask(SIG_BLOCK, &set, &before_);
  }
  HoldSizeSignal(const HoldSizeSignal&) = delete;
  HoldSizeSignal& operator=(const HoldSizeSignal&) = delete;
  ~HoldSizeSignal() {
    if (!pending_before_ && pending()) {
      const sigset_t set = size_signal();
      int taken = 0;
      ::sigwait(&set, &taken);
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  static sigset_t size_signal() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGXFSZ);
    return set;
  }
  static bool pending() {
    sigset_t set;
    sigemptyset(&set);
    ::sigpending(&set);
    return sigismember(&set, SIGXFSZ) == 1;
  }
  bool pending_before_;
  sigset_t before_{};
};

/// Brings the names in a folder to the disk. False with errno where the system refuses.
[[nodiscard]] inline bool sync_folder(const std::filesystem::path& folder) {
  const Descriptor open(folder.c_str(), O_RDONLY | O_DIRECTORY);
  // EINVAL: a file system that cannot do it for folders.
  return open.is_open() && (::fsync(open.number()) == 0 || errno == EINVAL);
}

}  // namespace detail

/// A file that appears whole or not at all. It is written under another name beside its target,
/// brought to the disk, and renamed by commit(); without that it vanishes. Until the renaming the
/// target is what it was, whatever fails: a full disk, a limit, a crash.
///
/// The new file has the rights of any new one (0666 less the umask). A symbolic link as the target
/// is replaced, and the file that it names left alone; so are the other names of a file with
/// several. A process that is killed leaves a ".mora-<process>-<number>.tmp" behind, which nothing
/// ever reads.
class AtomicFile {
 public:
  /// Throws FileError where there can be no such file, and for a folder, pipe or device.
  explicit AtomicFile(const std::filesystem::path& target) : target_(absolute(target)) {
    require_replaceable();
    // The system says which names are taken, by other threads and by processes that died.
    constexpr int most_names = 10'000;
    const std::string prefix = detail::concat(".mora-", ::getpid(), "-");
    for (int number = 0; number < most_names; ++number) {
      temporary_ = target_.parent_path() / detail::concat(prefix, number, ".tmp");
      detail::Descriptor file(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0666);
      const int code = errno;
      if (file.is_open()) {
        file_ = std::move(file);
        return;
      }
      if (code != EEXIST) throw FileError(target_, "cannot make a file beside it", code);
    }
    throw FileError(target_, detail::concat("all names ", prefix, "0.tmp to ", prefix,
                                            most_names - 1, ".tmp beside it are taken"));
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() { discard(); }

  /// Throws FileError where the system refuses, after which there is nothing left to commit;
  /// StateError after that and after commit().
  void write(std::span<const std::byte> bytes) {
    const Room room = leave(bytes.size());
    try {
      room.write(0, bytes);
    } catch (...) {
      discard();
      throw;
    }
  }

  /// A part of the file, which is filled piece by piece, by several threads at once if need be.
  class Room {
   public:
    /// Bytes behind the first `at` of the room, each of them once. While threads do this, none may
    /// call anything else of the file. Throws ArgumentError beyond the room's end; FileError where
    /// the system refuses, after which there is nothing left to commit; StateError after commit().
    void write(std::size_t at, std::span<const std::byte> bytes) const {
      if (at > size_ || bytes.size() > size_ - at) {
        throw ArgumentError(detail::concat("room in a file: expected at most ", size_,
                                           " bytes, found ", at, " + ", bytes.size()));
      }
      file_->write_at(place_ + at, bytes);
    }

   private:
    friend AtomicFile;
    Room(AtomicFile& file, std::uint64_t place, std::size_t size)
        : file_(&file), place_(place), size_(size) {}
    AtomicFile* file_;
    std::uint64_t place_;
    std::size_t size_;
  };

  /// Leaves room for so many bytes behind all before. Throws like write().
  [[nodiscard]] Room leave(std::size_t bytes) {
    require_open();
    return {*this, std::exchange(end_, end_ + bytes), bytes};
  }

  /// Brings what was written to the disk and closes the file, which commit() then only renames; for
  /// who writes several files and puts them in their places together. Throws like write(), and
  /// StateError unless as many bytes have been written as room was left for.
  void finish() {
    require_open();
    if (filled_ != end_) {
      throw StateError(
          detail::concat(target_.string(), ": expected ", end_, " bytes, found ", filled_.load()));
    }
    // A failed fsync is never tried again: the system may have dropped the data, and would say yes.
    if (::fsync(file_->number()) != 0) fail("cannot bring to the disk", errno);
    if (!file_->close()) fail("cannot close", errno);
  }

  /// Puts the file in its place for good. Throws like write(). One failure comes after the renaming
  /// (the text says so): the new file is whole and in its place, but a loss of power may still
  /// bring the old one back.
  void commit() {
    if (!finished()) finish();
    // Before the renaming, as there may be no memory for it.
    const std::filesystem::path folder = target_.parent_path();
    if (std::rename(temporary_.c_str(), target_.c_str()) != 0) fail("cannot rename to it", errno);
    file_.reset();
    if (!detail::sync_folder(folder)) {
      throw FileError(target_, "is in its place, but its folder cannot be brought to the disk",
                      errno);
    }
  }

 private:
  /// The working folder may change before commit().
  [[nodiscard]] static std::filesystem::path absolute(const std::filesystem::path& target) {
    std::error_code error;
    std::filesystem::path path = std::filesystem::absolute(target, error);
    if (error) throw FileError(target, "cannot find the working folder", error.value());
    if (!path.has_filename()) throw FileError(target, "expected the name of a file");
    return path;
  }

  void require_replaceable() const {
    struct stat status {};
    if (::lstat(target_.c_str(), &status) != 0)
      return;  // nothing there, or open() will say why not
    if (S_ISDIR(status.st_mode)) throw FileError(target_, "cannot write", EISDIR);
    if (!S_ISREG(status.st_mode) && !S_ISLNK(status.st_mode)) {
      throw FileError(target_, "expected a regular file, found a pipe, socket or device");
    }
  }

  [[nodiscard]] bool finished() const { return file_ && !file_->is_open(); }

  void require_open() {
    if (failed_) discard();
    require_at_hand();
  }
  void require_at_hand() const {
    if (!file_)
      throw StateError(detail::concat(target_.string(), ": committed or given up before"));
    if (finished()) throw StateError(detail::concat(target_.string(), ": finished before"));
  }

  void write_at(std::uint64_t place, std::span<const std::byte> bytes) {
    require_at_hand();
    const detail::HoldSizeSignal hold;
    if (!detail::write_fully(*file_, bytes, place)) {
      const int code = errno;
      failed_ = true;  // closed later, as other threads may be writing
      throw FileError(target_, "cannot write", code);
    }
    filled_ += bytes.size();
    begin_writing_back(bytes.size());
  }

  /// Lets the disk work while the next bytes are computed, so that finish() has little to wait for.
  void begin_writing_back([[maybe_unused]] std::size_t more) {
#if defined(SYNC_FILE_RANGE_WRITE)
    constexpr std::size_t enough = std::size_t{8} << 20;
    if (waiting_ += more; waiting_ < enough) return;
    waiting_ = 0;
    // Advice: what fails is found by finish().
    (void)::sync_file_range(file_->number(), 0, 0, SYNC_FILE_RANGE_WRITE);
#endif
  }

  [[noreturn]] void fail(const char* doing, int code) {
    discard();
    throw FileError(target_, doing, code);
  }

  void discard() noexcept {
    if (!file_) return;
    file_.reset();
    ::unlink(temporary_.c_str());
  }

  std::filesystem::path target_;
  std::filesystem::path temporary_;
  std::optional<detail::Descriptor> file_;  // until it is renamed or removed
  std::uint64_t end_ = 0;                   // of all room left so far
  std::atomic<std::uint64_t> filled_ = 0;   // bytes of it
  std::atomic<std::size_t> waiting_ = 0;    // bytes since the disk was asked to begin
  std::atomic<bool> failed_ = false;        // a call of write_at() has
};

/// Makes a folder, and those it is in, unless it is there, for good. Throws FileError where the
/// system refuses.
inline void make_folder(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::absolute(path, error);
  if (error) throw FileError(path, "cannot find the working folder", error.value());
  std::vector<std::filesystem::path> made;
  for (auto each = folder; !std::filesystem::exists(each, error) && each.has_relative_path();
       each = each.parent_path()) {
    if (each.has_filename()) made.push_back(each);
  }
  std::filesystem::create_directories(folder, error);
  if (error) throw FileError(path, "cannot make this folder", error.value());
  for (const auto& each : made) {
    if (!detail::sync_folder(each.parent_path())) {
      throw FileError(each, "is made, but its folder cannot be brought to the disk", errno);
    }
  }
}

/// Removes a file for good, if there is one. Throws FileError where the system refuses.
inline void remove_file(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::path file = std::filesystem::absolute(path, error);
  if (error) throw FileError(path, "cannot find the working folder", error.value());
  const std::filesystem::path folder = file.parent_path();
  if (::unlink(file.c_str()) != 0) {
    if (errno == ENOENT) return;
    throw FileError(path, "cannot remove", errno);
  }
  if (!detail::sync_folder(folder)) {
    throw FileError(path, "is removed, but its folder cannot be brought to the disk", errno);
  }
}

}  // namespace mora::inline MORA_ABI
