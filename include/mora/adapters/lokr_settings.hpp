// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>

#include "mora/adapters/kronecker.hpp"
#include "mora/adapters/side.hpp"
#include "mora/core/error.hpp"

/// \file
/// What a LoKr adapter is asked for, and the sizes that follow for a layer, by PEFT's rules.

namespace mora::inline MORA_ABI {

/// Settings of a LoKr adapter; the defaults are PEFT's.
struct LokrSettings {
  Index rank = 8;      ///< r, 1 ... max_rank.
  double alpha = 8.0;  ///< Finite.
  /// The outputs and the inputs of W1, where it divides those of the layer; else the largest
  /// divisors up to it and up to the square root. -1: the nearest to the square root; or from 1 on.
  Index decompose_factor = -1;
  bool decompose_both = false;  ///< Whether W1 may be thin too.

  /// s in W + s W1 (x) W2.
  [[nodiscard]] double scale() const { return alpha / static_cast<double>(rank); }
  /// Throws ArgumentError naming the setting that is out of range.
  void validate() const {
    detail::require_rank(rank);
    if (!std::isfinite(alpha)) {
      throw ArgumentError(detail::concat("alpha: expected a finite number, found ", alpha));
    }
    if (decompose_factor != -1 && decompose_factor < 1) {
      throw ArgumentError(
          detail::concat("decompose_factor: expected -1 or at least 1, found ", decompose_factor));
    }
  }
};

namespace detail {

/// The part of `features` for the first factor, by PEFT's rule: `wanted` where that divides them,
/// else their largest divisor beyond neither `wanted` (-1: any) nor the square root.
[[nodiscard]] inline Index first_factor(Index features, Index wanted) {
  if (wanted > 0 && features % wanted == 0) return wanted;
  auto divisor = static_cast<Index>(std::sqrt(static_cast<double>(features)));
  while (divisor * divisor > features) --divisor;  // the root of a large number is rounded
  while ((divisor + 1) * (divisor + 1) <= features) ++divisor;
  if (wanted > 0) divisor = std::min(divisor, wanted);
  while (features % divisor != 0) --divisor;
  return divisor;
}

}  // namespace detail

/// The sizes of LoKr's factors for a layer: W2 is thin where r is below half of its larger side,
/// W1 so too with decompose_both. Throws ArgumentError for settings out of range, ShapeError for
/// features below 1 or numbers beyond memory.
[[nodiscard]] inline KroneckerShape lokr_shape(Index in_features, Index out_features,
                                               const LokrSettings& settings) {
  settings.validate();
  detail::require_features(in_features, out_features);
  KroneckerShape shape{.rows1 = detail::first_factor(out_features, settings.decompose_factor),
                       .cols1 = detail::first_factor(in_features, settings.decompose_factor),
                       .rank = settings.rank};
  shape.rows2 = out_features / shape.rows1;
  shape.cols2 = in_features / shape.cols1;
  const auto below_half = [&](Index rows, Index cols) {
    return 2 * settings.rank < std::max(rows, cols);
  };
  shape.thin1 = settings.decompose_both && below_half(shape.rows1, shape.cols1);
  shape.thin2 = below_half(shape.rows2, shape.cols2);
  if (shape.thin1) detail::require_features(std::max(shape.rows1, shape.cols1), shape.rank);
  if (shape.thin2) detail::require_features(std::max(shape.rows2, shape.cols2), shape.rank);
  return shape;
}

}  // namespace mora::inline MORA_ABI
