// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/adapters/concepts.hpp"
#include "mora/core/buffer.hpp"
#include "mora/core/elementwise.hpp"
#include "mora/core/narrow_product.hpp"
#include "mora/core/parameter.hpp"
#include "mora/core/product.hpp"
#include "mora/core/random.hpp"
#include "mora/core/scratch.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

// What scratch memory is for.
struct LowRank;

}  // namespace detail

/// What LoRA's update is multiplied with.
enum class LoraScaling {
  standard,         ///< alpha / r (Hu et al. 2021).
  rank_stabilized,  ///< alpha / sqrt(r) (rsLoRA, Kalajdzievski 2023).
};

/// How A starts; B is zero.
enum class LoraInit {
  kaiming_uniform,  ///< Uniform within 1 / sqrt(in): PEFT's default, Kaiming with a = sqrt(5).
  gaussian,         ///< Normal with deviation 1 / r: PEFT's "gaussian".
  orthonormal,      ///< Orthonormal rows of random directions, for r <= in: AsyLoRA's.
};

/// Settings of a LoRA adapter; the defaults are PEFT's.
struct LoraSettings {
  Index rank = 8;      ///< r, 1 ... max_rank.
  double alpha = 8.0;  ///< Finite.
  LoraScaling scaling = LoraScaling::standard;
  LoraInit init = LoraInit::kaiming_uniform;
  /// Without it A stays as it starts and is no parameter, and its gradient is not computed. AsyLoRA
  /// (Zhu et al. 2024, arXiv 2402.16842) is that with orthonormal rows.
  bool train_a = true;

  /// s in W + s B A.
  [[nodiscard]] double scale() const {
    const auto r = static_cast<double>(rank);
    return alpha / (scaling == LoraScaling::standard ? r : std::sqrt(r));
  }
  /// Throws ArgumentError naming the setting that is out of range.
  void validate() const {
    detail::require_rank(rank);
    if (!std::isfinite(alpha)) {
      throw ArgumentError(detail::concat("alpha: expected a finite number, found ", alpha));
    }
  }
};

/// LoRA (Hu et al. 2021, arXiv 2106.09685, Eq. 3): the update s B A with A [r, in] and B [out, r].
///
/// Gradients: dB = s dy^T (x A^T), dA = s (dy B)^T x, dx = dy W + s (dy B) A. Cost a token:
/// r (in + out) multiply-adds; the backward pass needs x.
template <Real T>
class LoraAdapter {
 public:
  using Scalar = T;
  using Settings = LoraSettings;
  struct Saved {
    detail::Buffer<T> low_rank;  // x A^T [tokens, r]
  };
  static constexpr bool saves_input = true;
  static constexpr bool additive = true;

  /// A random, B zero. Throws ArgumentError for settings out of range, also where alpha's scale is
  /// beyond T; ShapeError for features below 1 or numbers beyond memory, and for orthonormal rows
  /// that are more than the inputs.
  template <Generator64 G>
  LoraAdapter(Index in_features, Index out_features, const Settings& settings, G& generator)
      : settings_(checked(settings)) {
    detail::require_features(in_features, out_features);
    detail::require_features(in_features, settings.rank);
    detail::require_features(settings.rank, out_features);
    a_.value.resize(settings.rank, in_features);
    switch (settings.init) {
      case LoraInit::kaiming_uniform:
        fill_uniform(a_.value, 1.0 / std::sqrt(static_cast<double>(in_features)), generator);
        break;
      case LoraInit::gaussian:
        fill_normal(a_.value, 1.0 / static_cast<double>(settings.rank), generator);
        break;
      case LoraInit::orthonormal: fill_orthonormal_rows(a_.value, generator); break;
    }
    b_.value.setZero(out_features, settings.rank);
  }
  template <Generator64 G>
  LoraAdapter(const FrozenLinear<T>& base, const Settings& settings, G& generator)
      : LoraAdapter(base.in_features(), base.out_features(), settings, generator) {}
  /// With A [r, in] and B [out, r] of the caller's. Throws as above, and ShapeError for others.
  LoraAdapter(Matrix<T> a, Matrix<T> b, const Settings& settings) : settings_(checked(settings)) {
    detail::require_features(a.cols(), b.rows());
    detail::require_size("A, rows (rank)", settings.rank, a.rows());
    detail::require_size("B, columns (rank)", settings.rank, b.cols());
    a_.value = std::move(a);
    b_.value = std::move(b);
  }
  LoraAdapter(const LoraAdapter&) = default;
  LoraAdapter(LoraAdapter&&) = default;
  LoraAdapter& operator=(const LoraAdapter& other) { return *this = LoraAdapter(other); }
  LoraAdapter& operator=(LoraAdapter&&) = default;
  ~LoraAdapter() = default;

  [[nodiscard]] const Settings& settings() const { return settings_; }
  [[nodiscard]] Index in_features() const { return a_.value.cols(); }
  [[nodiscard]] Index out_features() const { return b_.value.rows(); }
  /// A [r, in] and B [out, r], with their gradients.
  [[nodiscard]] const Parameter<T>& a() const { return a_; }
  [[nodiscard]] Parameter<T>& a() { return a_; }
  [[nodiscard]] const Parameter<T>& b() const { return b_; }
  [[nodiscard]] Parameter<T>& b() { return b_; }

  /// Throws ArgumentError unless finite.
  void set_alpha(double alpha) {
    Settings changed = settings_;
    changed.alpha = alpha;
    settings_ = checked(changed);
  }

  template <class F>
  void visit_parameters(F&& f) {
    if (settings_.train_a) f(std::string_view("A"), a_);
    f(std::string_view("B"), b_);
  }
  template <class F>
  void visit_parameters(F&& f) const {
    if (settings_.train_a) f(std::string_view("A"), a_);
    f(std::string_view("B"), b_);
  }

  [[nodiscard]] std::vector<std::string> warnings() const {
    const Index useful = std::min(in_features(), out_features());
    if (settings_.rank <= useful) return {};
    return {detail::concat("rank ", settings_.rank, " exceeds min(in_features, out_features) = ",
                           useful, ": the update cannot have that rank")};
  }

  void require_shapes() const {
    detail::require_size("A, rows (rank)", rank(), a_.value.rows());
    detail::require_size("B, columns (rank)", rank(), b_.value.cols());
  }

  /// That a result does not lie over A, which may be no parameter.
  void require_disjoint(const char* what, const ConstMap<T>& result) const {
    detail::require_disjoint(what, result, detail::map_of(a_.value));
  }

  void add_forward(const ConstMap<T>& x, MutableMap<T> y, Saved* saved) const {
    if (saved) save(x, *saved);
    // A fresh B changes nothing, whatever x is: zero times infinity would.
    if (detail::is_zero(detail::map_of(b_.value))) return;
    detail::for_each_tile(x.rows(), rank(), [&](Index first, Index count) {
      MutableMap<T> z = saved ? detail::rows_of(saved->low_rank.map(), first, count)
                              : detail::scratch<T, detail::LowRank>(count, rank());
      if (!saved) to_low_rank(detail::rows_of(x, first, count), z);
      detail::add_product<detail::Operand::plain, detail::Operand::transposed, T>(
          detail::rows_of(y, first, count), scale(), detail::as_const(z), detail::map_of(b_.value));
    });
  }

  void save(const ConstMap<T>& x, Saved& saved) const {
    const MutableMap<T> z = saved.low_rank.shape(x.rows(), rank());
    detail::for_each_tile(x.rows(), rank(), [&](Index first, Index count) {
      to_low_rank(detail::rows_of(x, first, count), detail::rows_of(z, first, count));
    });
  }
  void require_saved(const Saved& saved) const {
    detail::require_size("backward, columns of the saved x A^T (rank)", rank(),
                         saved.low_rank.cols());
  }
  void add_backward(const ConstMap<T>& x, const ConstMap<T>& dy, const Saved& saved,
                    MutableMap<T>* dx) {
    if (settings_.train_a) (void)detail::gradient_of(a_);
    const MutableMap<T> db = detail::gradient_of(b_);
    // All memory first: running out of it must not leave one gradient changed and one not.
    detail::for_each_tile(dy.rows(), rank(), [&](Index, Index count) {
      (void)detail::scratch<T, detail::LowRank>(count, rank());
      detail::reserve_narrow_product<T>(count, rank(), out_features());
      detail::reserve_product<T>(count, in_features(), rank());
      detail::reserve_narrow_outer_product<T>(count, rank(), in_features());
      detail::reserve_narrow_outer_product<T>(count, rank(), out_features());
    });
    detail::for_each_tile(dy.rows(), rank(), [&](Index first, Index count) {
      const ConstMap<T> dy_tile = detail::rows_of(dy, first, count);
      MutableMap<T> g = detail::scratch<T, detail::LowRank>(count, rank());
      if (dx || settings_.train_a) {
        detail::narrow_product<detail::Operand::plain, T>(g, scale(), dy_tile,
                                                          detail::map_of(std::as_const(b_.value)));
      }
      if (dx) {
        detail::add_product<detail::Operand::plain, detail::Operand::plain, T>(
            detail::rows_of(*dx, first, count), T(1), detail::as_const(g),
            detail::map_of(std::as_const(a_.value)));
      }
      if (settings_.train_a) {
        detail::add_narrow_outer_product<detail::Operand::plain, T>(
            detail::map_of(a_.gradient), T(1), detail::as_const(g),
            detail::rows_of(x, first, count));
      }
      detail::add_narrow_outer_product<detail::Operand::transposed, T>(
          db, scale(), detail::rows_of(saved.low_rank.map(), first, count), dy_tile);
    });
  }

  /// A packed, r * in numbers.
  struct MergePlan {
    bool finite = false;
    bool zero = false;
    detail::PackedFactor<T> a;
  };
  void plan_merge(MergePlan& plan) const {
    plan.finite = detail::all_finite(a_.value) && detail::all_finite(b_.value);
    plan.zero = (a_.value.array() * scale() == T(0)).all();
    plan.a.pack(detail::map_of(a_.value));
  }
  [[nodiscard]] MergePlan plan_merge() const {
    MergePlan plan;
    plan_merge(plan);
    return plan;
  }
  void merge_rows(const MergePlan& plan, Index first, MutableMap<T> rows) const {
    // -0 + 0 would be +0. But 0 * NaN has to reach the check of what is merged.
    const auto zero_rows = [&] {
      return (b_.value.middleRows(first, rows.rows()).array() * scale() == T(0)).all();
    };
    if (plan.finite && (plan.zero || zero_rows())) return;
    plan.a.add_product(rows, scale(),
                       detail::rows_of(detail::map_of(b_.value), first, rows.rows()));
  }

  /// An upper bound of the update's entries, and of B A that it is computed from.
  [[nodiscard]] double update_bound() const {
    return std::max(1.0, std::abs(settings_.scale())) * static_cast<double>(settings_.rank) *
           detail::largest_magnitude(a_.value) * detail::largest_magnitude(b_.value);
  }

 private:
  static const Settings& checked(const Settings& settings) {
    settings.validate();
    detail::require_factor<T>("alpha, as the scale", settings.scale());
    return settings;
  }
  [[nodiscard]] T scale() const { return static_cast<T>(settings_.scale()); }
  [[nodiscard]] Index rank() const { return settings_.rank; }
  /// z = x A^T.
  void to_low_rank(const ConstMap<T>& x, MutableMap<T> z) const {
    detail::narrow_product<detail::Operand::transposed, T>(z, T(1), x, detail::map_of(a_.value));
  }

  Settings settings_;
  Parameter<T> a_;
  Parameter<T> b_;
};

template <class T>
struct AdapterTraits<T, LoraSettings> {
  using Type = LoraAdapter<T>;
};

}  // namespace mora::inline MORA_ABI
