// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <span>
#include <tuple>
#include <vector>

#include "mora/operators/grouping.hpp"

namespace mora::inline MORA_ABI {

/// C of decoupling (paper, Eq. 8): x cut into ceil(in / side) blocks, the last one filled up with
/// x's own first entries (x[p mod in]), as the reference does for rotation. Of these the first
/// `at_most`: those that D uses.
class Blocks {
 public:
  /// Throws ArgumentError for sizes below 1, or blocks whose numbers cannot be counted.
  Blocks(Index in, Index side, Index at_most = std::numeric_limits<Index>::max())
      : in_(in), side_(side), blocks_(std::min(detail::blocks_of(in, side), at_most)) {
    (void)detail::checked_features(in_, side_, blocks_);
  }
  [[nodiscard]] Index in_features() const { return in_; }
  [[nodiscard]] Index side() const { return side_; }
  [[nodiscard]] Index blocks() const { return blocks_; }

  template <class T>
  void apply(std::span<const T> x, std::span<T> z) const {
    std::copy_n(x.begin(), whole(), z.begin());
    for (Index p = in_; p < side_ * blocks_; ++p) z[p] = z[p - in_];
  }
  template <class T>
  void add_adjoint(std::span<const T> z, std::span<T> x) const {
    for (Index i = 0; i < whole(); ++i) x[i] += z[i];
    for (Index p = in_; p < side_ * blocks_; ++p) x[p % in_] += z[p];
  }
  [[nodiscard]] Index first_input(Index block) const { return block * side_; }
  template <class T>
  void turn(Index /*block*/, std::span<const T> z, std::span<T> to) const {
    std::copy_n(z.begin(), side_, to.begin());
  }
  template <class T>
  void turn_back(Index block, std::span<const T> z, std::span<T> to) const {
    turn(block, z, to);
  }
  template <class T>
  void add_block_adjoint(Index block, std::span<const T> z, std::span<T> x) const {
    const Index first = block * side_;
    const Index whole = std::min(side_, in_ - first);
    for (Index i = 0; i < whole; ++i) x[first + i] += z[i];
    for (Index i = whole; i < side_; ++i) x[(first + i) % in_] += z[i];
  }
  /// Once, and once more for every turn of the wrapping.
  [[nodiscard]] double gain() const { return 2.0 + double(side_) / double(in_); }

 private:
  /// Entries of z that are x's own, in their place.
  [[nodiscard]] Index whole() const { return std::min(in_, side_ * blocks_); }
  Index in_;
  Index side_;
  Index blocks_;
};

/// C of rotation (paper, Eqs. 9 to 11): the blocks of decoupling, block i (from 0) turned by R(i),
/// RoPE's rotation at position i: entries j and j + side / 2 by the angle i * base^(-2j / side).
/// So the blocks, which share one M, meet it from different sides, and Delta W = M R(i) in block i.
/// The side is even. The table holds blocks * side / 2 sines and cosines; copies share it.
class RotatedBlocks {
 public:
  /// Throws ArgumentError as Blocks does, for an odd side, unless 0 < base < infinity, and for a
  /// base so small that an angle is beyond double.
  RotatedBlocks(Index in, Index side, double base = 10000.0,
                Index at_most = std::numeric_limits<Index>::max())
      : blocks_(in, side, at_most),
        tables_(std::make_shared<const Tables>(make_tables(blocks_, base))) {}
  [[nodiscard]] Index in_features() const { return blocks_.in_features(); }
  [[nodiscard]] Index side() const { return blocks_.side(); }
  [[nodiscard]] Index blocks() const { return blocks_.blocks(); }

  template <class T>
  void apply(std::span<const T> x, std::span<T> z) const {
    const Index side = blocks_.side();
    // The blocks without wrapped entries.
    const Index whole = std::min(blocks_.in_features() / side, blocks_.blocks());
    for (Index block = 0; block < whole; ++block) {
      rotate(block, x.data() + block * side, z.data() + block * side);
    }
    if (whole == blocks_.blocks()) return;
    T* const last = z.data() + whole * side;
    const Index in = blocks_.in_features();
    const Index left = in - whole * side;
    std::copy_n(x.data() + whole * side, left, last);
    for (Index i = left; i < side; ++i) last[i] = x[(i - left) % in];
    rotate(whole, last, last);
  }
  template <class T>
  void add_adjoint(std::span<const T> z, std::span<T> x) const {
    const auto side = static_cast<std::size_t>(blocks_.side());
    for (Index block = 0; block < blocks_.blocks(); ++block) {
      add_block_adjoint(block, z.subspan(static_cast<std::size_t>(block) * side, side), x);
    }
  }
  [[nodiscard]] Index first_input(Index block) const { return blocks_.first_input(block); }
  template <class T>
  void turn(Index block, std::span<const T> z, std::span<T> to) const {
    rotate(block, z.data(), to.data());
  }
  template <class T>
  void turn_back(Index block, std::span<const T> z, std::span<T> to) const {
    rotate<true>(block, z.data(), to.data());
  }
  template <class T>
  void add_block_adjoint(Index block, std::span<const T> z, std::span<T> x) const {
    const Index half = blocks_.side() / 2;
    const Index in = blocks_.in_features();
    const Index start = block * blocks_.side();
    const Table<T>& table = std::get<Table<T>>(*tables_);
    const T* const c = table.cosine.data() + block * half;
    const T* const s = table.sine.data() + block * half;
    const T* const first = z.data();
    const T* const second = first + half;
    if (start + blocks_.side() <= in) {
      T* const to = x.data() + start;
      for (Index j = 0; j < half; ++j) to[j] += first[j] * c[j] + second[j] * s[j];
      for (Index j = 0; j < half; ++j) to[j + half] += second[j] * c[j] - first[j] * s[j];
    } else {
      for (Index j = 0; j < half; ++j) {
        x[(start + j) % in] += first[j] * c[j] + second[j] * s[j];
        x[(start + j + half) % in] += second[j] * c[j] - first[j] * s[j];
      }
    }
  }
  /// As for Blocks, times |cos| + |sin|.
  [[nodiscard]] double gain() const { return 1.5 * blocks_.gain(); }

 private:
  template <class T>
  struct Table {
    std::vector<T> cosine;  // [blocks, side / 2]
    std::vector<T> sine;
  };
  using Tables = std::tuple<Table<float>, Table<double>>;

  static Tables make_tables(const Blocks& blocks, double base) {
    if (blocks.side() % 2 != 0) {
      throw ArgumentError(detail::concat("rotation: expected an even side, found ", blocks.side()));
    }
    if (!(base > 0.0 && std::isfinite(base))) {
      throw ArgumentError(detail::concat("base: expected a finite positive number, found ", base));
    }
    Tables tables;
    auto& [single, exact] = tables;
    const Index half = blocks.side() / 2;
    for (Index block = 0; block < blocks.blocks(); ++block) {
      for (Index j = 0; j < half; ++j) {
        const double frequency =
            std::pow(base, -2.0 * static_cast<double>(j) / static_cast<double>(blocks.side()));
        const double angle = static_cast<double>(block) * frequency;
        if (!std::isfinite(angle)) {
          throw ArgumentError(detail::concat("base: expected finite angles, found ", angle,
                                             " with a base of ", base));
        }
        exact.cosine.push_back(std::cos(angle));
        exact.sine.push_back(std::sin(angle));
      }
    }
    single.cosine.assign(exact.cosine.begin(), exact.cosine.end());
    single.sine.assign(exact.sine.begin(), exact.sine.end());
    return tables;
  }

  // to may be from.
  template <bool backwards = false, class T>
  void rotate(Index block, const T* from, T* to) const {
    const Table<T>& table = std::get<Table<T>>(*tables_);
    const Index half = blocks_.side() / 2;
    const T* const c = table.cosine.data() + block * half;
    const T* const s = table.sine.data() + block * half;
    for (Index j = 0; j < half; ++j) {
      const T first = from[j];
      const T second = from[j + half];
      const T turn = backwards ? -s[j] : s[j];
      to[j] = first * c[j] - second * turn;
      to[j + half] = second * c[j] + first * turn;
    }
  }

  Blocks blocks_;
  std::shared_ptr<const Tables> tables_;
};

/// D that adds blocks beyond the output onto it: with b = ceil(out / side) places, block i goes to
/// place i mod b. With fewer blocks than places they start again, as the reference's do.
class FoldedBlocks {
 public:
  /// Throws ArgumentError for sizes below 1, or blocks whose numbers cannot be counted.
  FoldedBlocks(Index out, Index side, Index blocks)
      : out_(detail::checked_features(out, side, blocks)), side_(side), blocks_(blocks) {}
  [[nodiscard]] Index out_features() const { return out_; }
  [[nodiscard]] Index side() const { return side_; }
  [[nodiscard]] Index blocks() const { return blocks_; }

  template <class T>
  void add(std::span<const T> z, std::span<T> y) const {
    for_each_place([&](Index from, Index to, Index count) {
      for (Index i = 0; i < count; ++i) y[to + i] += z[from + i];
    });
  }
  template <class T>
  void apply_adjoint(std::span<const T> y, std::span<T> z) const {
    std::fill(z.begin(), z.end(), T(0));
    for_each_place([&](Index from, Index to, Index count) {
      for (Index i = 0; i < count; ++i) z[from + i] += y[to + i];
    });
  }
  template <class F>
  void for_each_source(Index output, const F& f) const {
    const Index places = (out_ - 1) / side_ + 1;
    const Index place = output / side_;
    for (Index turn = place; turn < std::max(places, blocks_); turn += places) {
      f(turn % blocks_ * side_ + output % side_);
    }
  }
  [[nodiscard]] double gain() const { return 1.0 + double(blocks_ * side_) / double(out_); }

 private:
  template <class F>
  void for_each_place(const F& f) const {
    const Index places = (out_ - 1) / side_ + 1;
    for (Index turn = 0; turn < std::max(places, blocks_); ++turn) {
      const Index place = turn % places;
      f(turn % blocks_ * side_, place * side_, std::min(side_, out_ - place * side_));
    }
  }
  Index out_;
  Index side_;
  Index blocks_;
};

namespace detail {

[[nodiscard]] inline Index even_side(Index side) {
  if (side < 2) {
    throw ArgumentError(
        concat("rotation: needs a side of at least 2, found ", side, "; raise the rank"));
  }
  return side - side % 2;
}

}  // namespace detail

/// Decoupling (paper, Eq. 8): Delta W is block diagonal with the same M in every block. Where
/// in > out there are no blocks beyond the output, as in Rotation. Rank up to min(in, out) for
/// blocks * side^2 multiply-adds a token, about min(in, out) * side.
struct Decoupling {
  bool operator==(const Decoupling&) const = default;
  [[nodiscard]] Index fit_side(Index side) const { return side; }
  [[nodiscard]] OperatorPair<Blocks, GroupSpread<StridedGroups>> make(Index in, Index out,
                                                                      Index side) const {
    const Blocks compress(in, side, detail::blocks_of(out, side));
    return {compress, GroupSpread<StridedGroups>(out, side, compress.blocks())};
  }
};

/// Rotation exactly as the reference's type 6 computes it; the paper's choice. Paper, Eqs. 9 to 11.
/// Where in > out the reference drops the blocks beyond the output; here they are not computed, so
/// the cost is about min(in, out) * side multiply-adds a token. Their inputs are never read: at
/// 11008 -> 4096, r = 8, 6,856 of 11,008 (6,832 with the reference's rounding). CoveringRotation
/// reads all of them, for in * side.
struct Rotation {
  bool operator==(const Rotation&) const = default;
  double base = 10000.0;  ///< RoPE's base, > 0.

  [[nodiscard]] Index fit_side(Index side) const { return detail::even_side(side); }
  [[nodiscard]] OperatorPair<RotatedBlocks, GroupSpread<StridedGroups>> make(Index in, Index out,
                                                                             Index side) const {
    RotatedBlocks compress(in, side, base, detail::blocks_of(out, side));
    return {compress, GroupSpread<StridedGroups>(out, side, compress.blocks())};
  }
};

/// Rotation that lets every input count: blocks beyond the output are added onto it. The same as
/// Rotation where in <= out. Not in the paper.
struct CoveringRotation {
  bool operator==(const CoveringRotation&) const = default;
  double base = 10000.0;  ///< RoPE's base, > 0.

  [[nodiscard]] Index fit_side(Index side) const { return detail::even_side(side); }
  [[nodiscard]] OperatorPair<RotatedBlocks, FoldedBlocks> make(Index in, Index out,
                                                               Index side) const {
    RotatedBlocks compress(in, side, base);
    return {compress, FoldedBlocks(out, side, compress.blocks())};
  }
};

}  // namespace mora::inline MORA_ABI
