// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace mora_tests {

using std::filesystem::path;

/// A folder of tests/fixtures/llama_folders.
[[nodiscard]] inline path stored_llama(const path& name) {
  return path(MORA_FIXTURES) / "llama_folders" / name;
}

/// A folder of this test alone, empty at first and removed with what is in it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    // No test of one process runs twice at a time, and no other process has its number.
    const auto* const test = testing::UnitTest::GetInstance()->current_test_info();
    std::string name =
        std::string("mora-") + test->test_suite_name() + "-" + test->name() + "-" + pid();
    std::replace(name.begin(), name.end(), '/', '-');
    folder_ = path(testing::TempDir()) / name;
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code error;
    std::filesystem::remove_all(folder_, error);
  }

  [[nodiscard]] path operator/(const path& name) const { return folder_ / name; }
  [[nodiscard]] const path& where() const { return folder_; }

  /// The names in it, in order.
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  static std::string pid() { return std::to_string(::getpid()); }
  path folder_;
};

inline void write_file(const path& name, std::string_view bytes) {
  std::ofstream file(name, std::ios::binary);
  file.write(bytes.data(), std::ssize(bytes));
  file.close();
  if (!file) throw std::runtime_error("cannot write " + name.string());
}

[[nodiscard]] inline std::string read_file(const path& name) {
  std::ifstream file(name, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + name.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A process that has ended.
[[nodiscard]] inline pid_t ended_process() {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ::waitpid(child, nullptr, 0);
  return child;
}

/// A limit of the size of files, while it lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limited{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limited);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

}  // namespace mora_tests
