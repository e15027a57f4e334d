// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/adapters/concepts.hpp"
#include "mora/adapters/mora_merge.hpp"
#include "mora/adapters/mora_update.hpp"
#include "mora/adapters/side.hpp"
#include "mora/adapters/window_gradient.hpp"
#include "mora/core/buffer.hpp"
#include "mora/core/elementwise.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/parameter.hpp"
#include "mora/core/product.hpp"
#include "mora/core/scratch.hpp"
#include "mora/operators/rotation.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

// What the scratch memory of a MoRA adapter is for.
struct CompressedTile;
struct ProductTile;

}  // namespace detail

/// Settings of a MoRA adapter.
template <class Op = Rotation>
struct MoraSettings {
  /// LoRA's rank at the same number of parameters, 1 ... max_rank; the side of M follows from it.
  Index rank = 8;
  /// How: see SideRounding.
  SideRounding rounding = SideRounding::paper;
  /// s in W x + s D(M C(x)); finite. The paper's code uses 1.
  double scale = 1.0;
  /// The operator with its own settings.
  Op op = {};

  /// Throws ArgumentError naming the setting that is out of range.
  void validate() const {
    detail::require_rank(rank);
    if (!std::isfinite(scale)) {
      throw ArgumentError(detail::concat("scale: expected a finite number, found ", scale));
    }
  }
};

/// MoRA (Jiang et al. 2024, arXiv 2405.12130, Eq. 3): the update s D(M C(x)) with a trainable
/// square M [side, side], zero at the start, between operators without parameters.
///
/// Gradients, summed over tokens and blocks: dM = s (D^T dy)(C x)^T, dx = W^T dy + s C^T M^T D^T
/// dy. A backward pass needs C(x) alone; where its blocks are inputs that are turned (rotation,
/// decoupling) it takes x itself. Cost a token: blocks *
/// side^2 multiply-adds and a pass over x and y, and twice that backward. Over many tokens a whole
/// layer multiplies with W + Delta W instead, which it adds up a part at a time (MoraUpdate): then
/// dM is all that costs multiply-adds for each token.
template <Real T, class Op = Rotation>
requires MoraOperator<Op, T>
class MoraAdapter {
 public:
  using Scalar = T;
  using Settings = MoraSettings<Op>;
  using Compressor = decltype(std::declval<const Op&>().make(1, 1, 1).compress);
  using Decompressor = decltype(std::declval<const Op&>().make(1, 1, 1).decompress);
  using Merge = detail::MoraMerge<T, Compressor, Decompressor>;
  static constexpr bool saves_input = detail::HasWindows<Compressor, T>;
  struct Saved {
    detail::Buffer<T> compressed;  // C(x) [tokens, blocks * side], unless x itself is there
  };
  static constexpr bool additive = true;

  /// M zero. Throws ArgumentError for settings out of range, a scale beyond T or a side that the
  /// operator cannot use; ShapeError for features below 1 and for a pair whose sizes do not fit.
  MoraAdapter(Index in_features, Index out_features, const Settings& settings = {})
      : settings_(checked(settings)), pair_(make_pair(in_features, out_features, settings)) {
    const Index side = pair_.compress.side();
    m_.value.setZero(side, side);
  }
  explicit MoraAdapter(const FrozenLinear<T>& base, const Settings& settings = {})
      : MoraAdapter(base.in_features(), base.out_features(), settings) {}
  MoraAdapter(const MoraAdapter&) = default;
  MoraAdapter(MoraAdapter&&) = default;
  MoraAdapter& operator=(const MoraAdapter& other) { return *this = MoraAdapter(other); }
  MoraAdapter& operator=(MoraAdapter&&) = default;
  ~MoraAdapter() = default;

  [[nodiscard]] const Settings& settings() const { return settings_; }
  [[nodiscard]] Index side() const { return pair_.compress.side(); }
  [[nodiscard]] Index in_features() const { return pair_.compress.in_features(); }
  [[nodiscard]] Index out_features() const { return pair_.decompress.out_features(); }
  [[nodiscard]] const Compressor& compressor() const { return pair_.compress; }
  [[nodiscard]] const Decompressor& decompressor() const { return pair_.decompress; }
  /// M and its gradient.
  [[nodiscard]] const Parameter<T>& matrix() const { return m_; }
  [[nodiscard]] Parameter<T>& matrix() { return m_; }

  /// Throws ArgumentError unless finite.
  void set_scale(double scale) {
    Settings changed = settings_;
    changed.scale = scale;
    settings_ = checked(changed);
  }

  template <class F>
  void visit_parameters(F&& f) {
    f(std::string_view("M"), m_);
  }
  template <class F>
  void visit_parameters(F&& f) const {
    f(std::string_view("M"), m_);
  }

  [[nodiscard]] std::vector<std::string> warnings() const {
    std::vector<std::string> list;
    const auto warn_beyond = [&](const char* name, Index features) {
      if (side() > features) {
        list.push_back(detail::concat("the side of M, ", side(), ", exceeds ", name, " = ",
                                      features, ": a smaller rank has the same effect"));
      }
    };
    warn_beyond("in_features", in_features());
    warn_beyond("out_features", out_features());
    return list;
  }

  void require_shapes() const {
    detail::require_size("M, rows (side)", side(), m_.value.rows());
    detail::require_size("M, columns (side)", side(), m_.value.cols());
  }

  void add_forward(const ConstMap<T>& x, MutableMap<T> y, Saved* saved) const {
    if (saved) save(x, *saved);
    // A fresh M changes nothing, whatever x is: zero times infinity would.
    if (detail::is_zero(m())) return;
    const bool saves = saved && !saves_input;
    for_each_tile(x.rows(), [&](Index first, Index count) {
      MutableMap<T> z = saves ? detail::rows_of(saved->compressed.map(), first, count)
                              : detail::scratch<T, detail::CompressedTile>(count, width());
      if (!saves) compress(detail::rows_of(x, first, count), z);
      MutableMap<T> product = detail::scratch<T, detail::ProductTile>(count, width());
      product.setZero();
      detail::add_product<detail::Operand::plain, detail::Operand::transposed, T>(
          blocks_of(product), scale(), detail::as_const(blocks_of(z)), m());
      detail::for_each_row(count, out_features(), [&](Index i) {
        pair_.decompress.add(detail::row_span(detail::as_const(product), i),
                             detail::row_span(detail::rows_of(y, first, count), i));
      });
    });
  }

  /// The whole layer's output.
  void add_forward(const FrozenLinear<T>& base, const ConstMap<T>& x, MutableMap<T> y,
                   Saved* saved) const {
    if (!adds_to_weight(x.rows()) || detail::is_zero(m())) {
      detail::add_frozen_forward(base, x, y);
      return add_forward(x, y, saved);
    }
    if (saved) save(x, *saved);
    if (base.bias().size() != 0) y.rowwise() += base.bias();
    detail::FrozenAccess::add_updated_product<detail::Operand::transposed>(base, y, x, update());
  }

  void save(const ConstMap<T>& x, Saved& saved) const {
    if (!saves_input) compress(x, saved.compressed.shape(x.rows(), width()));
  }
  void require_saved(const Saved& saved) const {
    if (saves_input) return;
    detail::require_size("backward, columns of the saved C(x) (blocks * side)", width(),
                         saved.compressed.cols());
  }
  void add_backward(const ConstMap<T>& x, const ConstMap<T>& dy, const Saved& saved,
                    MutableMap<T>* dx) {
    const MutableMap<T> dm = detail::gradient_of(m_);
    // All memory first: running out of it must not leave a gradient of some tiles.
    for_each_tile(dy.rows(), [&](Index, Index count) {
      const Index rows = count * pair_.compress.blocks();
      (void)detail::scratch<T, detail::CompressedTile>(count, width());
      if constexpr (saves_input) {
        detail::reserve_window_gradient<T>(pair_.compress, count);
      } else {
        detail::reserve_product<T>(side(), side(), rows);
      }
      if (!dx) return;
      (void)detail::scratch<T, detail::ProductTile>(count, width());
      detail::reserve_product<T>(rows, side(), side());
    });
    for_each_tile(dy.rows(), [&](Index first, Index count) {
      MutableMap<T> g = detail::scratch<T, detail::CompressedTile>(count, width());
      detail::for_each_row(count, out_features(), [&](Index i) {
        pair_.decompress.apply_adjoint(detail::row_span(detail::rows_of(dy, first, count), i),
                                       detail::row_span(g, i));
      });
      if constexpr (saves_input) {
        detail::add_window_gradient(dm, scale(), pair_.compress, detail::as_const(g),
                                    detail::rows_of(x, first, count));
      } else {
        const ConstMap<T> z = detail::rows_of(saved.compressed.map(), first, count);
        detail::add_product<detail::Operand::transposed, detail::Operand::plain, T>(
            dm, scale(), detail::as_const(blocks_of(g)), blocks_of(z));
      }
      if (!dx) return;
      MutableMap<T> product = detail::scratch<T, detail::ProductTile>(count, width());
      product.setZero();
      detail::add_product<detail::Operand::plain, detail::Operand::plain, T>(
          blocks_of(product), scale(), detail::as_const(blocks_of(g)), m());
      detail::for_each_row(count, in_features(), [&](Index i) {
        pair_.compress.add_adjoint(detail::row_span(detail::as_const(product), i),
                                   detail::row_span(detail::rows_of(*dx, first, count), i));
      });
    });
  }

  /// With the whole layer's dx.
  void add_backward(const FrozenLinear<T>& base, const ConstMap<T>& x, const ConstMap<T>& dy,
                    const Saved& saved, MutableMap<T>* dx) {
    if (!dx || !adds_to_weight(dy.rows()) || detail::is_zero(m())) {
      if (dx) detail::add_frozen_backward(base, dy, *dx);
      return add_backward(x, dy, saved, dx);
    }
    detail::FrozenAccess::add_updated_product<detail::Operand::plain>(base, *dx, dy, update());
    add_backward(x, dy, saved, nullptr);
  }

  /// See detail::MoraMerge.
  void plan_merge(typename Merge::Plan& plan) const { merge().make(plan); }
  [[nodiscard]] typename Merge::Plan plan_merge() const {
    typename Merge::Plan plan;
    plan_merge(plan);
    return plan;
  }
  void merge_rows(const typename Merge::Plan& plan, Index first, MutableMap<T> rows) const {
    merge().add_rows(plan, first, rows);
  }
  void reserve_merge() const { merge().reserve(); }

  /// An upper bound of the update's entries; infinite when an operator does not tell its gain.
  [[nodiscard]] double update_bound() const {
    if constexpr (requires(const Compressor& c, const Decompressor& d) { c.gain() + d.gain(); }) {
      return std::abs(settings_.scale) * detail::largest_magnitude(m()) * pair_.compress.gain() *
             pair_.decompress.gain();
    } else {
      return std::numeric_limits<double>::infinity();
    }
  }

 private:
  /// The rank is mora_side's to check.
  static const Settings& checked(const Settings& settings) {
    detail::require_factor<T>("scale", settings.scale);
    return settings;
  }

  /// Tokens are treated in tiles, so that the working memory is bounded and stays in the cache.
  static constexpr Index tile_rows = 8192;

  static OperatorPair<Compressor, Decompressor> make_pair(Index in, Index out,
                                                          const Settings& settings) {
    const Index side = settings.op.fit_side(mora_side(in, out, settings.rank, settings.rounding));
    auto pair = settings.op.make(in, out, side);
    const Index blocks = pair.compress.blocks();
    detail::require_at_least<Index>("compressor, side", 1, pair.compress.side());
    detail::require_at_least<Index>("compressor, blocks", 1, blocks);
    detail::require_size("compressor, in_features", in, pair.compress.in_features());
    detail::require_size("decompressor, out_features", out, pair.decompress.out_features());
    detail::require_size("decompressor, side", pair.compress.side(), pair.decompress.side());
    detail::require_size("decompressor, blocks", blocks, pair.decompress.blocks());
    return {std::move(pair.compress), std::move(pair.decompress)};
  }

  [[nodiscard]] T scale() const { return static_cast<T>(settings_.scale); }
  [[nodiscard]] ConstMap<T> m() const { return detail::map_of(m_.value); }
  using Update = detail::MoraUpdate<T, Compressor, Decompressor>;
  [[nodiscard]] Update update() const { return {pair_.compress, pair_.decompress, m(), scale()}; }
  /// Whether the update is added to W rather than multiplied with tokens.
  [[nodiscard]] bool adds_to_weight(Index tokens) const {
    return Update::pays(pair_.compress, pair_.decompress, tokens);
  }
  [[nodiscard]] Merge merge() const { return {pair_.compress, pair_.decompress, m(), scale()}; }
  /// Numbers a token between C and D.
  [[nodiscard]] Index width() const { return pair_.compress.blocks() * side(); }

  /// [tokens, blocks * side], contiguous, seen as [tokens * blocks, side].
  template <class Map>
  [[nodiscard]] Map blocks_of(const Map& z) const {
    return Map(const_cast<typename Map::PointerArgType>(z.data()), z.rows() * z.cols() / side(),
               side(), Eigen::OuterStride<>(side()));
  }

  template <class F>
  void for_each_tile(Index tokens, const F& f) const {
    const Index rows = std::min(tile_rows, detail::scratch_tile / side());
    const Index tile = std::max<Index>(1, rows / pair_.compress.blocks());
    for (Index first = 0; first < tokens; first += tile) f(first, std::min(tile, tokens - first));
  }

  void compress(const ConstMap<T>& x, MutableMap<T> z) const {
    detail::for_each_row(x.rows(), in_features(), [&](Index i) {
      pair_.compress.apply(detail::row_span(x, i), detail::row_span(z, i));
    });
  }

  Settings settings_;
  OperatorPair<Compressor, Decompressor> pair_;
  Parameter<T> m_;
};

template <class T, class Op>
struct AdapterTraits<T, MoraSettings<Op>> {
  using Type = MoraAdapter<T, Op>;
};

}  // namespace mora::inline MORA_ABI
