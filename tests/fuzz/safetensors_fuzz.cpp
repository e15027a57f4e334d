// SPDX-License-Identifier: MIT
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "support/tensor_files.hpp"

/// \file
/// Whatever the bytes: a file that can be used, written and read again, or a FormatError.

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    mora_tests::use(mora_tests::in_memory({reinterpret_cast<const char*>(data), size}));
  } catch (const mora::FormatError&) {
  }
  return 0;
}
