// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <exception>
#include <initializer_list>
#include <string_view>
#include <typeinfo>

namespace mora_tests {

/// Anything that can be called, for as long as that lives: what takes it is not compiled for every
/// lambda.
class Call {
 public:
  template <class F>
  Call(const F& call)  // NOLINT(google-explicit-constructor)
      : call_(&call), run_([](const void* f) { (*static_cast<const F*>(f))(); }) {}
  void operator()() const { run_(call_); }

 private:
  const void* call_;
  void (*run_)(const void*);
};

/// Whether `call` throws an E, and nothing derived from it, whose text contains every part.
template <class E>
[[nodiscard]] testing::AssertionResult throws(std::initializer_list<std::string_view> parts,
                                              const Call& call) {
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
