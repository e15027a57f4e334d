// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/adapters/concepts.hpp"
#include "mora/adapters/side.hpp"
#include "mora/core/buffer.hpp"
#include "mora/core/elementwise.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/parameter.hpp"
#include "mora/core/product.hpp"
#include "mora/core/scratch.hpp"
#include "mora/operators/grouping.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

// What the scratch memory of a MiSS adapter is for.
struct GroupSums;

}  // namespace detail

/// Settings of a MiSS adapter.
struct MissSettings {
  Index rank = 64;  ///< r, 1 ... max_rank: how many sums x is folded into; PEFT's default.

  /// Throws ArgumentError for a rank out of range.
  void validate() const { detail::require_rank(rank); }
};

/// MiSS (Kang and Yin 2024, arXiv 2409.15371; PEFT's default variant): the update D^T S, where S
/// sums the inputs whose indices are equal modulo r, without parameters, and D [r, out] is
/// trainable and zero at the start. It is sharing's compressor with a matrix that goes to all
/// outputs: r out parameters, rank r at most.
///
/// Gradients: dD = (S x)^T dy, dx = dy W + S^T D dy; so a backward pass needs S x alone, not x.
/// Cost a token: r out multiply-adds and a pass over x.
template <Real T>
class MissAdapter {
 public:
  using Scalar = T;
  using Settings = MissSettings;
  struct Saved {
    detail::Buffer<T> sums;  // S x [tokens, r]
    Index in_features = 0;   // of the layer that it is from, which the sums do not show
  };
  static constexpr bool saves_input = false;
  static constexpr bool additive = true;

  /// D zero. Throws ArgumentError for a rank out of range, ShapeError for features below 1 or
  /// numbers beyond memory.
  MissAdapter(Index in_features, Index out_features, const Settings& settings = {})
      : groups_(checked(in_features, out_features, settings)) {
    d_.value.setZero(settings.rank, out_features);
  }
  explicit MissAdapter(const FrozenLinear<T>& base, const Settings& settings = {})
      : MissAdapter(base.in_features(), base.out_features(), settings) {}
  /// With D [r, out] of the caller's. Throws as above.
  MissAdapter(Index in_features, Matrix<T> d)
      : groups_(checked(in_features, d.cols(), {.rank = d.rows()})) {
    d_.value = std::move(d);
  }
  MissAdapter(const MissAdapter&) = default;
  MissAdapter(MissAdapter&&) = default;
  MissAdapter& operator=(const MissAdapter& other) { return *this = MissAdapter(other); }
  MissAdapter& operator=(MissAdapter&&) = default;
  ~MissAdapter() = default;

  [[nodiscard]] Settings settings() const { return {.rank = rank()}; }
  [[nodiscard]] Index in_features() const { return groups_.features(); }
  [[nodiscard]] Index out_features() const { return d_.value.cols(); }
  /// D [r, out] and its gradient.
  [[nodiscard]] const Parameter<T>& matrix() const { return d_; }
  [[nodiscard]] Parameter<T>& matrix() { return d_; }

  template <class F>
  void visit_parameters(F&& f) {
    f(std::string_view("D"), d_);
  }
  template <class F>
  void visit_parameters(F&& f) const {
    f(std::string_view("D"), d_);
  }

  [[nodiscard]] std::vector<std::string> warnings() const {
    if (rank() <= in_features()) return {};
    return {detail::concat("rank ", rank(), " exceeds in_features = ", in_features(),
                           ": a smaller one has the same effect")};
  }
  void require_shapes() const { detail::require_size("D, rows (rank)", rank(), d_.value.rows()); }

  void add_forward(const ConstMap<T>& x, MutableMap<T> y, Saved* saved) const {
    if (saved) save(x, *saved);
    // A fresh D changes nothing, whatever x is: zero times infinity would.
    if (detail::is_zero(detail::map_of(d_.value))) return;
    detail::for_each_tile(x.rows(), rank(), [&](Index first, Index count) {
      MutableMap<T> z = saved ? detail::rows_of(saved->sums.map(), first, count)
                              : detail::scratch<T, detail::GroupSums>(count, rank());
      if (!saved) sum_groups(detail::rows_of(x, first, count), z);
      detail::add_product<detail::Operand::plain, detail::Operand::plain, T>(
          detail::rows_of(y, first, count), T(1), detail::as_const(z), detail::map_of(d_.value));
    });
  }

  void save(const ConstMap<T>& x, Saved& saved) const {
    saved.in_features = in_features();
    sum_groups(x, saved.sums.shape(x.rows(), rank()));
  }
  void require_saved(const Saved& saved) const {
    detail::require_size("backward, columns of the saved sums (rank)", rank(), saved.sums.cols());
    detail::require_size("backward, columns of the saved x (in_features)", in_features(),
                         saved.in_features);
  }
  void add_backward(const ConstMap<T>& /*x*/, const ConstMap<T>& dy, const Saved& saved,
                    MutableMap<T>* dx) {
    const MutableMap<T> dd = detail::gradient_of(d_);
    // All memory first: running out of it must not leave a gradient of some tokens.
    detail::reserve_product<T>(rank(), out_features(), dy.rows());
    if (dx) {
      detail::for_each_tile(dy.rows(), rank(), [&](Index first, Index count) {
        MutableMap<T> g = detail::scratch<T, detail::GroupSums>(count, rank());
        g.setZero();
        detail::add_product<detail::Operand::plain, detail::Operand::transposed, T>(
            g, T(1), detail::rows_of(dy, first, count), detail::map_of(std::as_const(d_.value)));
        detail::for_each_row(count, in_features(), [&](Index t) {
          groups_.add_spread(detail::row_span(detail::as_const(g), t),
                             detail::row_span(*dx, first + t));
        });
      });
    }
    detail::add_product<detail::Operand::transposed, detail::Operand::plain, T>(
        dd, T(1), saved.sums.map(), dy);
  }

  /// D^T, r * out in numbers.
  using MergePlan = detail::Buffer<T>;
  void plan_merge(MergePlan& plan) const {
    plan.shape(out_features(), rank()) = d_.value.transpose();
  }
  [[nodiscard]] MergePlan plan_merge() const {
    MergePlan plan;
    plan_merge(plan);
    return plan;
  }
  void merge_rows(const MergePlan& plan, Index first, MutableMap<T> rows) const {
    const ConstMap<T> sums = plan.map();
    for (Index r = 0; r < rows.rows(); ++r) {
      // Adding zeros would turn -0 into +0.
      if ((sums.row(first + r).array() == T(0)).all()) continue;
      groups_.add_spread(detail::row_span(sums, first + r), detail::row_span(rows, r));
    }
  }
  [[nodiscard]] double update_bound() const { return detail::largest_magnitude(d_.value); }

 private:
  static StridedGroups checked(Index in, Index out, const Settings& settings) {
    settings.validate();
    detail::require_features(in, out);
    detail::require_features(settings.rank, out);
    return {in, settings.rank};
  }
  [[nodiscard]] Index rank() const { return groups_.groups(); }
  void sum_groups(const ConstMap<T>& x, MutableMap<T> z) const {
    detail::for_each_row(x.rows(), in_features(), [&](Index t) {
      groups_.sum(detail::row_span(x, t), detail::row_span(z, t));
    });
  }

  StridedGroups groups_;
  Parameter<T> d_;
};

template <class T>
struct AdapterTraits<T, MissSettings> {
  using Type = MissAdapter<T>;
};

}  // namespace mora::inline MORA_ABI
