// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <variant>

#include "mora/adapters/side.hpp"
#include "mora/core/matrix.hpp"
#include "mora/core/product.hpp"
#include "mora/core/small_product.hpp"

namespace mora::inline MORA_ABI {

template <Real T>
class FrozenLinear;

namespace detail {

/// What the library asks of a frozen weight whose arguments were checked, in whatever numbers it is
/// kept.
struct FrozenAccess {
  /// Calls `f` with the weight: a ConstMap<T>, or a SmallMatrix of its numbers.
  template <class T, class F>
  static void visit(const FrozenLinear<T>& layer, const F& f) {
    layer.visit_weight(f);
  }
  /// rows = rows [first, ...) of W.
  template <class T>
  static void read_rows(const FrozenLinear<T>& layer, Index first, MutableMap<T> rows) {
    layer.visit_weight([&](const auto& w) {
      if constexpr (std::same_as<std::decay_t<decltype(w)>, ConstMap<T>>) {
        rows = rows_of(w, first, rows.rows());
      } else {
        widen_block(w, first, 0, rows);
      }
    });
  }
  /// c += a op(W).
  template <Operand Op, class T>
  static void add_product(const FrozenLinear<T>& layer, MutableMap<T> c, const ConstMap<T>& a) {
    layer.visit_weight([&](const auto& w) {
      if constexpr (std::same_as<std::decay_t<decltype(w)>, ConstMap<T>>) {
        detail::add_product<Operand::plain, Op, T>(c, T(1), a, w);
      } else {
        add_small_product<Op>(c, a, w);
      }
    });
  }
  /// c += a op(W + Delta W): see MoraUpdate.
  template <Operand Op, class T, class Update>
  static void add_updated_product(const FrozenLinear<T>& layer, MutableMap<T> c,
                                  const ConstMap<T>& a, const Update& update) {
    layer.visit_weight([&](const auto& w) {
      add_product_by_parts<Op>(c, a, [&](Index row, Index col, MutableMap<T> to) {
        const bool changes = update.reaches(row, col, to.rows(), to.cols());
        if constexpr (std::same_as<std::decay_t<decltype(w)>, ConstMap<T>>) {
          const ConstMap<T> part(w.data() + row * w.outerStride() + col, to.rows(), to.cols(),
                                 Eigen::OuterStride<>(w.outerStride()));
          if (!changes) return part;
          to = part;
        } else {
          widen_block(w, row, col, to);
        }
        if (changes) update.add(row, col, to);
        return as_const(to);
      });
    });
  }
};

}  // namespace detail

/// A linear layer that is not trained: Y = X W^T + b, with W [out, in] and b [out] (or none).
///
/// It is a handle: copies share the weight, which is never copied and never written. Who owns it:
/// - `FrozenLinear<float>(std::move(matrix))`: the handles, together;
/// - `FrozenLinear<float>(matrix)`, a Map or a Block: the caller, who keeps the memory alive and in
///   place for as long as a handle exists (as with std::span);
/// - `FrozenLinear<float>(data, out, in, owner)`: whatever `owner` keeps alive, a mapped file say.
///   `data` may be Float16 or BFloat16: half the memory. Products widen the numbers a block at a
///   time, exactly, and compute in T: within 5 % of T's time from 256 tokens on, up to a quarter
///   slower for some tens, and faster for one, where reading the weight is what takes time.
///
/// The weight may hold any numbers, NaN among them. Throws ShapeError for sizes below 1 or beyond
/// memory, or a bias of another length than out. Column-major weights do not compile: the transpose
/// of a column-major [in, out] matrix is the [out, in] matrix without a copy.
template <Real T>
class FrozenLinear {
 public:
  /// Takes the matrix over, unless it throws.
  FrozenLinear(Matrix<T>&& weight, RowVector<T> bias = {}) {  // NOLINT(google-explicit-constructor)
    const auto owned = std::make_shared<Matrix<T>>();
    bind(weight.data(), weight.rows(), weight.cols(), weight.cols(), owned, std::move(bias));
    *owned = std::move(weight);  // the numbers stay where they are
  }

  /// Copies a temporary that cannot be taken over: Eigen's eval() returns a const one.
  FrozenLinear(const Matrix<T>&& weight,  // NOLINT(google-explicit-constructor)
               RowVector<T> bias = {})
      : FrozenLinear(Matrix<T>(weight), std::move(bias)) {}

  /// Reads a matrix, map or block of the caller's.
  template <class Derived>
  FrozenLinear(const Eigen::MatrixBase<Derived>& weight,  // NOLINT(google-explicit-constructor)
               RowVector<T> bias = {}) {
    static_assert(std::same_as<typename Derived::Scalar, T>,
                  "mora: the weight has another scalar type than the layer; convert it with "
                  ".template cast<T>().eval()");
    static_assert(detail::has_memory<Derived>,
                  "mora: the frozen weight is memory, not an expression; call .eval() on it");
    static_assert(detail::is_row_major<Derived>,
                  "mora: the weight is row-major, [out, in]; pass the .transpose() of a "
                  "column-major [in, out] matrix");
    const ConstMap<T> map = detail::map_memory<T>(weight.derived());
    if (!detail::rows_are_contiguous(weight.derived())) {
      throw ShapeError(detail::concat("weight: expected contiguous rows, found an inner stride of ",
                                      weight.derived().innerStride()));
    }
    bind(map.data(), map.rows(), map.cols(), map.outerStride(), nullptr, std::move(bias));
  }
  template <class Derived>
  FrozenLinear(const Eigen::PlainObjectBase<Derived>&& weight, RowVector<T> bias = {}) = delete;

  /// Reads [out, in] numbers at `data`, kept alive by `owner`; any alignment of their type.
  FrozenLinear(const T* data, Index out_features, Index in_features,
               std::shared_ptr<const void> owner, RowVector<T> bias = {}) {
    bind(data, out_features, in_features, in_features, std::move(owner), std::move(bias));
  }
  template <Float16Bits F>
  FrozenLinear(const F* data, Index out_features, Index in_features,
               std::shared_ptr<const void> owner, RowVector<T> bias = {}) {
    bind(data, out_features, in_features, in_features, std::move(owner), std::move(bias));
  }

  FrozenLinear(const FrozenLinear&) = default;
  FrozenLinear(FrozenLinear&&) = default;
  FrozenLinear& operator=(const FrozenLinear& other) { return *this = FrozenLinear(other); }
  FrozenLinear& operator=(FrozenLinear&&) = default;
  ~FrozenLinear() = default;

  [[nodiscard]] Index in_features() const { return in_; }
  [[nodiscard]] Index out_features() const { return out_; }
  /// Empty when there is none.
  [[nodiscard]] const RowVector<T>& bias() const { return bias_; }

  /// How many handles are copies of one another, this one among them. Handles that were made apart
  /// from one matrix of the caller's do not know of each other.
  [[nodiscard]] long use_count() const { return owner_.use_count(); }

  /// How many bits a number of the weight takes: 16, 32 or 64.
  [[nodiscard]] int weight_bits() const {
    return std::visit([](const auto* data) { return int(8 * sizeof *data); }, data_);
  }
  /// Whether the weight's numbers are T, so that weight() can show them.
  [[nodiscard]] bool has_weight_in_place() const { return std::holds_alternative<const T*>(data_); }

  /// W [out, in], in place. Throws StateError for a handle that was moved from, and for a weight of
  /// 16 bits: read_weight copies any.
  [[nodiscard]] ConstMap<T> weight() const {
    require_usable();
    if (!has_weight_in_place()) {
      throw StateError(detail::concat("weight: its numbers have ", weight_bits(), " bits, not ",
                                      8 * sizeof(T), "; copy them with read_weight"));
    }
    return map();
  }

  /// rows [count, in] = rows [first, first + count) of W. Throws ShapeError for rows that W does
  /// not have, ArgumentError for rows that overlap each other or W, StateError as above.
  void read_weight(Index first, MutableView<T> rows) const {
    require_usable();
    detail::require_size("read_weight, columns (in_features)", in_, rows.cols());
    detail::require_target("read_weight", detail::map_of(rows));
    require_disjoint("read_weight", detail::map_of(rows));
    if (first < 0 || rows.rows() > out_ - first) {
      throw ShapeError(detail::concat("read_weight: expected rows of ", out_, ", found ",
                                      rows.rows(), " from ", first, " on"));
    }
    detail::FrozenAccess::read_rows(*this, first, detail::map_of(rows));
  }
  /// All of W.
  [[nodiscard]] Matrix<T> read_weight() const {
    require_usable();
    Matrix<T> copy(out_, in_);
    detail::FrozenAccess::read_rows(*this, 0, detail::map_of(copy));
    return copy;
  }

  /// Throws StateError for a handle that was moved from.
  void require_usable() const {
    if (!owner_) throw StateError("layer: used after it was moved from");
  }
  /// Throws ArgumentError naming `what` for a result that overlaps the weight.
  void require_disjoint(const char* what, const MutableMap<T>& result) const {
    if (has_weight_in_place()) {
      detail::require_disjoint(what, detail::as_const(result), map());
    } else if (shares_memory_with(result)) {
      throw ArgumentError(detail::concat(what, ": the result overlaps memory that is still read"));
    }
  }

  /// Y [tokens, out] = X W^T + b. tokens in out multiply-adds. Throws ShapeError for other shapes,
  /// and ArgumentError for a result that overlaps memory which is still read.
  [[nodiscard]] Matrix<T> forward(const MatrixView<T>& x) const {
    Matrix<T> y(x.rows(), out_);
    forward(x, y);
    return y;
  }
  void forward(const MatrixView<T>& x, MutableView<T> y) const;

  /// dX [tokens, in] = dY W, for dY [tokens, out]. Nothing is kept for it by a forward pass.
  [[nodiscard]] Matrix<T> backward(const MatrixView<T>& dy) const {
    Matrix<T> dx(dy.rows(), in_);
    backward(dy, dx);
    return dx;
  }
  void backward(const MatrixView<T>& dy, MutableView<T> dx) const;

 private:
  friend struct detail::FrozenAccess;

  template <class Number>
  void bind(const Number* data, Index out, Index in, Index stride,
            std::shared_ptr<const void> owner, RowVector<T> bias) {
    detail::require_features(in, out);
    if (data == nullptr) throw ArgumentError("weight: the pointer is null");
    if (const auto over = reinterpret_cast<std::uintptr_t>(data) % alignof(Number); over != 0) {
      throw ArgumentError(detail::concat("weight: expected an address that is a multiple of ",
                                         alignof(Number), ", found one that is ", over, " beyond"));
    }
    if (bias.size() != 0) detail::require_size("bias, length (out_features)", out, bias.size());
    // With an own count, of the handles: who else holds the owner is not one.
    owner_ = std::shared_ptr<const void>(data, [kept = std::move(owner)](const void*) {});
    data_ = data;
    out_ = out;
    in_ = in;
    stride_ = stride;
    bias_ = std::move(bias);
  }

  /// Calls `f` with the weight: a ConstMap<T>, or a SmallMatrix of its numbers.
  template <class F>
  void visit_weight(const F& f) const {
    std::visit(
        [&]<class Number>(const Number* data) {
          if constexpr (std::same_as<Number, T>) {
            f(map());
          } else {
            f(detail::SmallMatrix<Number>{data, out_, in_, stride_});
          }
        },
        data_);
  }
  /// Of a weight of 16 bits, whose rows are contiguous: from its first byte to its last.
  [[nodiscard]] bool shares_memory_with(const MutableMap<T>& result) const {
    if (result.size() == 0) return false;
    const ConstMap<T> other = detail::ascending(detail::as_const(result));
    const T* const last = other.data() + (other.rows() - 1) * other.outerStride() + other.cols();
    const auto* const begin = static_cast<const char*>(owner_.get());
    const char* const end = begin + 2 * ((out_ - 1) * stride_ + in_);
    const std::less<const void*> before;
    return before(begin, last) && before(other.data(), end);
  }
  [[nodiscard]] ConstMap<T> map() const {
    return {std::get<const T*>(data_), out_, in_, Eigen::OuterStride<>(stride_)};
  }

  std::shared_ptr<const void> owner_;  // null: moved from
  std::variant<const T*, const Float16*, const BFloat16*> data_;
  Index out_ = 0;
  Index in_ = 0;
  Index stride_ = 0;
  RowVector<T> bias_;
};

namespace detail {

// For arguments that were checked.

/// y += x W^T + b.
template <class T>
void add_frozen_forward(const FrozenLinear<T>& layer, const ConstMap<T>& x, MutableMap<T> y) {
  if (layer.bias().size() != 0) y.rowwise() += layer.bias();
  FrozenAccess::add_product<Operand::transposed>(layer, y, x);
}

/// dx += dy W.
template <class T>
void add_frozen_backward(const FrozenLinear<T>& layer, const ConstMap<T>& dy, MutableMap<T> dx) {
  FrozenAccess::add_product<Operand::plain>(layer, dx, dy);
}

}  // namespace detail

template <Real T>
void FrozenLinear<T>::forward(const MatrixView<T>& x, MutableView<T> y) const {
  require_usable();
  detail::require_size("forward, columns of x (in_features)", in_, x.cols());
  MutableMap<T> result = detail::checked_result<T>(y, x.rows(), out_, x);
  require_disjoint("result", result);
  detail::fill_zero(result);
  detail::add_frozen_forward<T>(*this, x, result);
}

template <Real T>
void FrozenLinear<T>::backward(const MatrixView<T>& dy, MutableView<T> dx) const {
  require_usable();
  detail::require_size("backward, columns of dy (out_features)", out_, dy.cols());
  MutableMap<T> result = detail::checked_result<T>(dx, dy.rows(), in_, dy);
  require_disjoint("result", result);
  detail::fill_zero(result);
  detail::add_frozen_backward<T>(*this, dy, result);
}

}  // namespace mora::inline MORA_ABI
