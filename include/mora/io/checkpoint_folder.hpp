// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "mora/io/atomic_folder.hpp"
#include "mora/io/crc32.hpp"
#include "mora/io/in_quotes.hpp"
#include "mora/io/mapped_file.hpp"

/// \file
/// Checkpoints of a run: folders ckpt-<step> in one folder, each of which appears as a whole. In it
/// are whatever files a run needs, and a manifest with their sizes and checksums. A process that is
/// killed at any moment leaves all earlier checkpoints, and at most a folder ckpt-<step>.tmp-...,
/// which nothing reads.

namespace mora::inline MORA_ABI {

/// A checkpoint that is there.
struct Checkpoint {
  std::filesystem::path path;
  Index step = 0;
};

namespace detail {

inline constexpr std::string_view manifest_name = "MANIFEST";
inline constexpr std::string_view manifest_title = "mora checkpoint, version ";
inline constexpr std::string_view manifest_format = "mora checkpoint, version 1";
inline constexpr Index most_manifest_bytes = 1 << 20;

[[nodiscard]] inline std::string checkpoint_name(Index step) { return concat("ckpt-", step); }

/// The step in the name ckpt-<step>; nothing for other names, "ckpt-07" among them.
[[nodiscard]] inline std::optional<Index> checkpoint_step(std::string_view name) {
  constexpr std::string_view prefix = "ckpt-";
  if (!name.starts_with(prefix)) return {};
  Index step = 0;
  const char* const end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + prefix.size(), end, step);
  if (error != std::errc() || stop != end || step < 0) return {};
  if (checkpoint_name(step) != name) return {};
  return step;
}

/// What the manifest of a checkpoint with these files says: a line for each.
[[nodiscard]] inline std::string manifest_of(const std::filesystem::path& folder, Index step,
                                             const std::set<std::string>& names) {
  std::ostringstream text;
  text << manifest_format << "\nstep " << step << '\n';
  for (const std::string& name : names) {
    const std::filesystem::path path = folder / name;
    std::error_code error;
    if (std::filesystem::is_regular_file(path, error) && std::filesystem::is_empty(path, error)) {
      text << "00000000 0 " << name << '\n';
      continue;
    }
    const MappedFile file(path);
    std::string sum(8, '0');
    std::array<char, 8> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + 8, crc32(file.bytes()), 16).ptr;
    std::copy(digits.data(), end, sum.end() - (end - digits.data()));
    text << sum << ' ' << file.size() << ' ' << name << '\n';
  }
  return text.str();
}

/// Whether a folder is there: of whatever a link leads to nothing is to be removed.
[[nodiscard]] inline bool is_real_folder(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::is_directory(std::filesystem::symlink_status(path, error));
}

/// Removes a real folder: the manifest first, so that what is left by a kill is no
/// checkpoint.
inline void remove_checkpoint(const std::filesystem::path& folder) {
  if (!is_real_folder(folder / manifest_name)) remove_file(folder / manifest_name);
  if (!remove_folder(folder)) throw FileError(folder, "cannot remove", errno);
}

}  // namespace detail

namespace detail {

/// What the first line of a manifest says where it is of another version of the format; nothing
/// where it is of this one, or no manifest.
[[nodiscard]] inline std::optional<std::string> other_version(const Checkpoint& checkpoint) {
  try {
    const MappedFile manifest(checkpoint.path / manifest_name, FileAccess::copied,
                              most_manifest_bytes);
    const std::string_view first = manifest.text().substr(0, manifest.text().find('\n'));
    if (!first.starts_with(manifest_title) || first == manifest_format) return {};
    const std::string_view number = first.substr(manifest_title.size());
    if (number.empty() || number.find_first_not_of("0123456789") != number.npos) return {};
    return std::string(first);
  } catch (const Error&) {
    return {};
  }
}

/// Throws FormatError for a checkpoint of another version, which is not to be passed over, replaced
/// or removed as if it were damaged.
inline void require_this_version(const Checkpoint& checkpoint) {
  const auto other = other_version(checkpoint);
  if (!other) return;
  throw FormatError(checkpoint.path / manifest_name,
                    concat("expected ", in_quotes(manifest_format), ", found ", in_quotes(*other)));
}

}  // namespace detail

/// Throws FormatError, naming file or line and both values, unless the folder is a whole checkpoint
/// of its step: another format, a file missing, added or changed in any bit, anything that is no
/// file. Reads all of it.
inline void verify_checkpoint(const Checkpoint& checkpoint) {
  const std::filesystem::path path = checkpoint.path / detail::manifest_name;
  std::set<std::string> names = detail::names_in(checkpoint.path);
  if (names.erase(std::string(detail::manifest_name)) == 0) {
    throw FormatError(checkpoint.path, "expected a checkpoint, found no MANIFEST");
  }
  for (const std::string& name : names) {
    std::error_code error;
    if (std::filesystem::is_regular_file(checkpoint.path / name, error)) continue;
    throw FormatError(checkpoint.path, detail::concat("expected files, found ",
                                                      detail::in_quotes(name), ", which is none"));
  }
  const MappedFile manifest(path, FileAccess::copied, detail::most_manifest_bytes);
  std::string_view written = manifest.text();
  if (const auto first = written.substr(0, written.find('\n')); first != detail::manifest_format) {
    throw FormatError(path, detail::concat("expected ", detail::in_quotes(detail::manifest_format),
                                           ", found ", detail::in_quotes(first)));
  }
  const std::string actual = detail::manifest_of(checkpoint.path, checkpoint.step, names);
  std::string_view found = actual;
  for (Index line = 1; written != found; ++line) {
    const auto take = [](std::string_view& text) {
      const std::string_view head = text.substr(0, text.find('\n'));
      text.remove_prefix(std::min(text.size(), head.size() + 1));
      return head;
    };
    const std::string_view expected_line = take(written);
    const std::string_view found_line = take(found);
    if (expected_line == found_line && !(written.empty() && found.empty())) continue;
    throw FormatError(path, detail::concat("line ", line),
                      detail::concat("expected ", detail::in_quotes(expected_line),
                                     ", found in the folder ", detail::in_quotes(found_line)));
  }
}

namespace detail {

/// The process in `ckpt-<step>.tmp-<process>-<number>`; 0 for anything else.
[[nodiscard]] inline pid_t writer_of(std::string_view name) {
  const std::size_t mark = name.find(temporary_mark);
  if (mark == name.npos || !checkpoint_step(std::string(name.substr(0, mark)))) return 0;
  return process_of(name.substr(mark + std::string_view(temporary_mark).size()));
}

}  // namespace detail

/// What is in the folder of a run.
struct CheckpointList {
  std::vector<Checkpoint> checkpoints;  ///< By their names, newest first; none of them was opened.
  /// What processes have not finished: of those that died, see remove_leftovers, and of the living.
  std::vector<std::filesystem::path> leftovers;
};

/// By step as a number: ckpt-10 is newer than ckpt-9, whatever the clock says. Files and links are
/// none, whatever their names. A folder that is not there has none. Throws FileError where it
/// cannot be read.
[[nodiscard]] inline CheckpointList list_checkpoints(const std::filesystem::path& folder) {
  CheckpointList list;
  std::error_code error;
  if (!std::filesystem::exists(std::filesystem::symlink_status(folder, error))) return list;
  for (const std::string& name : detail::names_in(folder)) {
    if (!name.starts_with("ckpt-") || !detail::is_real_folder(folder / name)) continue;
    if (const auto step = detail::checkpoint_step(name)) {
      list.checkpoints.push_back({folder / name, *step});
    } else if (detail::writer_of(name) != 0) {
      list.leftovers.push_back(folder / name);
    }
  }
  std::ranges::sort(list.checkpoints, std::greater<>(), &Checkpoint::step);
  return list;
}

/// The newest checkpoint that is whole, and why newer ones were passed over.
struct FoundCheckpoint {
  std::optional<Checkpoint> newest;
  std::vector<std::string> passed_over;
};

/// Throws FileError where the folder cannot be read, FormatError where a checkpoint newer than all
/// whole ones is of another version of the format; what else is wrong with one is said in the
/// result.
[[nodiscard]] inline FoundCheckpoint find_checkpoint(const std::filesystem::path& folder) {
  FoundCheckpoint found;
  for (const Checkpoint& checkpoint : list_checkpoints(folder).checkpoints) {
    detail::require_this_version(checkpoint);
    try {
      verify_checkpoint(checkpoint);
      found.newest = checkpoint;
      return found;
    } catch (const Error& error) {
      found.passed_over.emplace_back(error.what());
    }
  }
  return found;
}

/// Removes all but the newest `keep` whole checkpoints, those that are not whole and older than
/// these too; newer ones stay, to be looked at, and those of another version of the format. Throws
/// ArgumentError unless keep >= 1, FileError where the system refuses.
inline void prune_checkpoints(const std::filesystem::path& folder, Index keep = 2) {
  detail::require_at_least<Index>("keep", 1, keep);
  for (const Checkpoint& checkpoint : list_checkpoints(folder).checkpoints) {
    if (detail::other_version(checkpoint)) continue;
    if (keep == 0) {
      detail::remove_checkpoint(checkpoint.path);
      continue;
    }
    try {
      verify_checkpoint(checkpoint);
      --keep;
    } catch (const Error&) {
      continue;
    }
  }
}

/// Removes what processes left that died while they wrote a checkpoint, and returns what that was.
/// This process may not be writing one: what has its number is an earlier one's, as in containers.
/// What has the number of a living process stays. Throws FileError where the system refuses.
inline std::vector<std::filesystem::path> remove_leftovers(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> removed;
  for (const std::filesystem::path& path : list_checkpoints(folder).leftovers) {
    const pid_t process = detail::writer_of(path.filename().string());
    if (process != ::getpid() && !detail::has_ended(process)) continue;
    detail::remove_checkpoint(path);
    removed.push_back(path);
  }
  return removed;
}

/// Writes a checkpoint:
///
///     mora::CheckpointWriter writer("run", step);
///     mora::SafetensorsWriter adapters(writer.path("adapters.safetensors"), ...);
///     ...
///     writer.commit();
///     mora::prune_checkpoints("run");
///
/// Files are written into a folder beside the checkpoint's place; commit() brings all of them, the
/// manifest and both folders to the disk, and renames. Without commit() all of it vanishes.
class CheckpointWriter {
 public:
  /// Makes the folder of the run unless it is there. Throws ArgumentError for a step below 0,
  /// StateError where a whole checkpoint of that step is there, FormatError where one of another
  /// version is, FileError where the system refuses
  /// or a file or link has its name.
  CheckpointWriter(const std::filesystem::path& folder, Index step)
      : target_(free_place(folder, step)), folder_(target_.path) {}

  /// Where a file of the checkpoint is to be written. Throws ArgumentError for a name that is no
  /// plain one.
  [[nodiscard]] std::filesystem::path path(std::string_view name) const {
    const std::filesystem::path file(name);
    if (name.empty() || file.filename() != file || name.starts_with('.') ||
        name.find('\n') != std::string_view::npos || name == detail::manifest_name) {
      throw ArgumentError(detail::concat("checkpoint: expected the name of a file, found ",
                                         detail::in_quotes(name)));
    }
    return folder_.path() / file;
  }

  /// Puts the checkpoint in its place for good; one of its step that is not whole gives way. Throws
  /// StateError when committed before, FileError where the system refuses: then nothing but the
  /// latter has changed, unless the text says that it is in its place.
  void commit() {
    if (folder_.committed()) {
      throw StateError(detail::concat(target_.path.string(), ": committed before"));
    }
    const std::string text =
        detail::manifest_of(folder_.path(), target_.step, detail::names_in(folder_.path()));
    AtomicFile manifest(folder_.path() / detail::manifest_name);
    manifest.write(std::as_bytes(std::span(text)));
    manifest.commit();
    if (is_there(target_.path)) {
      require_broken(target_);  // another process may have been faster
      detail::remove_checkpoint(target_.path);
    }
    folder_.commit();
  }

 private:
  [[nodiscard]] static bool is_whole(const Checkpoint& checkpoint) {
    try {
      verify_checkpoint(checkpoint);
      return true;
    } catch (const FormatError&) {
      return false;  // what cannot be read now may be whole
    }
  }

  [[nodiscard]] static bool is_there(const std::filesystem::path& path) {
    std::error_code error;
    return std::filesystem::exists(std::filesystem::symlink_status(path, error));
  }

  [[nodiscard]] static Checkpoint free_place(const std::filesystem::path& folder, Index step) {
    detail::require_at_least<Index>("checkpoint, step", 0, step);
    Checkpoint place{folder / detail::checkpoint_name(step), step};
    if (is_there(place.path)) require_broken(place);
    return place;
  }
  static void require_broken(const Checkpoint& place) {
    if (!detail::is_real_folder(place.path)) {
      throw FileError(place.path, "expected a folder or nothing, found something else", EEXIST);
    }
    detail::require_this_version(place);
    if (!is_whole(place)) return;
    throw StateError(detail::concat(place.path.string(), ": this checkpoint is there already"));
  }

  Checkpoint target_;
  AtomicFolder folder_;
};

}  // namespace mora::inline MORA_ABI
