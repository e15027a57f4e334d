// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <limits>

#include "mora/core/matrix.hpp"

namespace mora::inline MORA_ABI {

/// How the side of M follows from LoRA's rank r.
enum class SideRounding {
  paper,      ///< floor(sqrt((in + out) r)): never more parameters than LoRA (paper, Section 3).
  reference,  ///< int(sqrt((in + out) r) + 0.5), as the paper's code; can exceed LoRA's number.
};

/// The largest rank that settings may ask for.
inline constexpr Index max_rank = 1'000'000;

namespace detail {

inline void require_rank(Index rank) {
  if (rank < 1 || rank > max_rank) {
    throw ArgumentError(concat("rank: expected 1 to ", max_rank, ", found ", rank));
  }
}

/// A factor that is finite in the layer's scalar too, and not zero there alone.
template <class T>
void require_factor(const char* name, double factor) {
  if (!(std::abs(factor) <= static_cast<double>(std::numeric_limits<T>::max()))) {
    throw ArgumentError(concat(name, ": expected a finite number, found ", factor));
  }
  if (factor != 0.0 && static_cast<T>(factor) == T(0)) {
    throw ArgumentError(concat(name, ": expected 0 or a size of at least ",
                               std::numeric_limits<T>::denorm_min(), ", found ", factor));
  }
}

/// A layer's shape: both positive, and a weight whose bytes can be counted.
inline void require_features(Index in_features, Index out_features) {
  if (in_features < 1) {
    throw ShapeError(concat("in_features: expected at least 1, found ", in_features));
  }
  if (out_features < 1) {
    throw ShapeError(concat("out_features: expected at least 1, found ", out_features));
  }
  if (in_features > std::numeric_limits<Index>::max() / 16 / out_features) {
    throw ShapeError(concat("weight: ", out_features, " x ", in_features,
                            " numbers are more than memory can address"));
  }
}

}  // namespace detail

/// r-hat, the side of M with LoRA's parameter count at `rank`: r (in + out). In 1 ... 2^31. Throws
/// ShapeError for features below 1, ArgumentError for a rank out of range or a side beyond 2^31.
[[nodiscard]] inline Index mora_side(Index in_features, Index out_features, Index rank,
                                     SideRounding rounding = SideRounding::paper) {
  detail::require_features(in_features, out_features);
  detail::require_rank(rank);
  constexpr Index max_side = Index{1} << 31;  // so that side^2 numbers can be counted
  if (in_features > max_side || out_features > max_side ||
      in_features + out_features > max_side / rank * max_side) {
    throw ArgumentError(detail::concat("rank: ", rank, " makes the square matrix of a ",
                                       out_features, " x ", in_features, " layer too large"));
  }
  const Index budget = (in_features + out_features) * rank;
  if (rounding == SideRounding::reference) {
    return static_cast<Index>(std::floor(std::sqrt(static_cast<double>(budget)) + 0.5));
  }
  Index side = static_cast<Index>(std::sqrt(static_cast<double>(budget)));
  // The square root of a large number is rounded; the floor is exact all the same.
  while (side * side > budget) --side;
  while ((side + 1) * (side + 1) <= budget) ++side;
  return side;
}

/// LoRA's number of parameters, r (in + out): the budget that adapters are compared at. Throws as
/// mora_side does, for numbers beyond an Index.
[[nodiscard]] inline Index lora_budget(Index in_features, Index out_features, Index rank) {
  detail::require_features(in_features, out_features);
  detail::require_rank(rank);
  if (in_features + out_features > std::numeric_limits<Index>::max() / rank) {
    throw ArgumentError(detail::concat("rank: ", rank, " makes too many parameters for a ",
                                       out_features, " x ", in_features, " layer"));
  }
  return (in_features + out_features) * rank;
}

}  // namespace mora::inline MORA_ABI
