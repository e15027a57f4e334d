// SPDX-License-Identifier: MIT
#pragma once

/// \file
/// Every allocation of a test program, counted, or made to fail. The malloc family is replaced by
/// the linker (-Wl,--wrap=malloc), operator new by support/allocations.cpp; see the function
/// mora_count_allocations of tests/CMakeLists.txt. Works under AddressSanitizer too.

namespace mora_tests {

/// Allocations of all threads since the program began.
[[nodiscard]] long allocation_count();

/// Allocations that were not given back.
[[nodiscard]] long live_allocations();

/// The bytes of the largest allocation since the last call of this function.
[[nodiscard]] long take_largest_allocation();

/// Their bytes.
[[nodiscard]] long live_bytes();

/// The largest live_bytes() since the last call of this function.
[[nodiscard]] long take_most_live_bytes();

/// Lets the k-th allocation from now on fail (malloc returns null, operator new throws
/// std::bad_alloc), counted from 1; those after it succeed again. 0 takes an order back.
void fail_allocation(long k);

/// The same with all those after it, until fail_allocation(0).
void fail_allocations_from(long k);

/// Whether the order was carried out.
[[nodiscard]] bool allocation_failed();

}  // namespace mora_tests
