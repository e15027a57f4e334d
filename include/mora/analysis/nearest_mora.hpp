// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <utility>

#include "mora/adapters/merging.hpp"
#include "mora/adapters/mora.hpp"
#include "mora/core/elementwise.hpp"

namespace mora::inline MORA_ABI {

/// What nearest_mora finds: an adapter, and how far its update is from the one that was asked for.
template <Real T, class Op>
struct NearestMora {
  MoraAdapter<T, Op> adapter;
  /// ||Delta W - its update||_F / ||Delta W||_F, before M is rounded to T; 0 for a zero update.
  double relative_error = 0.0;
};

namespace detail {

/// The update is a linear map of M; this is it and its adjoint, for one operator and shape, with
/// scale 1.
template <class Op>
class MoraMap {
 public:
  using Matrix = mora::Matrix<double>;
  using Adapter = MoraAdapter<double, Op>;

  MoraMap(Index in, Index out, MoraSettings<Op> settings)
      : adapter_(in, out, with_scale_one(std::move(settings))) {
    if constexpr (Adapter::saves_input) {
      inputs_.setIdentity(in, in);
      return;
    }
    // C(I): row i is C of the unit vector e_i.
    const auto& compressor = adapter_.compressor();
    const Index width = compressor.blocks() * compressor.side();
    MutableMap<double> compressed = saved_.compressed.shape(in, width);
    RowVector<double> unit = RowVector<double>::Zero(in);
    for (Index i = 0; i < in; ++i) {
      unit[i] = 1.0;
      compressor.apply(std::span<const double>(unit.data(), static_cast<std::size_t>(in)),
                       row_span(compressed, i));
      unit[i] = 0.0;
    }
  }

  [[nodiscard]] Index side() const { return adapter_.side(); }

  /// Delta W [out, in] of M = m.
  [[nodiscard]] Matrix update(const Matrix& m) {
    adapter_.matrix().value = m;
    Matrix delta = Matrix::Zero(adapter_.out_features(), adapter_.in_features());
    const auto plan = adapter_.plan_merge();
    for_each_weight_chunk(delta.rows(), delta.cols(), [&](Index first, Index count) {
      adapter_.merge_rows(plan, first, rows_of(map_of(delta), first, count));
    });
    return delta;
  }
  /// What the backward pass adds to M's gradient for inputs I and output gradients G^T.
  [[nodiscard]] Matrix adjoint(const Matrix& g) {
    const Matrix dy = g.transpose();
    adapter_.matrix().gradient.resize(0, 0);
    adapter_.add_backward(map_of(std::as_const(inputs_)), map_of(dy), saved_, nullptr);
    return adapter_.matrix().gradient;
  }

 private:
  [[nodiscard]] static MoraSettings<Op> with_scale_one(MoraSettings<Op> settings) {
    settings.scale = 1.0;
    return settings;
  }

  Adapter adapter_;
  Matrix inputs_;  // I [in, in], where the adapter takes x itself
  typename Adapter::Saved saved_;
};

/// The m that makes map.update(m) nearest to `target`, which becomes what is left of it.
///
/// Conjugate gradients on the normal equations (CGLS; Hestenes and Stiefel 1952). They end where
/// the slope is a 1e-10th of the first one, or no larger than rounding makes it of what is left.
template <class Op>
[[nodiscard]] Matrix<double> least_squares(MoraMap<Op>& map, Matrix<double>& target) {
  using Matrix = mora::Matrix<double>;
  Matrix m = Matrix::Zero(map.side(), map.side());
  Matrix slope = map.adjoint(target);
  Matrix direction = slope;
  double square = slope.squaredNorm();
  const double enough = 1e-20 * square;
  const double rounding =
      static_cast<double>(target.rows() + target.cols()) * std::numeric_limits<double>::epsilon();
  double gain = 0.0;  // the largest ||map||^2 that was seen
  constexpr int most = 1000;
  for (int i = 0; square > enough && i < most; ++i) {
    const Matrix change = map.update(direction);
    const double change_square = change.squaredNorm();
    gain = std::max(gain, change_square / direction.squaredNorm());
    if (square <= rounding * rounding * gain * target.squaredNorm()) return m;
    const double step = square / change_square;
    m += step * direction;
    target -= step * change;
    slope = map.adjoint(target);
    const double next = slope.squaredNorm();
    direction = slope + next / square * direction;
    square = next;
  }
  // Slow maps come near enough.
  constexpr double loose = 1e8;
  if (square <= loose * enough) return m;
  throw NumericError(concat("nearest MoRA: after ", most, " iterations the squared slope is ",
                            square, ", expected at most ", loose * enough));
}

}  // namespace detail

/// The MoRA adapter with these settings whose update is nearest to `update` [out, in] in Frobenius
/// norm: what a change of operators, or from LoRA to MoRA, can keep. It is exact where the operator
/// can say that update. Computed in double, M rounded to T at the end.
///
/// A least-squares problem, as the update is linear in M: a few iterations for truncation and
/// sharing, tens for rotation, each of in blocks side^2 multiply-adds. Memory: four updates and
/// in blocks side numbers (in^2 for rotation and decoupling), in double. Throws what MoraAdapter's
/// constructor throws; ArgumentError for a null pointer; NumericError for an update that is not
/// finite, an M beyond T, and an iteration that does not converge.
template <Real T, class Op = Rotation>
[[nodiscard]] NearestMora<T, Op> nearest_mora(const MatrixView<T>& update,
                                              const MoraSettings<Op>& settings = {}) {
  using Matrix = mora::Matrix<double>;
  NearestMora<T, Op> nearest{MoraAdapter<T, Op>(update.cols(), update.rows(), settings)};
  detail::require_memory("nearest MoRA, update", update);
  if (!detail::all_finite(update)) throw NumericError("nearest MoRA: the update is not finite");
  const double largest = detail::largest_magnitude(update);
  if (largest == 0.0) return nearest;
  nearest.relative_error = 1.0;
  const double scale{static_cast<T>(settings.scale)};
  if (scale == 0.0) return nearest;

  detail::MoraMap<Op> map(update.cols(), update.rows(), settings);
  Matrix rest = update.template cast<double>() / largest;  // no square of it overflows
  const double whole = rest.norm();
  const Matrix m = detail::least_squares(map, rest);
  nearest.relative_error = rest.norm() / whole;
  nearest.adapter.matrix().value = (m * (largest / scale)).template cast<T>();
  if (!detail::all_finite(nearest.adapter.matrix().value)) {
    throw NumericError(detail::concat("nearest MoRA: M is beyond the scalar, with entries up to ",
                                      detail::largest_magnitude(m), " times ", largest,
                                      " over the scale ", scale));
  }
  return nearest;
}

}  // namespace mora::inline MORA_ABI
