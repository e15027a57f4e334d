// SPDX-License-Identifier: MIT
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

#include "mora/core/abi.hpp"

namespace mora::inline MORA_ABI {

/// Base of everything that the library throws on purpose. What is thrown has changed nothing.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Sizes that do not fit together; the text names the argument and both numbers.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// A setting or argument outside its range; the text names it, its value and the range.
class ArgumentError : public Error {
 public:
  using Error::Error;
};

/// A call that the object's state forbids: training while merged, backward without forward.
class StateError : public Error {
 public:
  using Error::Error;
};

/// A NaN or infinity where only finite numbers may be.
class NumericError : public Error {
 public:
  using Error::Error;
};

namespace detail {

/// The parts as one text, or std::bad_alloc, which a stream would swallow.
template <class... Parts>
[[nodiscard]] std::string concat(const Parts&... parts) {
  std::ostringstream text;
  text.exceptions(std::ios::badbit);
  (text << ... << parts);
  return text.str();
}

/// Throws ShapeError unless `found == expected`.
template <class Integer>
void require_size(const char* what, Integer expected, Integer found) {
  if (found != expected) {
    throw ShapeError(concat(what, ": expected ", expected, ", found ", found));
  }
}

/// Throws ArgumentError unless minimum <= value < limit.
template <class Number>
void require_range(const char* what, Number value, Number minimum, Number limit) {
  if (!(value >= minimum && value < limit)) {
    throw ArgumentError(
        concat(what, ": expected ", minimum, " <= ", what, " < ", limit, ", found ", value));
  }
}

/// Throws ArgumentError unless minimum <= value <= maximum.
template <class Number>
void require_between(const char* what, Number value, Number minimum, Number maximum) {
  if (!(value >= minimum && value <= maximum)) {
    throw ArgumentError(
        concat(what, ": expected ", minimum, " <= ", what, " <= ", maximum, ", found ", value));
  }
}

/// Throws ArgumentError unless value >= minimum.
template <class Integer>
void require_at_least(const char* what, Integer minimum, Integer value) {
  if (value < minimum) {
    throw ArgumentError(concat(what, ": expected at least ", minimum, ", found ", value));
  }
}

}  // namespace detail
}  // namespace mora::inline MORA_ABI
