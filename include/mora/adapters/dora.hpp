// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/adapters/merging.hpp"
#include "mora/core/buffer.hpp"
#include "mora/core/elementwise.hpp"
#include "mora/core/narrow_product.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/parameter.hpp"
#include "mora/core/random.hpp"
#include "mora/core/scratch.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

// What the scratch memory of a DoRA adapter is for.
struct NormRows;
struct OutputNorms;
struct OutputRatios;
struct LayerTile;

/// ||row||, summed in double, in an order that does not depend on where the row lies.
template <class T>
[[nodiscard]] T row_norm(const T* row, Index size) {
  return static_cast<T>(std::sqrt(sum_of<double>(size, [row](Index j) {
    const auto number = static_cast<double>(row[j]);
    return number * number;
  })));
}

/// ||W_o + Delta W_o|| of every output, in a pass over W that never has more of the sum than rows
/// in the cache.
template <Adapter A>
void write_row_norms(const A& adapter, const FrozenLinear<typename A::Scalar>& base,
                     typename A::Scalar* norms) {
  using T = typename A::Scalar;
  const auto& plan = kept_plan<NormRows>(adapter);
  const Index in = base.in_features();
  parallel_pieces(
      base.out_features(), weight_chunk(in),
      [&] {
        (void)scratch<T, NormRows>(weight_chunk(in), in);
        if constexpr (requires { adapter.reserve_merge(); }) adapter.reserve_merge();
      },
      [&](Index first, Index count) {
        MutableMap<T> rows = scratch<T, NormRows>(count, in);
        FrozenAccess::read_rows(base, first, rows);
        adapter.merge_rows(plan, first, rows);
        for (Index r = 0; r < count; ++r) norms[first + r] = row_norm(rows.data() + r * in, in);
      });
}

/// m / n: what a row of length n is multiplied with to have length m. Exactly 1 where nothing is to
/// change, also for a row of zeros, which has no direction.
template <class T>
[[nodiscard]] T length_ratio(T m, T n) {
  return m == n || n == T(0) ? T(1) : m / n;
}

}  // namespace detail

/// Settings of a DoRA adapter: those of the adapter that moves the directions.
template <class Settings>
struct DoraSettings {
  Settings direction = {};
  void validate() const { direction.validate(); }
};

/// DoRA (Liu et al. 2024, arXiv 2402.09353, Eq. 5) over any additive adapter, LoRA in the paper:
/// W' = m (W + Delta W) / ||W + Delta W|| by output row, with a trainable length m [1, out] for
/// each, which starts as the row's own.
///
/// Gradients: the norm n counts as constant, as in the paper (section 4.3) and in PEFT. With g = m
/// / n the adapter gets g dy in place of dy, dx = (g dy)(W + Delta W), dm = sum of dy (W + Delta W)
/// x / n. Cost on top of both parts: in every forward pass one over W that merges it row by row to
/// measure it, without memory of its size: over LoRA r tokens' work, over MoRA about one token's;
/// and 2 tokens * out numbers kept. Who serves such a layer merges it.
template <Adapter A>
requires(bool(A::additive)) class DoraAdapter {
 public:
  using Scalar = typename A::Scalar;
  using T = Scalar;
  using Settings = DoraSettings<typename A::Settings>;
  using MergePlan = decltype(std::declval<const A&>().plan_merge());
  struct Saved {
    typename A::Saved direction;
    detail::Buffer<T> output;  // (W + Delta W) x [tokens, out]
    detail::Buffer<T> norms;   // n [1, out]
    detail::Buffer<T> ratios;  // m / n [1, out]
    detail::Buffer<T> scaled;  // for the backward pass: m / n dy
  };
  static constexpr bool saves_input = A::saves_input;
  static constexpr bool additive = false;

  /// Throws as A's constructor.
  // A template as in AdaptedLinear.
  template <detail::StartsWithoutNumbers Same = A>
  explicit DoraAdapter(const FrozenLinear<T>& base, const Settings& settings = {})
      : DoraAdapter(base, A(base, settings.direction)) {}
  template <Generator64 G>
  DoraAdapter(const FrozenLinear<T>& base, const Settings& settings, G& generator)
      : DoraAdapter(base, detail::fresh_adapter<A>(base, settings.direction, generator)) {}
  /// Around an adapter that exists already, with the lengths that its rows have: nothing changes
  /// yet. Throws ShapeError unless it fits.
  DoraAdapter(const FrozenLinear<T>& base, A direction) : direction_(std::move(direction)) {
    detail::require_fits(direction_, base);
    magnitude_.value.resize(1, base.out_features());
    detail::write_row_norms(direction_, base, magnitude_.value.data());
  }
  /// With m [1, out] of the caller's. Throws ShapeError for another shape.
  DoraAdapter(A direction, Matrix<T> magnitude)
      : direction_(std::move(direction)), magnitude_(std::move(magnitude), {}) {
    require_shapes();
  }
  DoraAdapter(const DoraAdapter&) = default;
  DoraAdapter(DoraAdapter&&) = default;
  DoraAdapter& operator=(const DoraAdapter& other) { return *this = DoraAdapter(other); }
  DoraAdapter& operator=(DoraAdapter&&) = default;
  ~DoraAdapter() = default;

  [[nodiscard]] Settings settings() const { return {direction_.settings()}; }
  [[nodiscard]] Index in_features() const { return direction_.in_features(); }
  [[nodiscard]] Index out_features() const { return direction_.out_features(); }
  [[nodiscard]] const A& direction() const { return direction_; }
  [[nodiscard]] A& direction() { return direction_; }
  /// m [1, out] and its gradient.
  [[nodiscard]] const Parameter<T>& magnitude() const { return magnitude_; }
  [[nodiscard]] Parameter<T>& magnitude() { return magnitude_; }

  /// The other adapter's, then "magnitude".
  template <class F>
  void visit_parameters(F&& f) {
    direction_.visit_parameters(f);
    f(std::string_view("magnitude"), magnitude_);
  }
  template <class F>
  void visit_parameters(F&& f) const {
    direction_.visit_parameters(f);
    f(std::string_view("magnitude"), magnitude_);
  }

  [[nodiscard]] std::vector<std::string> warnings() const { return direction_.warnings(); }
  void require_shapes() const {
    direction_.require_shapes();
    detail::require_size("magnitude, rows", Index{1}, magnitude_.value.rows());
    detail::require_size("magnitude, columns (out_features)", out_features(),
                         magnitude_.value.cols());
  }
  void require_disjoint(const char* what, const ConstMap<T>& result) const {
    if constexpr (requires { direction_.require_disjoint(what, result); }) {
      direction_.require_disjoint(what, result);
    }
  }
  void require_base(const FrozenLinear<T>& base) const {
    if constexpr (requires { direction_.require_base(base); }) direction_.require_base(base);
  }

  void add_forward(const FrozenLinear<T>& base, const ConstMap<T>& x, MutableMap<T> y,
                   Saved* saved) const {
    const Index out = out_features();
    T* const norms =
        saved ? saved->norms.shape(1, out).data() : detail::scratch<T, detail::OutputNorms>(out);
    T* const ratios =
        saved ? saved->ratios.shape(1, out).data() : detail::scratch<T, detail::OutputRatios>(out);
    detail::write_row_norms(direction_, base, norms);
    for (Index o = 0; o < out; ++o) {
      ratios[o] = detail::length_ratio(magnitude_.value(0, o), norms[o]);
    }
    if (saved) {
      (void)saved->scaled.shape(x.rows(), out);  // so that the backward pass takes no memory for it
      add_tile(base, ratios, x, y, saved->output.shape(x.rows(), out), &saved->direction);
      return;
    }
    for_each_tile(x.rows(), [&](Index first, Index count) {
      add_tile(base, ratios, detail::rows_of(x, first, count), detail::rows_of(y, first, count),
               detail::scratch<T, detail::LayerTile>(count, out), nullptr);
    });
  }

  void require_saved(const Saved& saved) const {
    detail::require_size("backward, columns of the saved output (out_features)", out_features(),
                         saved.output.cols());
    if constexpr (requires { direction_.require_saved(saved.direction); }) {
      direction_.require_saved(saved.direction);
    }
  }
  void add_backward(const FrozenLinear<T>& base, const ConstMap<T>& x, const ConstMap<T>& dy,
                    Saved& saved, MutableMap<T>* dx) {
    T* const dm = detail::gradient_of(magnitude_).data();
    const Index out = out_features();
    MutableMap<T> scaled = saved.scaled.map();
    const T* const ratios = saved.ratios.data();
    detail::for_each_row(dy.rows(), out, [&](Index t) {
      const T* const from = dy.data() + t * dy.outerStride();
      T* const to = scaled.data() + t * out;
      for (Index o = 0; o < out; ++o) to[o] = ratios[o] * from[o];
    });
    if (dx) detail::add_frozen_backward(base, detail::as_const(scaled), *dx);
    // Of the gradients this is the first, and when it runs out of memory none has changed.
    direction_.add_backward(x, detail::as_const(scaled), saved.direction, dx);
    detail::parallel_pieces(out, outputs_a_piece, [&](Index first, Index count) {
      T sums[outputs_a_piece] = {};
      for (Index t = 0; t < dy.rows(); ++t) {
        const T* const from = dy.data() + t * dy.outerStride() + first;
        const T* const there = saved.output.data() + t * out + first;
        for (Index o = 0; o < count; ++o) sums[o] += from[o] * there[o];
      }
      for (Index o = 0; o < count; ++o) {
        const T n = saved.norms.data()[first + o];
        if (n != T(0)) dm[first + o] += sums[o] / n;
      }
    });
  }

  [[nodiscard]] MergePlan plan_merge() const { return direction_.plan_merge(); }
  void merge_rows(const MergePlan& plan, Index first, MutableMap<T> rows) const {
    direction_.merge_rows(plan, first, rows);
    for (Index r = 0; r < rows.rows(); ++r) {
      const T n = detail::row_norm(rows.data() + r * rows.outerStride(), rows.cols());
      const T ratio = detail::length_ratio(magnitude_.value(0, first + r), n);
      if (ratio != T(1)) rows.row(r) *= ratio;
    }
  }
  void reserve_merge() const {
    if constexpr (requires { direction_.reserve_merge(); }) direction_.reserve_merge();
  }
  [[nodiscard]] double update_bound() const { return std::numeric_limits<double>::infinity(); }

 private:
  static constexpr Index outputs_a_piece = 256;

  /// Tiles of tokens whose products have the bits of all at once: of whole register blocks, and
  /// none of so few rows that the product is another kernel's.
  template <class F>
  void for_each_tile(Index tokens, const F& f) const {
    constexpr Index block = detail::narrow_tokens;
    const Index tile = std::max(block, detail::scratch_tile / out_features() / block * block);
    for (Index first = 0; first < tokens;) {
      const Index rest = tokens - first;
      const Index count = rest < tile + block ? rest : tile;
      f(first, count);
      first += count;
    }
  }

  /// y += the layer's output; z becomes it without lengths and bias. Where a ratio is 1, as those
  /// of a fresh adapter are, the numbers are the frozen layer's, bit for bit.
  void add_tile(const FrozenLinear<T>& base, const T* ratios, const ConstMap<T>& x, MutableMap<T> y,
                MutableMap<T> z, typename A::Saved* saved) const {
    z.setZero();
    detail::add_frozen_forward(base, x, z);
    direction_.add_forward(x, z, saved);
    const bool has_bias = base.bias().size() != 0;
    const Index out = out_features();
    detail::for_each_row(x.rows(), out, [&](Index t) {
      T* const from = z.data() + t * z.outerStride();
      T* const to = y.data() + t * y.outerStride();
      for (Index o = 0; o < out; ++o) {
        const T all = from[o];
        const T bias = has_bias ? base.bias()[o] : T(0);
        from[o] -= bias;
        to[o] += ratios[o] == T(1) ? all : ratios[o] * from[o] + bias;
      }
    });
  }

  A direction_;
  Parameter<T> magnitude_;
};

template <class T, class Settings>
struct AdapterTraits<T, DoraSettings<Settings>> {
  using Type = DoraAdapter<AdapterOf<T, Settings>>;
};

}  // namespace mora::inline MORA_ABI
