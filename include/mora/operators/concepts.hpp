// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>
#include <limits>
#include <span>

#include "mora/core/matrix.hpp"

namespace mora::inline MORA_ABI {

/// What MoRA needs of C: R^in -> R^(blocks * side), a linear map without parameters.
///
/// MoRA adds s D(M C(x)) to W x (paper, Eq. 3): C compresses x into `blocks()` blocks of `side()`
/// numbers, the square matrix M [side, side] multiplies every block, and D makes the output of the
/// results. One block is the usual case (truncation, sharing); decoupling and rotation use
/// ceil(min(in, out) / side).
///
/// A compressor is a small value type: a handful of integers, or a table that copies share. Both
/// functions treat one token; the spans have exactly in_features() and blocks() * side() numbers
/// and never overlap. They must be const, thread-safe and free of allocations.
///
/// - `apply(x, z)`: z = C x, every entry written.
/// - `add_adjoint(z, x)`: x += C^T z. That it is the adjoint of `apply`, <C x, z> = <x, C^T z>,
///   is what makes gradients and the merged weight right; the tests check it for the operators of
///   tests/support/operators.hpp, a line each, and for yours if you add it.
///
/// More members make merging and passes fast, and may be missing:
/// - `add_block_adjoint(block, z, x)`: x += C_block^T z for one block, z of side() numbers.
/// - `first_input(block)`, `turn(block, z, to)` and `turn_back(block, z, to)`: where block i of C x
///   is a square matrix R_i times the side() inputs from first_input(i) on, beginning again at 0
///   behind the last one; to = R_i z, and to = R_i^T z. Passes over many tokens and gradients then
///   do without C x. All blocks have side() numbers; `to` does not overlap z.
/// - `gain()`: an upper bound of sum_p |C(p, j)| over all inputs j.
template <class C, class T>
concept Compressor = std::copyable<C> &&
    requires(const C c, std::span<const T> in, std::span<T> out) {
  { c.in_features() } -> std::same_as<Index>;
  { c.side() } -> std::same_as<Index>;
  { c.blocks() } -> std::same_as<Index>;
  c.apply(in, out);
  c.add_adjoint(in, out);
};

/// What MoRA needs of D: R^(blocks * side) -> R^out, under the same rules.
///
/// - `add(z, y)`: y += D z. (Added, so that the update needs no memory of its own.)
/// - `apply_adjoint(y, z)`: z = D^T y, every entry written.
///
/// Two more members make merging and passes fast, and may be missing:
/// - `for_each_source(output, f)`: calls f(p) for every entry p of z that D adds to that output,
///   where D consists of zeros and ones.
/// - `gain()`: an upper bound of sum_p |D(i, p)| over all outputs i.
template <class D, class T>
concept Decompressor = std::copyable<D> &&
    requires(const D d, std::span<const T> in, std::span<T> out) {
  { d.out_features() } -> std::same_as<Index>;
  { d.side() } -> std::same_as<Index>;
  { d.blocks() } -> std::same_as<Index>;
  d.add(in, out);
  d.apply_adjoint(in, out);
};

namespace detail {

/// The number of features, once it and the other sizes are known to be at least 1: the operators'
/// constructors throw ArgumentError naming the one that is not, or blocks whose numbers cannot be
/// counted.
[[nodiscard]] inline Index checked_features(Index features, Index side, Index blocks = 1) {
  require_at_least<Index>("features", 1, features);
  require_at_least<Index>("side", 1, side);
  require_at_least<Index>("blocks", 1, blocks);
  constexpr Index most = std::numeric_limits<Index>::max();
  if (blocks > most / side) {
    throw ArgumentError(
        concat("blocks * side: expected at most ", most, ", found ", blocks, " * ", side));
  }
  return features;
}

/// Whether every block of C is a square matrix times inputs that follow one another.
template <class C, class T>
concept HasWindows = requires(const C& c, std::span<const T> z, std::span<T> to) {
  c.first_input(Index{0});
  c.turn(Index{0}, z, to);
  c.turn_back(Index{0}, z, to);
};

/// Calls f(input, from, count) for the inputs that a block reads: those from `input` on are its own
/// from `from` on.
template <class C, class F>
void for_each_window(const C& compress, Index block, const F& f) {
  Index input = compress.first_input(block);
  for (Index from = 0; from < compress.side(); input = 0) {
    const Index count = std::min(compress.side() - from, compress.in_features() - input);
    f(input, from, count);
    from += count;
  }
}

/// ceil(features / side): the blocks that hold all features. Throws as checked_features does.
[[nodiscard]] inline Index blocks_of(Index features, Index side) {
  return (checked_features(features, side) - 1) / side + 1;
}

}  // namespace detail

/// A compressor and the decompressor that goes with it, for one layer's shape.
template <class C, class D>
struct OperatorPair {
  C compress;
  D decompress;
};
template <class C, class D>
OperatorPair(C, D) -> OperatorPair<C, D>;

/// How MoraLinear<T, Op> makes its pair: a value type, whose members are the operator's settings.
///
/// - `fit_side(side)`: the side that the operator can use, for one that the rank asks for (rotation
///   needs an even one); throws ArgumentError when there is none.
/// - `make(in, out, side)`: the pair for a layer of that shape.
template <class Op, class T>
concept MoraOperator = std::copyable<Op> && requires(const Op op, Index n) {
  { op.fit_side(n) } -> std::same_as<Index>;
  requires Compressor<decltype(op.make(n, n, n).compress), T>;
  requires Decompressor<decltype(op.make(n, n, n).decompress), T>;
};

/// The operator made of any compressor C, constructed as C(in, side), and any decompressor D,
/// constructed as D(out, side, blocks).
template <class C, class D>
struct Pair {
  bool operator==(const Pair&) const = default;
  [[nodiscard]] Index fit_side(Index side) const { return side; }
  [[nodiscard]] OperatorPair<C, D> make(Index in, Index out, Index side) const {
    C compress(in, side);
    D decompress(out, side, compress.blocks());
    return {compress, decompress};
  }
};

}  // namespace mora::inline MORA_ABI
