// SPDX-License-Identifier: MIT
#pragma once

#include <mora/adapters/side.hpp>
#include <ostream>

namespace mora_tests {

using mora::Index;
using mora::SideRounding;

/// A layer's sizes, and how the side of M follows from them.
struct Shape {
  Index in = 0;
  Index out = 0;
  Index rank = 0;
  SideRounding rounding = SideRounding::paper;

  [[nodiscard]] Index side() const { return mora::mora_side(in, out, rank, rounding); }
};

inline std::ostream& operator<<(std::ostream& stream, const Shape& shape) {
  return stream << shape.in << " -> " << shape.out << ", rank " << shape.rank << ", side "
                << shape.side();
}

/// Every way in which the side can lie to the sizes.
inline constexpr Shape awkward_shapes[] = {
    {24, 24, 3},                           // side 12 divides both
    {24, 48, 2},                           // and where out > in
    {48, 24, 2},                           // and where in > out
    {25, 31, 2},                           // side 10 divides neither
    {31, 25, 2},                           //
    {13, 29, 3},                           // primes, side 11
    {29, 13, 3},                           //
    {7, 5, 2},                             // side 4: the last output block is one row
    {32, 32, 4},                           // side = in / 2
    {16, 16, 8},                           // side = in: one block
    {8, 8, 8},                             // in < side 11 < 2 in: one block that wraps
    {4, 64, 8},                            // in < side / 2: the wrap goes round five times
    {64, 4, 8},                            // out < side / 2
    {3, 2, 5},                             // side 5, beyond both
    {2, 2, 1},                             // side 2, rotation's smallest
    {4, 4, 1, SideRounding::reference},    // side 3, which rotation makes 2
    {36, 24, 3, SideRounding::reference},  // side 13, 12 for rotation
    {1, 9, 2},                             // one input
    {9, 1, 2},                             // one output
    {1, 1, 2},                             // both, side 2
    {1, 1, 1},                             // side 1, which rotation refuses
};

}  // namespace mora_tests
