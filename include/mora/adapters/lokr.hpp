// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/adapters/kronecker_tokens.hpp"
#include "mora/adapters/lokr_settings.hpp"
#include "mora/adapters/merging.hpp"
#include "mora/core/buffer.hpp"
#include "mora/core/elementwise.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/parameter.hpp"
#include "mora/core/product.hpp"
#include "mora/core/random.hpp"
#include "mora/core/scratch.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

// What the scratch memory of a LoKr adapter is for.
struct KroneckerTiles;
struct KroneckerRow1;
struct KroneckerRows2;

}  // namespace detail

/// W1 or W2 of LoKr.
template <Real T>
struct LokrFactor {
  Parameter<T> a;  ///< The factor [rows, cols], or its left half [rows, r].
  Parameter<T> b;  ///< Its right half [r, cols]; empty without.
};

/// LoKr: the update s W1 (x) W2, s = alpha / r, a Kronecker product: block (i, j) of it is s W1_ij
/// W2. KronA (Edalati et al. 2022, arXiv 2212.10650) has it with full factors, LyCORIS (Yeh et al.
/// 2023, arXiv 2309.14859, section 3.2) and PEFT with thin ones where they would be large. Sizes
/// are those of lokr_shape: out = rows1 rows2, in = cols1 cols2. The rank of the update is the
/// product of the factors' ranks.
///
/// With a token as a matrix X [cols1, cols2] and its output as Y [rows1, rows2], Y = s W1 X W2^T:
/// the update itself is never made. Of the orders of these products the cheapest is taken, forward
/// and backward. Gradients: with G = dY, dW1 = s sum G (X W2^T)^T, dW2 = s sum G^T (W1 X), dX = s
/// W1^T G W2, and through the halves of a thin factor as through LoRA's. Cost a token:
/// multiply_adds(), which is in rows1 + out cols2 or in rows2 + out cols1 with full factors, and
/// r (in + rows1 cols1 + out) with a thin W2, if nothing is less; backward twice that. The backward
/// pass needs x and what is between the products.
template <Real T>
class LokrAdapter {
 public:
  using Scalar = T;
  using Settings = LokrSettings;
  struct Saved {
    detail::Buffer<T> between;  // the inputs of all steps but the first, one after another
  };
  static constexpr bool saves_input = true;
  static constexpr bool additive = true;

  /// W1 zero, or its left half; the others uniform within 1 / sqrt(columns), as PEFT has it. Throws
  /// as lokr_shape does, and ArgumentError where alpha's scale is beyond T.
  template <Generator64 G>
  LokrAdapter(Index in_features, Index out_features, const Settings& settings, G& generator)
      : LokrAdapter(in_features, out_features, settings) {
    w1_ = zero_factor(shape_.rows1, shape_.cols1, shape_.thin1);
    w2_ = zero_factor(shape_.rows2, shape_.cols2, shape_.thin2);
    const auto fill = [&generator](Matrix<T>& matrix) {
      fill_uniform(matrix, 1.0 / std::sqrt(static_cast<double>(matrix.cols())), generator);
    };
    if (shape_.thin1) fill(w1_.b.value);
    fill(w2_.a.value);
    if (shape_.thin2) fill(w2_.b.value);
  }
  template <Generator64 G>
  LokrAdapter(const FrozenLinear<T>& base, const Settings& settings, G& generator)
      : LokrAdapter(base.in_features(), base.out_features(), settings, generator) {}
  /// With factors of the caller's. Throws as above, and ShapeError for others than lokr_shape's.
  LokrAdapter(Index in_features, Index out_features, const Settings& settings, LokrFactor<T> w1,
              LokrFactor<T> w2)
      : LokrAdapter(in_features, out_features, settings) {
    w1_ = std::move(w1);
    w2_ = std::move(w2);
    require_shapes();
  }
  LokrAdapter(const LokrAdapter&) = default;
  LokrAdapter(LokrAdapter&&) = default;
  LokrAdapter& operator=(const LokrAdapter& other) { return *this = LokrAdapter(other); }
  LokrAdapter& operator=(LokrAdapter&&) = default;
  ~LokrAdapter() = default;

  [[nodiscard]] const Settings& settings() const { return settings_; }
  [[nodiscard]] const KroneckerShape& shape() const { return shape_; }
  [[nodiscard]] Index in_features() const { return shape_.cols(); }
  [[nodiscard]] Index out_features() const { return shape_.rows(); }
  [[nodiscard]] const LokrFactor<T>& w1() const { return w1_; }
  [[nodiscard]] LokrFactor<T>& w1() { return w1_; }
  [[nodiscard]] const LokrFactor<T>& w2() const { return w2_; }
  [[nodiscard]] LokrFactor<T>& w2() { return w2_; }
  /// Of a forward pass, a token.
  [[nodiscard]] double multiply_adds() const { return path_.cost; }

  /// "W1", or "W1a" and "W1b"; then "W2", or "W2a" and "W2b".
  template <class F>
  void visit_parameters(F&& f) {
    visit(*this, f);
  }
  template <class F>
  void visit_parameters(F&& f) const {
    visit(*this, f);
  }

  [[nodiscard]] std::vector<std::string> warnings() const {
    if (shape_.thin2) return {};
    return {detail::concat("rank ", settings_.rank, " is not below half of ",
                           std::max(shape_.rows2, shape_.cols2),
                           ", the larger side of W2: that is full, and the rank divides alpha "
                           "alone")};
  }
  void require_shapes() const {
    require_factor_shape("W1", w1_, shape_.rows1, shape_.cols1, shape_.thin1);
    require_factor_shape("W2", w2_, shape_.rows2, shape_.cols2, shape_.thin2);
  }

  void add_forward(const ConstMap<T>& x, MutableMap<T> y, Saved* saved) const {
    if (saved) saved->between.shape(x.rows(), path_.kept);
    in_tiles(x.rows(), [&](Index first, Index count, const Tiles& tiles) {
      const T* in = detail::enter_tokens(detail::rows_of(x, first, count), step_at(0).of_w1,
                                         shape_.cols1, shape_.cols2, tiles.in[0]);
      Index kept = 0;
      for (Index i = 0; i < path_.count; ++i) {
        const detail::KroneckerStep& step = step_at(i);
        const bool last = i + 1 == path_.count;
        const bool turns = last || step_at(i + 1).of_w1 != step.of_w1;
        const Index rows = count * step.other;
        T* const between = saved ? saved->between.data() + x.rows() * kept : nullptr;
        T* const next = saved && !last ? between + first * step.other * step.to
                                       : tiles.in[static_cast<std::size_t>((i + 1) % 2)];
        const MutableMap<T> out = detail::packed(turns ? tiles.work : next, rows, step.to);
        multiply<detail::Operand::transposed>(out, scale_of(i), detail::packed(in, rows, step.from),
                                              step);
        if (last) {
          detail::leave_tokens(out.data(), step.of_w1, shape_.rows1, shape_.rows2,
                               detail::rows_of(y, first, count));
        } else if (turns) {
          detail::transpose_tokens(count, step.other, step.to, out.data(), next);
        }
        in = next;
        kept += step.other * step.to;
      }
    });
  }

  void require_saved(const Saved& saved) const {
    detail::require_size("backward, columns of what is saved between products", path_.kept,
                         saved.between.cols());
  }
  void add_backward(const ConstMap<T>& x, const ConstMap<T>& dy, const Saved& saved,
                    MutableMap<T>* dx) {
    visit_parameters([](std::string_view, Parameter<T>& p) { (void)detail::gradient_of(p); });
    // All memory first: running out of it must not leave one gradient changed and one not.
    in_tiles(dy.rows(), [&](Index, Index count, const Tiles&) {
      for (Index i = 0; i < path_.count; ++i) {
        const auto& [of_w1, inner, other, from, to] = step_at(i);
        detail::reserve_product<T>(to, from, count * other);
        detail::reserve_product<T>(count * other, from, to);
      }
    });
    in_tiles(dy.rows(), [&](Index first, Index count, const Tiles& tiles) {
      const T* g =
          detail::enter_tokens(detail::rows_of(dy, first, count), step_at(path_.count - 1).of_w1,
                               shape_.rows1, shape_.rows2, tiles.in[0]);
      Index kept = path_.kept;
      for (Index i = path_.count; i-- > 0;) {
        const detail::KroneckerStep& step = step_at(i);
        const Index rows = count * step.other;
        const Index width = step.other * step.from;
        T* const next = tiles.in[static_cast<std::size_t>((path_.count - i) % 2)];
        if (i > 0) kept -= width;
        const T* const in = i > 0
                                ? saved.between.data() + dy.rows() * kept + first * width
                                : detail::enter_tokens(detail::rows_of(x, first, count), step.of_w1,
                                                       shape_.cols1, shape_.cols2, next);
        detail::add_product<detail::Operand::transposed, detail::Operand::plain, T>(
            detail::map_of(matrix_of(*this, step).gradient), scale_of(i),
            detail::packed(g, rows, step.to), detail::packed(in, rows, step.from));
        if (i == 0 && !dx) return;
        const bool turns = i == 0 || step_at(i - 1).of_w1 != step.of_w1;
        const MutableMap<T> out = detail::packed(turns ? tiles.work : next, rows, step.from);
        multiply<detail::Operand::plain>(out, scale_of(i), detail::packed(g, rows, step.to), step);
        if (i == 0) {
          detail::leave_tokens(out.data(), step.of_w1, shape_.cols1, shape_.cols2,
                               detail::rows_of(*dx, first, count));
        } else if (turns) {
          detail::transpose_tokens(count, step.other, step.from, out.data(), next);
        }
        g = next;
      }
    });
  }

  /// The right halves of thin factors, packed: r (cols1 + cols2) numbers at most.
  struct MergePlan {
    bool finite = false;
    detail::PackedFactor<T> b1;
    detail::PackedFactor<T> b2;
  };
  void plan_merge(MergePlan& plan) const {
    plan.finite = true;
    visit_parameters([&plan](std::string_view, const Parameter<T>& p) {
      plan.finite = plan.finite && detail::all_finite(p.value);
    });
    if (shape_.thin1) plan.b1.pack(detail::map_of(w1_.b.value));
    if (shape_.thin2) plan.b2.pack(detail::map_of(w2_.b.value));
  }
  [[nodiscard]] MergePlan plan_merge() const {
    MergePlan plan;
    plan_merge(plan);
    return plan;
  }
  /// A row of the update is a row of W2, once for each number of a row of W1.
  void merge_rows(const MergePlan& plan, Index first, MutableMap<T> rows) const {
    const Index chunk = detail::weight_chunk(in_features());
    for (Index start = 0; start < rows.rows();) {
      const Index row1 = (first + start) / shape_.rows2;
      const Index row2 = (first + start) % shape_.rows2;
      const Index count = std::min({chunk, rows.rows() - start, shape_.rows2 - row2});
      const ConstMap<T> left =
          factor_rows<detail::KroneckerRow1>(w1_, shape_.thin1, plan.b1, row1, Index{1});
      const ConstMap<T> right =
          factor_rows<detail::KroneckerRows2>(w2_, shape_.thin2, plan.b2, row2, count);
      for (Index r = 0; r < count; ++r) {
        add_blocks(plan.finite, left.data(), right.data() + r * right.outerStride(),
                   rows.data() + (start + r) * rows.outerStride());
      }
      start += count;
    }
  }
  void reserve_merge() const {
    if (shape_.thin1) (void)detail::scratch<T, detail::KroneckerRow1>(Index{1}, shape_.cols1);
    if (shape_.thin2) {
      (void)detail::scratch<T, detail::KroneckerRows2>(
          std::min(detail::weight_chunk(in_features()), shape_.rows2), shape_.cols2);
    }
  }

  /// An upper bound of the update's entries, and of all that they are computed from.
  [[nodiscard]] double update_bound() const {
    // std::max hands on a NaN that comes first.
    return std::max(1.0, std::abs(settings_.scale())) * std::max(bound_of(w1_, shape_.thin1), 1.0) *
           std::max(bound_of(w2_, shape_.thin2), 1.0);
  }

 private:
  LokrAdapter(Index in_features, Index out_features, const Settings& settings)
      : settings_(settings),
        shape_(lokr_shape(in_features, out_features, settings)),
        path_(detail::cheapest_path(shape_)) {
    detail::require_factor<T>("alpha, as the scale", settings.scale());
  }
  [[nodiscard]] LokrFactor<T> zero_factor(Index rows, Index cols, bool thin) const {
    LokrFactor<T> factor;
    factor.a.value.setZero(rows, thin ? shape_.rank : cols);
    if (thin) factor.b.value.setZero(shape_.rank, cols);
    return factor;
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    const auto visit_factor = [&f](auto& factor, bool thin, std::string_view whole,
                                   std::string_view left, std::string_view right) {
      f(thin ? left : whole, factor.a);
      if (thin) f(right, factor.b);
    };
    visit_factor(self.w1_, self.shape_.thin1, "W1", "W1a", "W1b");
    visit_factor(self.w2_, self.shape_.thin2, "W2", "W2a", "W2b");
  }

  void require_factor_shape(const std::string& name, const LokrFactor<T>& factor, Index rows,
                            Index cols, bool thin) const {
    const auto require = [](const std::string& of, const Matrix<T>& matrix, Index height,
                            Index width) {
      detail::require_size((of + ", rows").c_str(), height, matrix.rows());
      detail::require_size((of + ", columns").c_str(), width, matrix.cols());
    };
    require(thin ? name + "a" : name, factor.a.value, rows, thin ? shape_.rank : cols);
    if (thin) {
      require(name + "b", factor.b.value, shape_.rank, cols);
    }
  }

  /// Working memory for some tokens on their way.
  struct Tiles {
    std::array<T*, 2> in;  // what a step reads, in turn
    T* work;
  };
  /// Calls f(first, count, tiles) for a tile of tokens at a time.
  template <class F>
  void in_tiles(Index tokens, const F& f) const {
    detail::for_each_tile(tokens, 3 * path_.width, [&](Index first, Index count) {
      const Index size = count * path_.width;
      T* const memory = detail::scratch<T, detail::KroneckerTiles>(3 * size);
      f(first, count, Tiles{{memory, memory + size}, memory + 2 * size});
    });
  }

  [[nodiscard]] const detail::KroneckerStep& step_at(Index i) const {
    return path_.steps[static_cast<std::size_t>(i)];
  }
  template <class Self>
  [[nodiscard]] static auto& matrix_of(Self& self, const detail::KroneckerStep& step) {
    auto& factor = step.of_w1 ? self.w1_ : self.w2_;
    return step.inner ? factor.b : factor.a;
  }
  /// The last step has it.
  [[nodiscard]] T scale_of(Index i) const { return i + 1 == path_.count ? scale() : T(1); }
  [[nodiscard]] T scale() const { return static_cast<T>(settings_.scale()); }
  template <detail::Operand Op>
  void multiply(MutableMap<T> out, T alpha, const ConstMap<T>& in,
                const detail::KroneckerStep& step) const {
    out.setZero();
    detail::add_product<detail::Operand::plain, Op, T>(
        out, alpha, in, detail::map_of(matrix_of(*this, step).value));
  }

  /// Rows of a factor: its own, or those of a thin one in this thread's working memory.
  template <class Purpose>
  [[nodiscard]] static ConstMap<T> factor_rows(const LokrFactor<T>& factor, bool thin,
                                               const detail::PackedFactor<T>& b, Index first,
                                               Index count) {
    const ConstMap<T> a = detail::rows_of(detail::map_of(factor.a.value), first, count);
    if (!thin) return a;
    MutableMap<T> rows = detail::scratch<T, Purpose>(count, factor.b.value.cols());
    b.product(rows, T(1), a);
    return detail::as_const(rows);
  }
  /// row += s left (x) right. Adding zeros would turn -0 into +0; but 0 * NaN has to reach the
  /// check of what is merged.
  void add_blocks(bool finite, const T* left, const T* right, T* row) const {
    using Block = Eigen::Array<T, 1, Eigen::Dynamic>;
    const Eigen::Map<const Block> block(right, shape_.cols2);
    if (finite && (block == T(0)).all()) return;
    for (Index j = 0; j < shape_.cols1; ++j) {
      const T factor = scale() * left[j];
      if (finite && factor == T(0)) continue;
      Eigen::Map<Block>(row + j * shape_.cols2, shape_.cols2) += factor * block;
    }
  }
  [[nodiscard]] double bound_of(const LokrFactor<T>& factor, bool thin) const {
    const double largest = detail::largest_magnitude(factor.a.value);
    if (!thin) return largest;
    return static_cast<double>(shape_.rank) * largest * detail::largest_magnitude(factor.b.value);
  }

  Settings settings_;
  KroneckerShape shape_;
  detail::KroneckerPath path_;
  LokrFactor<T> w1_;
  LokrFactor<T> w2_;
};

template <class T>
struct AdapterTraits<T, LokrSettings> {
  using Type = LokrAdapter<T>;
};

}  // namespace mora::inline MORA_ABI
