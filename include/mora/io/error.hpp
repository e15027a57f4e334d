// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

#include "mora/core/error.hpp"

namespace mora::inline MORA_ABI {

/// A file that cannot be opened, read or written; the text names it and the system's reason.
class FileError : public Error {
 public:
  /// `code` is the system's errno, or 0 where it is the library that refuses.
  FileError(const std::filesystem::path& path, std::string_view fault, int code = 0)
      : Error(text(path, fault, code)), code_(code, std::generic_category()) {}

  /// To be compared with std::errc.
  [[nodiscard]] const std::error_code& code() const { return code_; }

 private:
  static std::string text(const std::filesystem::path& path, std::string_view fault, int code) {
    if (code == 0) return detail::concat(path.string(), ": ", fault);
    return detail::concat(path.string(), ": ", fault, ": ", std::generic_category().message(code),
                          " (errno ", code, ")");
  }
  std::error_code code_;
};

/// A file whose contents are not what they should be; the text names it and the place.
class FormatError : public Error {
 public:
  FormatError(const std::filesystem::path& path, std::string_view fault)
      : Error(detail::concat(path.string(), ": ", fault)) {}
  /// `place` is a line, a position, a part.
  FormatError(const std::filesystem::path& path, std::string_view place, std::string_view fault)
      : Error(detail::concat(path.string(), ", ", place, ": ", fault)) {}
};

}  // namespace mora::inline MORA_ABI
