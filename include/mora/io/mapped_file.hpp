// SPDX-License-Identifier: MIT
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include "mora/core/index.hpp"
#include "mora/io/descriptor.hpp"
#include "mora/io/error.hpp"

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#include <unistd.h>
#else
#include <fstream>
#endif

namespace mora::inline MORA_ABI {

/// How the bytes of a file come into memory.
enum class FileAccess {
  /// As the file's own pages: nothing is read until it is used, and nothing is kept twice. Whoever
  /// shortens the file meanwhile makes the program die (SIGBUS), as a disk or network that fails
  /// then does, and whoever writes into it changes
  /// what is read; replacing it by another file of its name does no harm. Where the system has no
  /// mmap, the same as `copied`.
  mapped,
  copied,  ///< As a copy, which what happens to the file later does not change.
};

namespace detail {

/// Gives the memory of whole pages of a mapped file back; they are read again when they are used.
/// Only for bytes of a mapping: other memory would lose its contents.
inline void release_mapped(std::span<const std::byte> bytes) {
#if __has_include(<sys/mman.h>)
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t skipped = (page - reinterpret_cast<std::uintptr_t>(bytes.data()) % page) % page;
  if (bytes.size() < skipped + page) return;
  const auto whole = bytes.subspan(skipped, (bytes.size() - skipped) / page * page);
  // Advice: where it is refused, more memory stays in use.
  ::madvise(const_cast<std::byte*>(whole.data()), whole.size(), MADV_DONTNEED);
#else
  (void)bytes;
#endif
}

}  // namespace detail

/// The bytes of a regular file that is not empty, read only: a handle, whose copies share them.
class MappedFile {
 public:
  /// Throws FileError for a file that cannot be opened or read and for a folder, pipe or device
  /// (without waiting for it), FormatError for an empty file and one of more than `most_bytes`,
  /// before any memory is asked for.
  explicit MappedFile(std::filesystem::path path, FileAccess access = FileAccess::mapped,
                      Index most_bytes = std::numeric_limits<Index>::max())
      : path_(std::move(path)), most_bytes_(most_bytes) {
    open(access);
  }

  /// Nothing when it was moved from.
  [[nodiscard]] std::span<const std::byte> bytes() const {
    return {data_.get(), data_ == nullptr ? 0 : size_};
  }
  [[nodiscard]] std::string_view text() const {
    return {reinterpret_cast<const char*>(data_.get()), bytes().size()};
  }
  [[nodiscard]] Index size() const { return std::ssize(bytes()); }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  /// Whether they are the file's own pages, not a copy.
  [[nodiscard]] bool mapped() const { return mapped_; }

  /// Keeps the bytes alive, for who keeps pointers into them.
  [[nodiscard]] std::shared_ptr<const void> owner() const { return data_; }

 private:
  void require_size() const {
    if (size_ == 0) throw FormatError(path_, "expected a file with contents, found an empty one");
    if (size_ > static_cast<std::size_t>(most_bytes_)) {
      throw FormatError(path_,
                        detail::concat("expected at most ", most_bytes_, " bytes, found ", size_));
    }
  }

#if __has_include(<sys/mman.h>)
  void open(FileAccess access) {
    // O_NONBLOCK: a pipe that nobody writes to would be waited for.
    const detail::Descriptor file(path_.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (!file.is_open()) throw FileError(path_, "cannot open", errno);
    struct stat status {};
    if (::fstat(file.number(), &status) != 0) throw FileError(path_, "cannot examine", errno);
    if (S_ISDIR(status.st_mode)) throw FileError(path_, "cannot read", EISDIR);
    if (!S_ISREG(status.st_mode)) {
      throw FileError(path_, "expected a regular file, found a pipe, socket or device");
    }
    size_ = static_cast<std::size_t>(status.st_size);
    require_size();
    if (access == FileAccess::mapped) {
      map(file);
    } else {
      copy(file);
    }
  }

  void map(const detail::Descriptor& file) {
    void* const memory = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.number(), 0);
    if (memory == MAP_FAILED) throw FileError(path_, "cannot map", errno);
    data_ = {static_cast<const std::byte*>(memory),
             [size = size_](const std::byte* p) { ::munmap(const_cast<std::byte*>(p), size); }};
    mapped_ = true;
  }

  void copy(const detail::Descriptor& file) {
    const std::shared_ptr<std::byte[]> memory(new std::byte[size_]);
    const std::size_t found = detail::read_fully(file, {memory.get(), size_});
    require_all(found, errno);
    data_ = {memory, memory.get()};
  }
#else
  void open(FileAccess) {
    std::error_code error;
    const auto status = std::filesystem::status(path_, error);
    if (error) throw FileError(path_, "cannot open", error.value());
    if (!std::filesystem::is_regular_file(status)) {
      throw FileError(path_, "expected a regular file, found something else");
    }
    size_ = static_cast<std::size_t>(std::filesystem::file_size(path_, error));
    if (error) throw FileError(path_, "cannot examine", error.value());
    require_size();
    std::ifstream file(path_, std::ios::binary);
    if (!file) throw FileError(path_, "cannot open");
    const std::shared_ptr<std::byte[]> memory(new std::byte[size_]);
    file.read(reinterpret_cast<char*>(memory.get()), static_cast<std::streamsize>(size_));
    require_all(static_cast<std::size_t>(file.gcount()), 0);
    data_ = {memory, memory.get()};
  }
#endif

  void require_all(std::size_t found, int code) const {
    if (found == size_) return;
    throw FileError(path_, detail::concat("expected ", size_, " bytes, could read ", found), code);
  }

  std::filesystem::path path_;
  std::shared_ptr<const std::byte> data_;
  std::size_t size_ = 0;
  bool mapped_ = false;
  Index most_bytes_;
};

}  // namespace mora::inline MORA_ABI
