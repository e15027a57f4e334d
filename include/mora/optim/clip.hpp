// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <type_traits>

#include "mora/core/parallel.hpp"
#include "mora/core/parameter.hpp"
#include "mora/core/scratch.hpp"

namespace mora::inline MORA_ABI {

/// The Euclidean norm of all gradients of a module together.
struct GradientNorm {
  double norm = 0.0;
  std::string not_finite;  ///< The first parameter at which the norm is not finite, or empty.

  [[nodiscard]] bool finite() const { return std::isfinite(norm); }
};

namespace detail {

struct SquaresOfPieces;  // what scratch memory is for

/// In double, piece by piece: the sum does not depend on the number of threads.
template <class T>
[[nodiscard]] double sum_of_squares(const Matrix<T>& x) {
  constexpr Index piece = Index{1} << 14;
  double* const sums = scratch<double, SquaresOfPieces>((x.size() + piece - 1) / piece);
  parallel_pieces(x.size(), piece, [&](Index first, Index count) {
    const Eigen::Map<const Eigen::Array<T, Eigen::Dynamic, 1>> numbers(x.data() + first, count);
    sums[first / piece] = numbers.template cast<double>().square().sum();
  });
  double sum = 0.0;
  for (Index i = 0; i * piece < x.size(); ++i) sum += sums[i];
  return sum;
}

}  // namespace detail

/// The norm of the gradients, summed in double. Parameters without a gradient count as zero.
template <Module M>
[[nodiscard]] GradientNorm gradient_norm(M& module) {
  GradientNorm result;
  double sum = 0.0;
  module.visit_parameters([&](std::string_view name, const auto& p) {
    sum += detail::sum_of_squares(p.gradient);
    if (!std::isfinite(sum) && result.not_finite.empty()) result.not_finite = name;
  });
  result.norm = std::sqrt(sum);
  return result;
}

/// Clips the gradients by their norm as torch.nn.utils.clip_grad_norm_ does: multiplies each with
/// min(1, maximum / (norm + 1e-6)) (Pascanu et al. 2013, arXiv 1211.5063, Algorithm 1). Returns the
/// norm before. When that is not finite nothing has changed, for the caller to skip the step or to
/// stop. Throws ArgumentError unless 0 < maximum.
template <Module M>
GradientNorm clip_gradient_norm(M& module, double maximum) {
  if (!(maximum > 0.0)) {
    throw ArgumentError(detail::concat("maximum norm: expected a positive one, found ", maximum));
  }
  GradientNorm result = gradient_norm(module);
  const double factor = maximum / (result.norm + 1e-6);
  if (!result.finite() || factor >= 1.0) return result;
  module.visit_parameters([&](std::string_view, auto& p) {
    using T = typename std::decay_t<decltype(p.gradient)>::Scalar;
    constexpr Index piece = Index{1} << 14;
    detail::parallel_pieces(p.gradient.size(), piece, [&](Index first, Index count) {
      Eigen::Map<Eigen::Array<T, Eigen::Dynamic, 1>>(p.gradient.data() + first, count) *=
          static_cast<T>(factor);
    });
  });
  return result;
}

}  // namespace mora::inline MORA_ABI
