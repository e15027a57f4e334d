// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "mora/adapters/side.hpp"
#include "mora/core/matrix.hpp"
#include "mora/core/product.hpp"

namespace mora::inline MORA_ABI {

/// A linear layer that is not trained: Y = X W^T + b, with W [out, in] and b [out] (or none).
///
/// It is a handle: copies share the weight, which is never copied and never written. Who owns it:
/// - `FrozenLinear<float>(std::move(matrix))`: the handles, together;
/// - `FrozenLinear<float>(matrix)`, a Map or a Block: the caller, who keeps the memory alive and in
///   place for as long as a handle exists (as with std::span);
/// - `FrozenLinear<float>(data, out, in, owner)`: whatever `owner` keeps alive, a mapped file say.
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

  /// Reads [out, in] numbers at `data`, kept alive by `owner`; any alignment of T.
  FrozenLinear(const T* data, Index out_features, Index in_features,
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
  [[nodiscard]] long use_count() const { return data_.use_count(); }

  /// W [out, in]. Throws StateError for a handle that was moved from.
  [[nodiscard]] ConstMap<T> weight() const {
    if (!data_) throw StateError("layer: used after it was moved from");
    return {data_.get(), out_, in_, Eigen::OuterStride<>(stride_)};
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
  void bind(const T* data, Index out, Index in, Index stride, std::shared_ptr<const void> owner,
            RowVector<T> bias) {
    detail::require_features(in, out);
    if (data == nullptr) throw ArgumentError("weight: the pointer is null");
    if (const auto over = reinterpret_cast<std::uintptr_t>(data) % alignof(T); over != 0) {
      throw ArgumentError(detail::concat("weight: expected an address that is a multiple of ",
                                         alignof(T), ", found one that is ", over, " beyond"));
    }
    if (bias.size() != 0) detail::require_size("bias, length (out_features)", out, bias.size());
    // With an own count, of the handles: who else holds the owner is not one.
    data_ = std::shared_ptr<const T>(data, [kept = std::move(owner)](const T*) {});
    out_ = out;
    in_ = in;
    stride_ = stride;
    bias_ = std::move(bias);
  }

  std::shared_ptr<const T> data_;
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
  add_product<Operand::plain, Operand::transposed, T>(y, T(1), x, layer.weight());
}

/// dx += dy W.
template <class T>
void add_frozen_backward(const FrozenLinear<T>& layer, const ConstMap<T>& dy, MutableMap<T> dx) {
  add_product<Operand::plain, Operand::plain, T>(dx, T(1), dy, layer.weight());
}

}  // namespace detail

template <Real T>
void FrozenLinear<T>::forward(const MatrixView<T>& x, MutableView<T> y) const {
  const ConstMap<T> w = weight();
  detail::require_size("forward, columns of x (in_features)", in_, x.cols());
  MutableMap<T> result = detail::checked_result<T>(y, x.rows(), out_, x);
  detail::require_disjoint("result", detail::as_const(result), w);
  result.setZero();
  detail::add_frozen_forward<T>(*this, x, result);
}

template <Real T>
void FrozenLinear<T>::backward(const MatrixView<T>& dy, MutableView<T> dx) const {
  const ConstMap<T> w = weight();
  detail::require_size("backward, columns of dy (out_features)", out_, dy.cols());
  MutableMap<T> result = detail::checked_result<T>(dx, dy.rows(), in_, dy);
  detail::require_disjoint("result", detail::as_const(result), w);
  result.setZero();
  detail::add_frozen_backward<T>(*this, dy, result);
}

}  // namespace mora::inline MORA_ABI
