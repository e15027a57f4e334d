// SPDX-License-Identifier: MIT
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "mora/io/atomic_file.hpp"
#include "mora/io/folder_entries.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

/// Brings a file to the disk, whoever wrote it. Throws FileError where the system refuses.
inline void sync_file(const std::filesystem::path& path) {
  Descriptor file(path.c_str(), O_RDONLY);
  if (!file.is_open()) throw FileError(path, "cannot open", errno);
  if (::fsync(file.number()) != 0) throw FileError(path, "cannot bring to the disk", errno);
  if (!file.close()) throw FileError(path, "cannot close", errno);
}

/// Its whole name, without a slash behind.
[[nodiscard]] inline std::filesystem::path absolute_folder(const std::filesystem::path& folder) {
  std::error_code error;
  const auto whole = std::filesystem::absolute(folder, error).lexically_normal();
  if (error) throw FileError(folder, "cannot find the working folder", error.value());
  return whole.has_filename() ? whole : whole.parent_path();
}

/// What stands between the target's name and the number of the process that fills a folder for it.
inline constexpr const char* temporary_mark = ".tmp-";

/// The process in `<process>-<number>`; 0 for anything else.
[[nodiscard]] inline pid_t process_of(std::string_view text) {
  const char* const end = text.data() + text.size();
  pid_t process = 0;
  unsigned number = 0;
  const auto first = std::from_chars(text.data(), end, process);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != '-' || process < 1) return 0;
  const auto second = std::from_chars(first.ptr + 1, end, number);
  return second.ec == std::errc() && second.ptr == end ? process : 0;
}

/// Whether there is no such process here.
[[nodiscard]] inline bool has_ended(pid_t process) {
  return ::kill(process, 0) != 0 && errno == ESRCH;
}

}  // namespace detail

/// A folder of files that appears whole or not at all. It is filled under another name beside its
/// target, `<target>.tmp-<process>-<number>`, and renamed by commit(); without that it vanishes. A
/// process that is killed leaves it behind (folders_left_beside).
class AtomicFolder {
 public:
  /// Makes the folders that the target is in unless they are there. Throws FileError where the
  /// system refuses.
  explicit AtomicFolder(const std::filesystem::path& target) {
    std::error_code error;
    target_ = detail::absolute_folder(target);
    make_folder(target_.parent_path());
    constexpr int most_names = 10'000;
    for (int number = 0; number < most_names; ++number) {
      temporary_ = target_;
      temporary_ += detail::concat(detail::temporary_mark, ::getpid(), "-", number);
      if (std::filesystem::create_directory(temporary_, error)) return;
      if (error) throw FileError(temporary_, "cannot make this folder", error.value());
    }
    throw FileError(target_, detail::concat("all ", most_names, " names beside it are taken"));
  }
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  ~AtomicFolder() {
    if (committed_) return;
    try {
      (void)detail::remove_folder(temporary_);
    } catch (...) {
      // Without memory it stays, as what a process leaves that is killed.
    }
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

namespace detail {

/// Makes sure that an AtomicFolder can be put there, before work is done for it: an empty folder
/// that is there is replaced by another. Throws FileError where anything else is, a link too, or
/// where the system refuses: a mount, or a folder around it without rights.
inline void take_place(const std::filesystem::path& target) {
  const std::filesystem::path place = absolute_folder(target);
  std::error_code error;
  const auto status = std::filesystem::symlink_status(place, error);
  if (!std::filesystem::exists(status)) return;
  if (!std::filesystem::is_directory(status) || !std::filesystem::is_empty(place, error)) {
    throw FileError(target, "is there already", EEXIST);
  }
  AtomicFolder(place).commit();
}

}  // namespace detail

/// A folder that an AtomicFolder of another process has filled, or is filling; or of an earlier one
/// with this process's number, as in containers.
struct FolderLeft {
  std::filesystem::path path;
  pid_t process = 0;
  bool ended = false;  ///< There is no such process here; a number may have a new owner.

  /// For people.
  [[nodiscard]] std::string text() const {
    return detail::concat(path.string(), ": ",
                          ended ? "left by a process that ended" : "a leftover, or still written",
                          ended ? "" : " by the process of that number", " (", process,
                          "); it may be removed when no other program is writing it");
  }
};

/// Those beside `target`, by name; nothing is removed. Throws FileError where their folder cannot
/// be read.
[[nodiscard]] inline std::vector<FolderLeft> folders_left_beside(
    const std::filesystem::path& target) {
  const std::filesystem::path whole = detail::absolute_folder(target);
  const std::string start = whole.filename().string() + detail::temporary_mark;
  const std::filesystem::path folder = whole.parent_path();
  std::vector<FolderLeft> left;
  std::error_code error;
  if (!std::filesystem::exists(folder, error)) return left;
  for (const std::string& name : detail::names_in(folder)) {
    if (!name.starts_with(start)) continue;
    const pid_t process = detail::process_of(std::string_view(name).substr(start.size()));
    const auto status = std::filesystem::symlink_status(folder / name, error);
    if (process == 0 || !std::filesystem::is_directory(status)) continue;
    left.push_back(
        {.path = folder / name, .process = process, .ended = detail::has_ended(process)});
  }
  return left;
}

}  // namespace mora::inline MORA_ABI
