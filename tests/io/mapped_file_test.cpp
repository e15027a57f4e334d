// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <mora/io/mapped_file.hpp>

#include "support/files.hpp"
#include "support/throws.hpp"

namespace mora_tests {
namespace {

using mora::FileAccess;
using mora::FileError;
using mora::FormatError;
using mora::MappedFile;

constexpr FileAccess accesses[] = {FileAccess::mapped, FileAccess::copied};

/// Whether opening fails as a FileError with the reason.
[[nodiscard]] testing::AssertionResult refused(const path& name, std::errc reason) {
  for (const FileAccess access : accesses) {
    try {
      const MappedFile file(name, access);
      return testing::AssertionFailure() << "opens " << name;
    } catch (const FileError& error) {
      const std::string_view text = error.what();
      if (error.code() != reason || text.find(name.string()) == text.npos ||
          text.find(error.code().message()) == text.npos) {
        return testing::AssertionFailure() << text;
      }
    }
  }
  return testing::AssertionSuccess();
}

TEST(MappedFile, HasTheBytesOfTheFile) {
  const TemporaryFolder folder;
  std::string bytes;
  for (int i = 0; i < 10'000; ++i) bytes.push_back(char(i * 7));
  for (const std::size_t size : {std::size_t{1}, std::size_t{4096}, bytes.size()}) {
    write_file(folder / "file", bytes.substr(0, size));
    for (const FileAccess access : accesses) {
      const MappedFile file(folder / "file", access);
      EXPECT_EQ(file.text(), bytes.substr(0, size));
      EXPECT_EQ(file.size(), mora::Index(size));
      EXPECT_EQ(file.bytes().size(), size);
      EXPECT_EQ(static_cast<const void*>(file.bytes().data()), file.owner().get());
      EXPECT_EQ(file.path(), folder / "file");
    }
  }
}

TEST(MappedFile, KeepsItsBytesAsLongAsAnybodyHoldsThem) {
  const TemporaryFolder folder;
  write_file(folder / "file", "contents");
  for (const FileAccess access : accesses) {
    std::shared_ptr<const void> owner;
    const char* text = nullptr;
    {
      MappedFile file(folder / "file", access);
      const MappedFile copy = file;
      EXPECT_EQ(copy.bytes().data(), file.bytes().data());
      const MappedFile moved = std::move(file);
      EXPECT_EQ(moved.text(), "contents");
      EXPECT_EQ(file.text(), "");  // NOLINT(bugprone-use-after-move)
      EXPECT_EQ(file.size(), 0);
      EXPECT_EQ(file.owner(), nullptr);
      owner = moved.owner();
      text = moved.text().data();
    }
    EXPECT_EQ(std::string_view(text, 8), "contents");
  }
}

TEST(MappedFile, IsNotTouchedByANewFileOfItsName) {
  const TemporaryFolder folder;
  for (const FileAccess access : accesses) {
    write_file(folder / "file", "old");
    const MappedFile file(folder / "file", access);
    write_file(folder / "new", "new contents");
    std::filesystem::rename(folder / "new", folder / "file");
    EXPECT_EQ(file.text(), "old");
    std::filesystem::remove(folder / "file");
    EXPECT_EQ(file.text(), "old");
  }
}

TEST(MappedFile, AsACopyIsNotTouchedByAnything) {
  const TemporaryFolder folder;
  const std::string bytes(10'000, 'x');
  write_file(folder / "file", bytes);
  const MappedFile file(folder / "file", FileAccess::copied);
  std::filesystem::resize_file(folder / "file", 0);
  write_file(folder / "file", "other");
  EXPECT_EQ(file.text(), bytes);
}

TEST(MappedFile, RefusesAnEmptyFile) {
  const TemporaryFolder folder;
  write_file(folder / "empty", "");
  for (const FileAccess access : accesses) {
    EXPECT_TRUE(throws<FormatError>({(folder / "empty").string(), "found an empty one"},
                                    [&] { MappedFile(folder / "empty", access); }));
  }
}

TEST(MappedFile, RefusesWhatIsNotThere) {
  const TemporaryFolder folder;
  write_file(folder / "file", "x");
  EXPECT_TRUE(refused(folder / "missing", std::errc::no_such_file_or_directory));
  EXPECT_TRUE(refused("", std::errc::no_such_file_or_directory));
  EXPECT_TRUE(refused(folder / "file" / "below", std::errc::not_a_directory));
  EXPECT_TRUE(refused(folder / std::string(300, 'n'), std::errc::filename_too_long));
  std::filesystem::create_symlink("loop", folder / "loop");
  EXPECT_TRUE(refused(folder / "loop", std::errc::too_many_symbolic_link_levels));
}

TEST(MappedFile, OpensNamesOfAnyBytes) {
  const TemporaryFolder folder;
  for (const char* const name : {"with space", "h\xc3\xa9", "\xff\xfe", "new\nline"}) {
    write_file(folder / name, "x");
    EXPECT_EQ(MappedFile(folder / name).text(), "x");
  }
  std::filesystem::create_symlink("with space", folder / "link");
  EXPECT_EQ(MappedFile(folder / "link").text(), "x");
}

// A pipe that nobody writes to must not be waited for.
TEST(MappedFile, RefusesFoldersPipesAndDevices) {
  const TemporaryFolder folder;
  EXPECT_TRUE(refused(folder.where(), std::errc::is_a_directory));
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  for (const path& name : {folder / "pipe", path("/dev/null"), path("/dev/zero")}) {
    for (const FileAccess access : accesses) {
      EXPECT_TRUE(throws<FileError>({name.string(), "expected a regular file"},
                                    [&] { MappedFile(name, access); }));
    }
  }
}

// A mapping takes no memory for what is not read.
TEST(MappedFile, MapsAFileOfATerabyte) {
  const TemporaryFolder folder;
  write_file(folder / "large", "begin");
  // Some file systems have no files of that size: then the largest power of two that they have.
  mora::Index size = mora::Index{1} << 40;
  std::error_code error;
  const auto grow = [&] {
    std::filesystem::resize_file(folder / "large", static_cast<std::uintmax_t>(size), error);
    return !error;
  };
  while (!grow() && error == std::errc::file_too_large) size /= 2;
  ASSERT_FALSE(error) << error.message();
  ASSERT_GE(size, mora::Index{1} << 31);
  const MappedFile file(folder / "large");
  EXPECT_EQ(file.size(), size);
  EXPECT_EQ(file.text().substr(0, 6), std::string_view("begin\0", 6));
  EXPECT_EQ(file.text().back(), '\0');
}

}  // namespace
}  // namespace mora_tests
