// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <cstddef>
static_assert(EIGEN_VERSION_AT_LEAST(3, 4, 0), "mora: needs Eigen 3.4.0 or later");
#include <concepts>
#include <functional>
#include <span>
#include <type_traits>
#include <utility>

#include "mora/core/abi.hpp"
#include "mora/core/error.hpp"
#include "mora/core/index.hpp"

namespace mora::inline MORA_ABI {

static_assert(std::same_as<Index, Eigen::Index>,
              "mora: EIGEN_DEFAULT_DENSE_INDEX_TYPE has to be std::ptrdiff_t, Eigen's default");

/// The scalars that layers compute in.
template <class T>
concept Real = std::same_as<T, float> || std::same_as<T, double>;

/// Row-major everywhere: X is [tokens, in], W is [out, in], Y = X W^T + b. A tensor from a PyTorch
/// or safetensors file has this layout already.
template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// A bias or any other vector over features.
template <class T>
using RowVector = Eigen::Matrix<T, 1, Eigen::Dynamic, Eigen::RowMajor>;

/// Rows of contiguous numbers, any distance apart, in memory that someone else owns.
template <class T>
using ConstMap = Eigen::Map<const Matrix<T>, Eigen::Unaligned, Eigen::OuterStride<>>;
template <class T>
using MutableMap = Eigen::Map<Matrix<T>, Eigen::Unaligned, Eigen::OuterStride<>>;

/// What results are written into: binds to a Matrix, a Map or a Block of rows or columns of one.
/// Column-major memory does not compile.
template <class T>
using MutableView = Eigen::Ref<Matrix<T>, Eigen::Unaligned, Eigen::OuterStride<>>;

namespace detail {

template <class Derived>
inline constexpr bool has_memory = bool(Derived::Flags& Eigen::DirectAccessBit);

/// Memory that can be read as rows of contiguous numbers; a column vector is one number a row.
template <class Derived>
inline constexpr bool is_row_major = Derived::IsRowMajor || Derived::ColsAtCompileTime == 1;

/// Pointer, sizes and stride of an expression that is memory already.
template <class T, class Derived>
[[nodiscard]] ConstMap<T> map_memory(const Derived& x) {
  if constexpr (!Derived::IsRowMajor) {  // a column vector
    return {x.data(), x.rows(), x.cols(), Eigen::OuterStride<>(x.innerStride())};
  } else {
    return {x.data(), x.rows(), x.cols(), Eigen::OuterStride<>(x.outerStride())};
  }
}

template <class Derived>
[[nodiscard]] bool rows_are_contiguous(const Derived& x) {
  return !Derived::IsRowMajor || x.innerStride() == 1 || x.cols() <= 1;
}

template <class T>
[[nodiscard]] MutableMap<T> map_of(MutableView<T>& x) {
  return {x.data(), x.rows(), x.cols(), Eigen::OuterStride<>(x.outerStride())};
}
template <class T>
[[nodiscard]] MutableMap<T> map_of(Matrix<T>& x) {
  return {x.data(), x.rows(), x.cols(), Eigen::OuterStride<>(x.cols())};
}
template <class T>
[[nodiscard]] ConstMap<T> map_of(const Matrix<T>& x) {
  return {x.data(), x.rows(), x.cols(), Eigen::OuterStride<>(x.cols())};
}
template <class T>
[[nodiscard]] ConstMap<T> as_const(const MutableMap<T>& x) {
  return {x.data(), x.rows(), x.cols(), Eigen::OuterStride<>(x.outerStride())};
}

/// Another size; the numbers are lost. When there is no memory for it, the matrix is empty: Eigen's
/// own resize would leave it with memory that is freed already.
template <class Dense>
void resize(Dense& x, Index rows, Index cols) {
  if (x.size() != rows * cols) x = Dense();
  x.resize(rows, cols);
}

/// Rows [first, first + count) of a map, as a map.
template <class Map>
[[nodiscard]] Map rows_of(const Map& x, Index first, Index count) {
  return Map(const_cast<typename Map::PointerArgType>(x.data()) + first * x.outerStride(), count,
             x.cols(), Eigen::OuterStride<>(x.outerStride()));
}

/// Throws ArgumentError for numbers that are nowhere.
template <class Map>
void require_memory(const char* what, const Map& map) {
  if (map.data() == nullptr && map.rows() > 0 && map.cols() > 0) {
    throw ArgumentError(concat(what, ": the pointer is null"));
  }
}

/// One row, as operators take it.
template <class T>
[[nodiscard]] std::span<T> row_span(const MutableMap<T>& x, Index row) {
  return {const_cast<T*>(x.data()) + row * x.outerStride(), static_cast<std::size_t>(x.cols())};
}
template <class T>
[[nodiscard]] std::span<const T> row_span(const ConstMap<T>& x, Index row) {
  return {x.data() + row * x.outerStride(), static_cast<std::size_t>(x.cols())};
}

}  // namespace detail

/// A matrix argument that is only read: a parameter type, made for the duration of a call.
///
/// Row-major memory (Matrix, Map with any outer stride, Block, the transpose of a column-major
/// matrix) is read in place. An expression that is not memory (`2 * x`), or whose rows are not
/// contiguous (an inner stride), is evaluated once into a copy that the view owns. Column-major
/// memory does not compile: a copy of it would be silent and slow, and
/// `x.transpose()` of a column-major [in, tokens] matrix is the [tokens, in] matrix for free.
template <class T>
class MatrixView : public ConstMap<T> {
 public:
  template <class Derived>
  MatrixView(const Eigen::MatrixBase<Derived>& x)  // NOLINT(google-explicit-constructor)
      : ConstMap<T>(nullptr, 0, 0, Eigen::OuterStride<>(0)) {
    static_assert(std::same_as<typename Derived::Scalar, T>,
                  "mora: the matrix has another scalar type than the layer; convert it with "
                  ".template cast<T>()");
    if constexpr (detail::has_memory<Derived>) {
      static_assert(detail::is_row_major<Derived>,
                    "mora: matrices are row-major, [tokens, in] and [out, in]; pass the "
                    ".transpose() of a column-major [in, tokens] matrix");
      if (detail::rows_are_contiguous(x.derived())) {
        rebind(detail::map_memory<T>(x.derived()));
        return;
      }
      detail::require_memory("matrix", x.derived());
    }
    copy_ = x;
    rebind(detail::map_of(std::as_const(copy_)));
  }
  MatrixView(const MatrixView&) = delete;
  MatrixView& operator=(const MatrixView&) = delete;

 private:
  // Eigen's documented way of pointing a Map elsewhere.
  void rebind(const ConstMap<T>& to) { ::new (static_cast<ConstMap<T>*>(this)) ConstMap<T>(to); }
  Matrix<T> copy_;
};

namespace detail {

/// The same rows from the lowest address on: those of a map may go backwards.
template <class T>
[[nodiscard]] ConstMap<T> ascending(const ConstMap<T>& x) {
  if (x.outerStride() >= 0 || x.rows() == 0) return x;
  return {x.data() + (x.rows() - 1) * x.outerStride(), x.rows(), x.cols(),
          Eigen::OuterStride<>(-x.outerStride())};
}

/// Whether two matrices share a number. Exact: blocks of one matrix beside each other do not.
template <class T>
[[nodiscard]] bool overlap(const ConstMap<T>& first, const ConstMap<T>& second) {
  const ConstMap<T> a = ascending(first);
  const ConstMap<T> b = ascending(second);
  if (a.size() == 0 || b.size() == 0) return false;
  const std::less<const T*> before;
  Index i = 0;
  Index j = 0;
  while (i < a.rows() && j < b.rows()) {
    const T* const pa = a.data() + i * a.outerStride();
    const T* const pb = b.data() + j * b.outerStride();
    if (!before(pa, pb + b.cols())) {
      ++j;
    } else if (!before(pb, pa + a.cols())) {
      ++i;
    } else {
      return true;
    }
  }
  return false;
}

template <class T>
void require_disjoint(const char* what, const ConstMap<T>& output, const ConstMap<T>& input) {
  if (overlap(output, input)) {
    throw ArgumentError(concat(what, ": the result overlaps memory that is still read"));
  }
}

/// Throws ArgumentError for memory that is nowhere, or whose rows share numbers.
template <class T>
void require_target(const char* call, const MutableMap<T>& target) {
  require_memory(call, target);
  if (target.rows() > 1 && target.outerStride() < target.cols()) {
    throw ArgumentError(concat(call, ": rows of ", target.cols(), " numbers overlap, as ",
                               target.outerStride(), " lie between their beginnings"));
  }
}

/// Where a result [rows, cols] goes that is computed from `input`.
template <class T>
[[nodiscard]] MutableMap<T> checked_result(MutableView<T>& result, Index rows, Index cols,
                                           const ConstMap<T>& input) {
  const MutableMap<T> map = map_of(result);
  require_size("result, rows (tokens)", rows, map.rows());
  require_size("result, columns", cols, map.cols());
  require_memory("input", input);
  require_target("result", map);
  require_disjoint("result", as_const(map), input);
  return map;
}

}  // namespace detail
}  // namespace mora::inline MORA_ABI
