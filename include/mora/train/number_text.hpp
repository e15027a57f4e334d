// SPDX-License-Identifier: MIT
#pragma once

#include <charconv>
#include <concepts>
#include <ostream>
#include <string_view>

#include "mora/core/abi.hpp"

namespace mora::inline MORA_ABI::detail {

/// A number as text, whatever the locale, precision and flags of the stream that it is written to.
class NumberText {
 public:
  /// The shortest text that reads back as the same number.
  explicit NumberText(double number)
      : end_(std::to_chars(text_, text_ + sizeof text_, number).ptr) {}
  /// With so many significant digits.
  NumberText(double number, int digits)
      : end_(std::to_chars(text_, text_ + sizeof text_, number, std::chars_format::general, digits)
                 .ptr) {}
  template <std::integral Integer>
  explicit NumberText(Integer number)
      : end_(std::to_chars(text_, text_ + sizeof text_, number).ptr) {}
  NumberText(const NumberText&) = delete;
  NumberText& operator=(const NumberText&) = delete;

  friend std::ostream& operator<<(std::ostream& out, const NumberText& number) {
    return out.write(number.text_, number.end_ - number.text_);
  }

 private:
  char text_[32];
  char* end_;
};

}  // namespace mora::inline MORA_ABI::detail
