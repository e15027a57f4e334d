// SPDX-License-Identifier: MIT
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <system_error>

#include "mora/io/error.hpp"

/// \file
/// What is in a folder, and its removal. By POSIX, as the standard library's iterators over folders
/// may end the process where memory runs out (GCC 12's do).

namespace mora::inline MORA_ABI::detail {

/// An open folder. Not open where the system refuses: see errno.
class FolderEntries {
 public:
  explicit FolderEntries(const std::filesystem::path& folder)
      : stream_(::opendir(folder.c_str())) {}
  FolderEntries(const FolderEntries&) = delete;
  FolderEntries& operator=(const FolderEntries&) = delete;
  ~FolderEntries() {
    if (is_open()) ::closedir(stream_);
  }

  [[nodiscard]] bool is_open() const { return stream_ != nullptr; }
  [[nodiscard]] int number() const { return ::dirfd(stream_); }
  /// The next name; null at the end, and, with errno, where the system refuses.
  [[nodiscard]] const char* next() {
    while (true) {
      errno = 0;
      const dirent* const entry = ::readdir(stream_);
      if (entry == nullptr) return nullptr;
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") return entry->d_name;
    }
  }

 private:
  DIR* stream_;
};

/// The names of what is in a folder, sorted. Throws FileError where it cannot be read.
[[nodiscard]] inline std::set<std::string> names_in(const std::filesystem::path& folder) {
  std::set<std::string> names;
  FolderEntries entries(folder);
  if (!entries.is_open()) throw FileError(folder, "cannot read this folder", errno);
  while (const char* const name = entries.next()) names.insert(name);
  if (errno != 0) throw FileError(folder, "cannot read this folder", errno);
  return names;
}

/// Removes a folder with what is in it; one of files alone takes no memory. Returns whether it is
/// gone, or errno says why not.
[[nodiscard]] inline bool remove_folder(const std::filesystem::path& folder) {
  bool flat = true;
  {
    FolderEntries entries(folder);
    if (!entries.is_open()) return errno == ENOENT;
    while (const char* const name = entries.next()) {
      if (::unlinkat(entries.number(), name, 0) != 0) flat = false;
    }
  }
  if (flat) return ::rmdir(folder.c_str()) == 0;
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  errno = error.value();
  return !error;
}

}  // namespace mora::inline MORA_ABI::detail
