// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/adapters/lora.hpp"
#include "mora/adapters/merging.hpp"
#include "mora/core/elementwise.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

// What the scratch memory of a HiRA adapter is for.
struct PassPlan;
struct FactorRows;
struct UpdateTile;
struct WeightGradient;
struct GradientRows;

}  // namespace detail

/// Settings of a HiRA adapter; the defaults are PEFT's.
struct HiraSettings {
  Index rank = 32;                            ///< r, 1 ... max_rank.
  LoraInit init = LoraInit::kaiming_uniform;  ///< Of A; B is zero.

  /// Throws ArgumentError for a rank out of range.
  void validate() const { detail::require_rank(rank); }
};

/// HiRA (Huang et al. 2025, ICLR, "HiRA: Parameter-Efficient Hadamard High-Rank Adaptation"): the
/// update W o (B A), entry by entry, with A [r, in] and B [out, r]: LoRA's parameters, and a rank
/// of up to r times that of W.
///
/// Gradients: with G = W o (dy^T x), dB = G A^T, dA = B^T G, dx = dy (W + W o (B A)). Nothing of
/// the update is a product of thin matrices, so that a pass needs W + W o (B A) itself; it is made
/// a few rows at a time, for r in out multiply-adds. Cost a token: in out multiply-adds forward on
/// top of the frozen layer's, backward as many again for dx and for the gradients.
template <Real T>
class HiraAdapter {
 public:
  using Scalar = T;
  using Settings = HiraSettings;
  struct Saved {};
  static constexpr bool saves_input = true;
  static constexpr bool additive = false;

  /// A random, B zero. Throws as LoraAdapter does.
  template <Generator64 G>
  HiraAdapter(const FrozenLinear<T>& base, const Settings& settings, G& generator)
      : factors_(base,
                 {.rank = settings.rank, .alpha = double(settings.rank), .init = settings.init},
                 generator) {}
  /// With A [r, in] and B [out, r] of the caller's. Throws ShapeError where they do not fit.
  HiraAdapter(Matrix<T> a, Matrix<T> b) : factors_(factors(std::move(a), std::move(b))) {}
  HiraAdapter(const HiraAdapter&) = default;
  HiraAdapter(HiraAdapter&&) = default;
  HiraAdapter& operator=(const HiraAdapter& other) { return *this = HiraAdapter(other); }
  HiraAdapter& operator=(HiraAdapter&&) = default;
  ~HiraAdapter() = default;

  [[nodiscard]] Settings settings() const {
    return {.rank = factors_.settings().rank, .init = factors_.settings().init};
  }
  [[nodiscard]] Index in_features() const { return factors_.in_features(); }
  [[nodiscard]] Index out_features() const { return factors_.out_features(); }
  [[nodiscard]] const Parameter<T>& a() const { return factors_.a(); }
  [[nodiscard]] Parameter<T>& a() { return factors_.a(); }
  [[nodiscard]] const Parameter<T>& b() const { return factors_.b(); }
  [[nodiscard]] Parameter<T>& b() { return factors_.b(); }

  template <class F>
  void visit_parameters(F&& f) {
    factors_.visit_parameters(std::forward<F>(f));
  }
  template <class F>
  void visit_parameters(F&& f) const {
    factors_.visit_parameters(std::forward<F>(f));
  }

  [[nodiscard]] std::vector<std::string> warnings() const { return factors_.warnings(); }
  void require_shapes() const { factors_.require_shapes(); }

  void add_forward(const FrozenLinear<T>& base, const ConstMap<T>& x, MutableMap<T> y,
                   Saved*) const {
    detail::add_frozen_forward(base, x, y);
    // A fresh B changes nothing, whatever x is: zero times infinity would.
    if (detail::is_zero(detail::map_of(b().value))) return;
    const auto& plan = detail::kept_plan<detail::PassPlan>(*this);
    if (plan.finite && plan.zero) return;
    for_each_update(plan, base, [&](Index first, const ConstMap<T>& rows) {
      detail::add_product<detail::Operand::plain, detail::Operand::transposed, T>(
          detail::columns_of(y, first, rows.rows()), T(1), x, rows);
    });
  }

  void add_backward(const FrozenLinear<T>& base, const ConstMap<T>& x, const ConstMap<T>& dy,
                    const Saved&, MutableMap<T>* dx) {
    const MutableMap<T> da = detail::gradient_of(a());
    const MutableMap<T> db = detail::gradient_of(b());
    const Index in = in_features();
    const Index rank = factors_.settings().rank;
    // All memory first: running out of it must not leave a gradient of some rows.
    const auto& plan = detail::kept_plan<detail::PassPlan>(*this);
    for_each_chunk([&](Index, Index count) {
      (void)detail::scratch<T, detail::WeightGradient>(count, in);
      (void)detail::scratch<T, detail::GradientRows>(count, in);
      detail::reserve_product<T>(dy.rows(), in, count);
      detail::reserve_product<T>(count, in, dy.rows());
      detail::reserve_product<T>(count, rank, in);
      detail::reserve_product<T>(rank, in, count);
    });
    if (dx) {
      detail::add_frozen_backward(base, dy, *dx);
      for_each_update(plan, base, [&](Index first, const ConstMap<T>& rows) {
        detail::add_product<detail::Operand::plain, detail::Operand::plain, T>(
            *dx, T(1), detail::columns_of(dy, first, rows.rows()), rows);
      });
    }
    for_each_chunk([&](Index first, Index count) {
      MutableMap<T> g = detail::scratch<T, detail::WeightGradient>(count, in);
      g.setZero();
      detail::add_product<detail::Operand::transposed, detail::Operand::plain, T>(
          g, T(1), detail::columns_of(dy, first, count), x);
      MutableMap<T> w = detail::scratch<T, detail::GradientRows>(count, in);
      detail::FrozenAccess::read_rows(base, first, w);
      g.array() *= w.array();
      detail::add_product<detail::Operand::plain, detail::Operand::transposed, T>(
          detail::rows_of(db, first, count), T(1), detail::as_const(g),
          detail::map_of(std::as_const(a().value)));
      detail::add_product<detail::Operand::transposed, detail::Operand::plain, T>(
          da, T(1), detail::rows_of(detail::map_of(std::as_const(b().value)), first, count),
          detail::as_const(g));
    });
  }

  /// A packed, r * in numbers.
  using MergePlan = typename LoraAdapter<T>::MergePlan;
  void plan_merge(MergePlan& plan) const { factors_.plan_merge(plan); }
  [[nodiscard]] MergePlan plan_merge() const { return factors_.plan_merge(); }
  void merge_rows(const MergePlan& plan, Index first, MutableMap<T> rows) const {
    const Index chunk = detail::weight_chunk(in_features());
    for (Index start = 0; start < rows.rows(); start += chunk) {
      const Index count = std::min(chunk, rows.rows() - start);
      detail::rows_of(rows, start, count).array() *=
          T(1) + factor_rows(plan, first + start, count).array();
    }
  }
  void reserve_merge() const {
    (void)detail::scratch<T, detail::FactorRows>(detail::weight_chunk(in_features()),
                                                 in_features());
  }
  [[nodiscard]] double update_bound() const { return std::numeric_limits<double>::infinity(); }

 private:
  static LoraAdapter<T> factors(Matrix<T> a, Matrix<T> b) {
    const Index rank = a.rows();
    return {std::move(a), std::move(b), {.rank = rank, .alpha = static_cast<double>(rank)}};
  }

  /// Whether a row of B A is zero, so that W's stays, infinite numbers among it.
  [[nodiscard]] bool is_zero(const MergePlan& plan, Index row) const {
    return plan.finite && (plan.zero || (b().value.row(row).array() == T(0)).all());
  }
  /// Rows of B A, in this thread's working memory.
  [[nodiscard]] MutableMap<T> factor_rows(const MergePlan& plan, Index first, Index count) const {
    MutableMap<T> rows = detail::scratch<T, detail::FactorRows>(count, in_features());
    rows.setZero();
    factors_.merge_rows(plan, first, rows);
    return rows;
  }

  /// A tile of rows at a time.
  template <class F>
  void for_each_chunk(const F& f) const {
    detail::for_each_tile(out_features(), in_features(), f);
  }
  /// Calls f(first, rows) with rows of W o (B A), a tile at a time.
  template <class F>
  void for_each_update(const MergePlan& plan, const FrozenLinear<T>& base, const F& f) const {
    for_each_chunk([&](Index first, Index count) {
      MutableMap<T> tile = detail::scratch<T, detail::UpdateTile>(count, in_features());
      const auto make_rows = [&](Index row, Index number) {
        MutableMap<T> rows = detail::rows_of(tile, row, number);
        detail::FrozenAccess::read_rows(base, first + row, rows);
        const MutableMap<T> factors = factor_rows(plan, first + row, number);
        for (Index r = 0; r < number; ++r) {
          if (is_zero(plan, first + row + r)) {
            rows.row(r).setZero();
          } else {
            rows.row(r).array() *= factors.row(r).array();
          }
        }
      };
      detail::parallel_pieces(
          count, detail::weight_chunk(in_features()), [&] { reserve_merge(); }, make_rows);
      f(first, detail::as_const(tile));
    });
  }

  LoraAdapter<T> factors_;  // of scale 1
};

template <class T>
struct AdapterTraits<T, HiraSettings> {
  using Type = HiraAdapter<T>;
};

}  // namespace mora::inline MORA_ABI
