// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <exception>
#include <initializer_list>
#include <string_view>
#include <typeinfo>

namespace mora_tests {

/// Whether `call` throws an E, and nothing derived from it, whose text contains every part.
template <class E, class F>
[[nodiscard]] testing::AssertionResult throws(std::initializer_list<std::string_view> parts,
                                              const F& call) {
  try {
    call();
  } catch (const E& error) {
    const std::string_view text = error.what();
    if (typeid(error) != typeid(E)) {
      return testing::AssertionFailure() << "throws " << typeid(error).name() << ": " << text;
    }
    for (const std::string_view part : parts) {
      if (text.find(part) == std::string_view::npos) {
        return testing::AssertionFailure() << "no '" << part << "' in: " << text;
      }
    }
    return testing::AssertionSuccess();
  } catch (const std::exception& error) {
    return testing::AssertionFailure() << "throws " << typeid(error).name() << ": " << error.what();
  }
  return testing::AssertionFailure() << "throws nothing";
}

}  // namespace mora_tests
