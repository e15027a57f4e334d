// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <mora/io/atomic_file.hpp>
#include <mora/io/mapped_file.hpp>

#include "support/files.hpp"
#include "support/throws.hpp"

namespace mora_tests {
namespace {

using mora::AtomicFile;
using mora::FileError;
using mora::StateError;
using Names = std::vector<std::string>;

[[nodiscard]] std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

void save(const path& name, std::string_view text) {
  AtomicFile file(name);
  file.write(bytes_of(text));
  file.commit();
}

TEST(AtomicFile, AppearsWholeWhenItIsCommitted) {
  const TemporaryFolder folder;
  for (const char* const old : {"", "old"}) {
    if (*old != '\0') write_file(folder / "file", old);
    AtomicFile file(folder / "file");
    file.write(bytes_of("new "));
    file.write({});
    file.write(bytes_of("contents"));
    EXPECT_EQ(std::filesystem::exists(folder / "file"), *old != '\0');
    if (*old != '\0') {
      EXPECT_EQ(read_file(folder / "file"), old);
    }
    file.commit();
    EXPECT_EQ(read_file(folder / "file"), "new contents");
    EXPECT_EQ(folder.names(), Names{"file"});
  }
}

TEST(AtomicFile, VanishesWithoutACommit) {
  const TemporaryFolder folder;
  write_file(folder / "file", "old");
  {
    AtomicFile file(folder / "file");
    file.write(bytes_of("new"));
    EXPECT_EQ(folder.names().size(), 2u);
  }
  EXPECT_EQ(folder.names(), Names{"file"});
  EXPECT_EQ(read_file(folder / "file"), "old");
}

TEST(AtomicFile, IsCommittedOnce) {
  const TemporaryFolder folder;
  AtomicFile file(folder / "file");
  file.commit();
  EXPECT_EQ(read_file(folder / "file"), "");
  EXPECT_TRUE(throws<StateError>({"file: committed"}, [&] { file.commit(); }));
  EXPECT_TRUE(throws<StateError>({"file: committed"}, [&] { file.write(bytes_of("x")); }));
  EXPECT_EQ(read_file(folder / "file"), "");
}

TEST(AtomicFile, HasRoomThatIsFilledInAnyOrder) {
  const TemporaryFolder folder;
  AtomicFile file(folder / "file");
  const AtomicFile::Room first = file.leave(6);
  file.write(bytes_of("end"));
  first.write(3, bytes_of("def"));
  first.write(0, bytes_of("abc"));
  file.commit();
  EXPECT_EQ(read_file(folder / "file"), "abcdefend");
}

TEST(AtomicFile, WithRoomThatIsNotFilledIsNotCommitted) {
  const TemporaryFolder folder;
  write_file(folder / "file", "old");
  AtomicFile file(folder / "file");
  const AtomicFile::Room room = file.leave(6);
  room.write(3, bytes_of("def"));
  EXPECT_TRUE(throws<StateError>({"file", "expected 6", "found 3"}, [&] { file.commit(); }));
  EXPECT_TRUE(throws<mora::ArgumentError>({"at most 6", "found 4 + 3"},
                                          [&] { room.write(4, bytes_of("def")); }));
  EXPECT_EQ(read_file(folder / "file"), "old");
  room.write(0, bytes_of("abc"));
  file.commit();
  EXPECT_EQ(read_file(folder / "file"), "abcdef");
  EXPECT_TRUE(throws<StateError>({"file", "committed"}, [&] { room.write(0, bytes_of("x")); }));
}

TEST(AtomicFile, OverAFileThatIsReadLeavesItsReadersAlone) {
  const TemporaryFolder folder;
  write_file(folder / "file", "what is read");
  const mora::MappedFile mapped(folder / "file");
  save(folder / "file", "x");
  EXPECT_EQ(mapped.text(), "what is read");
  EXPECT_EQ(read_file(folder / "file"), "x");
}

TEST(AtomicFile, HasTheRightsOfAnyNewFile) {
  const TemporaryFolder folder;
  const mode_t before = ::umask(027);
  save(folder / "file", "x");
  ::umask(before);
  struct stat status {};
  ASSERT_EQ(::stat((folder / "file").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0640u);
}

TEST(AtomicFile, ReplacesALinkAndLeavesWhatItNames) {
  const TemporaryFolder folder;
  write_file(folder / "target", "old");
  std::filesystem::create_symlink("target", folder / "link");
  std::filesystem::create_symlink("nowhere", folder / "dangling");
  std::filesystem::create_hard_link(folder / "target", folder / "second");
  for (const char* const name : {"link", "dangling", "second"}) {
    save(folder / name, "new");
    EXPECT_EQ(read_file(folder / name), "new");
    EXPECT_FALSE(std::filesystem::is_symlink(folder / name));
  }
  EXPECT_EQ(read_file(folder / "target"), "old");
  EXPECT_FALSE(std::filesystem::exists(folder / "nowhere"));
}

TEST(AtomicFile, IsWrittenToWhereItsNameLedAtFirst) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "other");
  const path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.where());
  AtomicFile file("file");
  std::filesystem::current_path(folder / "other");
  file.commit();
  std::filesystem::current_path(before);
  EXPECT_EQ(folder.names(), (Names{"file", "other"}));
}

TEST(AtomicFile, HasANameOfItsOwnUntilThen) {
  const TemporaryFolder folder;
  const std::string stale = ".mora-" + std::to_string(::getpid()) + "-0.tmp";
  write_file(folder / stale, "of a process that died");
  AtomicFile first(folder / "file");
  AtomicFile second(folder / "file");
  first.write(bytes_of("first"));
  second.write(bytes_of("second"));
  EXPECT_EQ(folder.names().size(), 3u);
  first.commit();
  second.commit();
  EXPECT_EQ(read_file(folder / "file"), "second");
  EXPECT_EQ(read_file(folder / stale), "of a process that died");
  EXPECT_EQ(folder.names(), (Names{stale, "file"}));
  // The longest name that a file can have leaves room for it.
  save(folder / std::string(255, 'n'), "x");
}

TEST(AtomicFile, RefusesWhereThereCanBeNoFile) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "folder");
  write_file(folder / "file", "x");
  const auto refused = [](const path& name, std::errc reason) -> testing::AssertionResult {
    try {
      AtomicFile file(name);
    } catch (const FileError& error) {
      if (error.code() == reason) return testing::AssertionSuccess();
      return testing::AssertionFailure() << error.what();
    }
    return testing::AssertionFailure() << "throws nothing";
  };
  EXPECT_TRUE(refused(folder / "folder", std::errc::is_a_directory));
  EXPECT_TRUE(refused(folder / "missing" / "file", std::errc::no_such_file_or_directory));
  EXPECT_TRUE(refused(folder / "file" / "file", std::errc::not_a_directory));
  EXPECT_TRUE(throws<FileError>({"expected the name of a file"},
                                [&] { AtomicFile file(folder / "missing" / ""); }));
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  for (const path& name : {folder / "pipe", path("/dev/null")}) {
    EXPECT_TRUE(throws<FileError>({name.string(), "expected a regular file"},
                                  [&] { AtomicFile file(name); }));
  }
  EXPECT_EQ(folder.names(), (Names{"file", "folder", "pipe"}));
}

// The system would end the process by a signal.
TEST(AtomicFile, BeyondALimitFailsAndTheProcessLives) {
  const TemporaryFolder folder;
  write_file(folder / "file", "old");
  const std::string large(10'000, 'x');
  {
    AtomicFile file(folder / "file");
    const FileSizeLimit limit(4096);
    try {
      file.write(bytes_of(large));
      ADD_FAILURE() << "throws nothing";
    } catch (const FileError& error) {
      EXPECT_EQ(error.code(), std::errc::file_too_large);
    }
    // Nothing is left to commit, and nothing of the signal.
    EXPECT_TRUE(throws<StateError>({"file: committed or given up"}, [&] { file.commit(); }));
  }
  sigset_t set;
  sigemptyset(&set);
  ::sigpending(&set);
  EXPECT_EQ(sigismember(&set, SIGXFSZ), 0);
  ::pthread_sigmask(SIG_SETMASK, nullptr, &set);
  EXPECT_EQ(sigismember(&set, SIGXFSZ), 0);
  EXPECT_EQ(read_file(folder / "file"), "old");
  EXPECT_EQ(folder.names(), Names{"file"});
}

// A process that dies in the middle leaves the old file.
TEST(AtomicFile, LeavesTheOldFileWhenTheProcessDies) {
  const TemporaryFolder folder;
  write_file(folder / "file", "old");
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(folder / "file");
    file.write(bytes_of("half of the ne"));
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(read_file(folder / "file"), "old");
  EXPECT_EQ(folder.names().size(), 2u);
  save(folder / "file", "new");
  EXPECT_EQ(read_file(folder / "file"), "new");
}

}  // namespace
}  // namespace mora_tests
