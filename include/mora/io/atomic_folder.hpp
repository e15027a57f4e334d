// SPDX-License-Identifier: MIT
#pragma once

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <set>
#include <string>
#include <system_error>

#include "mora/io/atomic_file.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

/// The names of what is in a folder, sorted. Throws FileError where it cannot be read.
[[nodiscard]] inline std::set<std::string> names_in(const std::filesystem::path& folder) {
  std::set<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator at(folder, error);
  for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
    names.insert(at->path().filename().string());
  }
  if (error) throw FileError(folder, "cannot read this folder", error.value());
  return names;
}

/// Brings a file to the disk, whoever wrote it. Throws FileError where the system refuses.
inline void sync_file(const std::filesystem::path& path) {
  Descriptor file(path.c_str(), O_RDONLY);
  if (!file.is_open()) throw FileError(path, "cannot open", errno);
  if (::fsync(file.number()) != 0) throw FileError(path, "cannot bring to the disk", errno);
  if (!file.close()) throw FileError(path, "cannot close", errno);
}

}  // namespace detail

/// A folder of files that appears whole or not at all. It is filled under another name beside its
/// target, `<target>.tmp-<process>-<number>`, and renamed by commit(); without that it vanishes.
class AtomicFolder {
 public:
  /// Makes the folders that the target is in unless they are there. Throws FileError where the
  /// system refuses.
  explicit AtomicFolder(const std::filesystem::path& target) {
    std::error_code error;
    target_ = std::filesystem::absolute(target, error).lexically_normal();
    if (error) throw FileError(target, "cannot find the working folder", error.value());
    if (!target_.has_filename()) target_ = target_.parent_path();
    make_folder(target_.parent_path());
    constexpr int most_names = 10'000;
    for (int number = 0; number < most_names; ++number) {
      temporary_ = target_;
      temporary_ += detail::concat(".tmp-", ::getpid(), "-", number);
      if (std::filesystem::create_directory(temporary_, error)) return;
      if (error) throw FileError(temporary_, "cannot make this folder", error.value());
    }
    throw FileError(target_, detail::concat("all ", most_names, " names beside it are taken"));
  }
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  ~AtomicFolder() {
    std::error_code error;
    if (!committed_) std::filesystem::remove_all(temporary_, error);
  }

  /// Where its files are written until commit().
  [[nodiscard]] const std::filesystem::path& path() const { return temporary_; }
  [[nodiscard]] const std::filesystem::path& target() const { return target_; }
  [[nodiscard]] bool committed() const { return committed_; }

  /// Brings its files, it and its name to the disk. The target must not be there, or be an empty
  /// folder. Throws FileError where the system refuses: the target is then what it was, unless the
  /// text says that it is in its place.
  void commit() {
    for (const std::string& name : detail::names_in(temporary_)) {
      detail::sync_file(temporary_ / name);
    }
    if (!detail::sync_folder(temporary_)) {
      throw FileError(temporary_, "cannot bring to the disk", errno);
    }
    // Before the renaming, as there may be no memory for it.
    const std::filesystem::path parent = target_.parent_path();
    if (std::rename(temporary_.c_str(), target_.c_str()) != 0) {
      throw FileError(target_, "cannot rename to it", errno);
    }
    committed_ = true;
    if (!detail::sync_folder(parent)) {
      throw FileError(target_, "is in its place, but its folder cannot be brought to the disk",
                      errno);
    }
  }

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  bool committed_ = false;
};

}  // namespace mora::inline MORA_ABI
