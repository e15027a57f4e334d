// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <span>

#include "mora/core/buffer.hpp"
#include "mora/core/matrix.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/scratch.hpp"
#include "mora/operators/concepts.hpp"

namespace mora::inline MORA_ABI::detail {

// What the scratch memory of a merge is for.
struct UnitVector;
struct SourceEntries;
struct BlockProducts;
struct ScaledRow;
struct SpreadRow;

/// The update s D(M C) of MoRA added to rows of W, for any pair of operators. A view: what it is
/// made of outlives it.
///
/// Row o of the update is s C^T(M^T applied to every block of D^T e_o), the backward pass for a
/// unit vector: for each entry of D^T e_o that is not zero (a source of the output) a row of M,
/// spread over the inputs by C^T of one block. The provided operators name the sources; where C^T
/// of a block is a fast pass of its own (add_block_adjoint), a row costs one pass over what changes
/// in it. Else spreading is what takes time, and each source is spread once for all its outputs
/// where that is possible.
template <class T, class C, class D>
class MoraMerge {
 public:
  struct Plan {
    /// Outputs of one source follow one another (adjacent groups): spread it when it is met.
    bool spread_once = false;
    /// Else s M C [side, in], all sources spread, if that is at most a tile. Or else empty.
    Buffer<T> spread = {};
  };

  MoraMerge(const C& compress, const D& decompress, const ConstMap<T>& m, T scale)
      : compress_(compress), decompress_(decompress), m_(m), scale_(scale) {}

  /// In the plan's memory where that is enough.
  void make(Plan& plan) const {
    (void)plan.spread.shape(0, 0);
    plan.spread_once = false;
    if (adds_blocks || compress_.blocks() != 1) return;
    plan.spread_once = neighbours_share_sources();
    if (plan.spread_once || side() > scratch_tile / in_features()) return;
    const MutableMap<T> rows = plan.spread.shape(side(), in_features());
    parallel_pieces(side(), 16, [&](Index first, Index count) {
      rows_of(rows, first, count).setZero();
      for (Index i = first; i < first + count; ++i) add_source({i, T(1)}, row_span(rows, i));
    });
  }

  /// Adds rows first ... of the update. On one thread; several may do it at once.
  void add_rows(const Plan& plan, Index first, MutableMap<T> rows) const {
    const ConstMap<T> spread = plan.spread.map();
    Source there;  // whose row is in working memory
    for (Index r = 0; r < rows.rows(); ++r) {
      for_each_source(first + r, [&](const Source& source) {
        // Adding zeros would turn -0 into +0.
        if (source.factor == T(0) || is_zero(source)) return;
        if (spread.size() != 0) {
          rows.row(r) += source.factor * spread.row(source.entry);
        } else if (plan.spread_once) {
          rows.row(r) += spread_row(source, there);
        } else {
          add_source(source, row_span(rows, r));
        }
      });
    }
  }

  /// Takes the calling thread's working memory, after which add_rows does not throw.
  void reserve() const {
    (void)scratch<T, ScaledRow>(side());
    if constexpr (!names_sources) {
      (void)scratch<T, UnitVector>(decompress_.out_features());
      (void)scratch<T, SourceEntries>(width());
    }
    if constexpr (!adds_blocks) {
      (void)scratch<T, BlockProducts>(width());
      (void)scratch<T, SpreadRow>(in_features());
    }
  }

 private:
  /// Which of the operators' optional members there are.
  static constexpr bool names_sources = requires(const D& d) {
    d.for_each_source(Index{0}, [](Index) {});
  };
  static constexpr bool adds_blocks = requires(const C& c, std::span<const T> z, std::span<T> x) {
    c.add_block_adjoint(Index{0}, z, x);
  };

  /// An entry of z that reaches an output, and by which factor.
  struct Source {
    Index entry = -1;
    T factor = T(0);
    bool operator==(const Source&) const = default;
  };

  [[nodiscard]] Index side() const { return compress_.side(); }
  [[nodiscard]] Index in_features() const { return compress_.in_features(); }
  [[nodiscard]] Index width() const { return compress_.blocks() * side(); }
  [[nodiscard]] bool is_zero(const Source& source) const {
    return (m_.row(source.entry % side()).array() * scale_ == T(0)).all();
  }

  /// Calls f(source) for each source of an output.
  template <class F>
  void for_each_source(Index output, const F& f) const {
    if constexpr (names_sources) {
      decompress_.for_each_source(output, [&](Index entry) { f(Source{entry, T(1)}); });
    } else {
      MutableMap<T> unit = scratch<T, UnitVector>(1, decompress_.out_features());
      MutableMap<T> entries = scratch<T, SourceEntries>(1, width());
      unit.setZero();
      unit(0, output) = T(1);
      decompress_.apply_adjoint(row_span(as_const(unit), 0), row_span(entries, 0));
      for (Index p = 0; p < width(); ++p) {
        if (entries(0, p) != T(0)) f(Source{p, entries(0, p)});
      }
    }
  }

  [[nodiscard]] bool neighbours_share_sources() const {
    if constexpr (!names_sources) return false;
    Index changes = 0;
    Index last = -1;
    for (Index o = 0; o < decompress_.out_features(); ++o) {
      for_each_source(o, [&](const Source& source) {
        changes += source.entry != last;
        last = source.entry;
      });
    }
    return changes <= side();
  }

  /// x += C^T of the source's block, of s * factor * its row of M.
  void add_source(const Source& source, std::span<T> x) const {
    const Index block = source.entry / side();
    const T* const from = m_.data() + source.entry % side() * m_.outerStride();
    const T factor = source.factor * scale_;
    MutableMap<T> row = scratch<T, ScaledRow>(1, side());
    for (Index j = 0; j < side(); ++j) row(0, j) = factor * from[j];
    if constexpr (adds_blocks) {
      compress_.add_block_adjoint(block, row_span(as_const(row), 0), x);
    } else {
      MutableMap<T> all = scratch<T, BlockProducts>(1, width());
      all.setZero();
      std::copy_n(row.data(), side(), all.data() + block * side());
      compress_.add_adjoint(row_span(as_const(all), 0), x);
    }
  }

  [[nodiscard]] MutableMap<T> spread_row(const Source& source, Source& there) const {
    MutableMap<T> row = scratch<T, SpreadRow>(1, in_features());
    if (source == there) return row;
    row.setZero();
    add_source(source, row_span(row, 0));
    there = source;
    return row;
  }

  const C& compress_;
  const D& decompress_;
  ConstMap<T> m_;
  T scale_;
};

}  // namespace mora::inline MORA_ABI::detail
