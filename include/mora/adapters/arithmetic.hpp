// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <utility>
#include <vector>

#include "mora/adapters/lora.hpp"
#include "mora/adapters/mora.hpp"

/// \file
/// Weighted sums of updates, in the adapters' own form: sum_i w_i Delta W_i. The parts of LoRA
/// cannot be added up one by one, (B_1 + B_2)(A_1 + A_2) has products that nobody trained; MoRA's
/// update is linear in M, so that its can.

namespace mora::inline MORA_ABI {

/// One summand: an adapter that outlives the call, and its weight.
template <class A>
struct Summand {
  const A* adapter = nullptr;
  double weight = 1.0;
};

namespace detail {

template <class A>
void require_summands(const std::vector<Summand<A>>& terms) {
  if (terms.empty()) throw ArgumentError("weighted_sum: expected at least 1 adapter, found 0");
  for (std::size_t i = 0; i < terms.size(); ++i) {
    const auto& [adapter, weight] = terms[i];
    if (!adapter) throw ArgumentError(concat("weighted_sum: adapter ", i, " is null"));
    if (!std::isfinite(weight)) {
      throw ArgumentError(
          concat("weighted_sum: weight ", i, ": expected a finite number, found ", weight));
    }
    adapter->require_shapes();
    const A& first = *terms.front().adapter;
    require_size("weighted_sum, in_features", first.in_features(), adapter->in_features());
    require_size("weighted_sum, out_features", first.out_features(), adapter->out_features());
  }
}

template <class T>
void require_finite_sum(const Matrix<T>& sum) {
  if (!all_finite(sum)) throw NumericError("weighted_sum: a number of the sum is not finite");
}

}  // namespace detail

/// M = sum_i w_i M_i where all have one scale, which the sum then has; else the sum's scale is 1
/// and M = sum_i w_i s_i M_i. Throws ShapeError for adapters of different sizes, ArgumentError for
/// different operators (another seed, another base), null, no summands or a weight that is not
/// finite, NumericError for a sum that is not.
template <Real T, class Op>
requires std::equality_comparable<Op>
[[nodiscard]] MoraAdapter<T, Op> weighted_sum(
    const std::vector<Summand<MoraAdapter<T, Op>>>& terms) {
  detail::require_summands(terms);
  const MoraAdapter<T, Op>& first = *terms.front().adapter;
  MoraSettings<Op> settings = first.settings();
  bool one_scale = true;
  for (const auto& [adapter, weight] : terms) {
    detail::require_size("weighted_sum, side of M", first.side(), adapter->side());
    if (!(adapter->settings().op == settings.op)) {
      throw ArgumentError("weighted_sum: the adapters' operators have different settings");
    }
    one_scale = one_scale && adapter->settings().scale == settings.scale;
  }
  if (!one_scale) settings.scale = 1.0;
  MoraAdapter<T, Op> sum(first.in_features(), first.out_features(), settings);
  Matrix<double> m = Matrix<double>::Zero(first.side(), first.side());
  for (const auto& [adapter, weight] : terms) {
    const double factor = one_scale ? weight : weight * adapter->settings().scale;
    m += factor * adapter->matrix().value.template cast<double>();
  }
  sum.matrix().value = m.template cast<T>();
  detail::require_finite_sum(sum.matrix().value);
  return sum;
}

/// [B_1 ... B_n] and [A_1; ...; A_n], B_i times w_i s_i: rank sum_i r_i, scale 1. One summand alone
/// keeps its settings, and its B is times w_1 only. Throws as for MoRA, and ArgumentError for a
/// rank beyond max_rank.
template <Real T>
[[nodiscard]] LoraAdapter<T> weighted_sum(const std::vector<Summand<LoraAdapter<T>>>& terms) {
  detail::require_summands(terms);
  const LoraAdapter<T>& first = *terms.front().adapter;
  Index rank = 0;
  for (const auto& [adapter, weight] : terms) rank += adapter->settings().rank;
  const bool alone = terms.size() == 1;
  LoraSettings settings{.rank = rank, .alpha = static_cast<double>(rank)};
  if (alone) settings = first.settings();
  Matrix<T> a(rank, first.in_features());
  Matrix<T> b(first.out_features(), rank);
  Index at = 0;
  for (const auto& [adapter, weight] : terms) {
    const Index r = adapter->settings().rank;
    const double factor = alone ? weight : weight * adapter->settings().scale();
    a.middleRows(at, r) = adapter->a().value;
    b.middleCols(at, r) = (factor * adapter->b().value.template cast<double>()).template cast<T>();
    at += r;
  }
  detail::require_finite_sum(a);
  detail::require_finite_sum(b);
  return {std::move(a), std::move(b), settings};
}

/// -Delta W, to take back what an adapter has taught: weighted_sum of it alone, -1 times M or B and
/// all else as it was, so that the update changes no bit but signs.
template <class A>
requires requires(const std::vector<Summand<A>>& terms) { weighted_sum(terms); }
[[nodiscard]] A negated(const A& adapter) {
  return weighted_sum(std::vector<Summand<A>>{{&adapter, -1.0}});
}

/// The mean of the updates.
template <class A>
requires requires(const std::vector<Summand<A>>& terms) { weighted_sum(terms); }
[[nodiscard]] A average(const std::vector<const A*>& adapters) {
  std::vector<Summand<A>> terms;
  for (const A* adapter : adapters) {
    terms.push_back({adapter, 1.0 / static_cast<double>(adapters.size())});
  }
  return weighted_sum(terms);
}

}  // namespace mora::inline MORA_ABI
