// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "mora/adapters/concepts.hpp"
#include "mora/core/elementwise.hpp"
#include "mora/core/large_memory.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/scratch.hpp"

/// \file
/// Folding an adapter's update into a weight [out, in], row by row, written once over every
/// adapter: as a weight of its own, in place, and the update alone. What throws has changed
/// nothing.

namespace mora::inline MORA_ABI::detail {

struct TrialRows;

/// The plan of a merge, in memory that this thread keeps for the next call with the same `Purpose`,
/// as scratch memory is: at most a tile, or the adapter's thin factor.
template <class Purpose, class A>
[[nodiscard]] const auto& kept_plan(const A& adapter) {
  using Plan = decltype(adapter.plan_merge());
  if constexpr (requires(Plan & plan) { adapter.plan_merge(plan); }) {
    Plan& plan = kept<Plan, Purpose>();
    adapter.plan_merge(plan);
    return std::as_const(plan);
  } else {
    return kept<std::optional<Plan>, Purpose>().emplace(adapter.plan_merge());
  }
}

/// How many rows of a weight fit into the cache.
[[nodiscard]] inline Index weight_chunk(Index in_features) {
  return std::max<Index>(1, (Index{1} << 16) / in_features);
}

/// That many rows after another, in parallel.
template <class F>
void for_each_weight_chunk(Index out_features, Index in_features, const F& f) {
  parallel_pieces(out_features, weight_chunk(in_features), f);
}

template <class T>
void require_finite_rows(Index first, const MutableMap<T>& rows) {
  if (all_finite(rows)) return;
  for (Index i = 0; i < rows.rows(); ++i) {
    for (Index j = 0; j < rows.cols(); ++j) {
      if (!std::isfinite(rows(i, j))) {
        throw NumericError(
            concat("merge: entry (", first + i, ", ", j, ") of the merged weight is ", rows(i, j)));
      }
    }
  }
}

template <Adapter A>
[[nodiscard]] RowVector<typename A::Scalar> merged_bias(
    const A& adapter, const FrozenLinear<typename A::Scalar>& base) {
  if constexpr (requires { adapter.merged_bias(base.bias()); }) {
    RowVector<typename A::Scalar> bias = adapter.merged_bias(base.bias());
    if (!all_finite(bias)) throw NumericError("merge: an entry of the bias is not finite");
    return bias;
  } else {
    return base.bias();
  }
}

/// W + Delta W in memory of its own. Throws NumericError when a number of it is not finite. Cost: a
/// pass over W.
template <Adapter A>
[[nodiscard]] FrozenLinear<typename A::Scalar> merged_layer(
    const A& adapter, const FrozenLinear<typename A::Scalar>& base) {
  using T = typename A::Scalar;
  RowVector<T> bias = merged_bias(adapter, base);
  const Index out = base.out_features();
  const Index in = base.in_features();
  const auto memory = allocate_large<T>(out * in);
  const MutableMap<T> weight(memory.get(), out, in, Eigen::OuterStride<>(in));
  const auto plan = adapter.plan_merge();
  for_each_weight_chunk(out, in, [&](Index first, Index count) {
    MutableMap<T> rows = rows_of(weight, first, count);
    FrozenAccess::read_rows(base, first, rows);
    adapter.merge_rows(plan, first, rows);
    require_finite_rows(first, rows);
  });
  return {memory.get(), out, in, memory, std::move(bias)};
}

/// Whether bounds show that the target merged with the update is finite: nearly always, at the cost
/// of reading the target.
template <Adapter A>
[[nodiscard]] bool surely_finite(const A& adapter, const MutableMap<typename A::Scalar>& target) {
  const double room = static_cast<double>(std::numeric_limits<typename A::Scalar>::max()) / 2;
  if (!(adapter.update_bound() < room)) return false;
  std::atomic<bool> small{true};
  for_each_weight_chunk(target.rows(), target.cols(), [&](Index first, Index count) {
    const double largest = magnitude_bound(as_const(rows_of(target, first, count)));
    if (!(largest < room)) small = false;
  });
  return small;
}

/// Merges a copy of every row, and throws NumericError when a number of it is not finite.
template <Adapter A, class Plan>
void try_merge(const A& adapter, const MutableMap<typename A::Scalar>& target, const Plan& plan) {
  for_each_weight_chunk(target.rows(), target.cols(), [&](Index first, Index count) {
    MutableMap<typename A::Scalar> trial =
        scratch<typename A::Scalar, TrialRows>(count, target.cols());
    trial = rows_of(target, first, count);
    adapter.merge_rows(plan, first, trial);
    require_finite_rows(first, trial);
  });
}

/// target += Delta W, for a target that holds W. Throws NumericError, before it writes, when a
/// number of the result is not finite. Cost: a pass that reads and one that adds, backwards, as the
/// end of the target is still in the cache.
template <Adapter A>
void merge_in_place(const A& adapter, MutableMap<typename A::Scalar> target) {
  const bool tried = surely_finite(adapter, target);
  const auto plan = adapter.plan_merge();
  if (!tried) try_merge(adapter, target, plan);
  parallel_pieces(
      target.rows(), weight_chunk(target.cols()),
      [&] {
        if constexpr (requires { adapter.reserve_merge(); }) adapter.reserve_merge();
      },
      [&](Index first, Index count) {
        const Index begin = target.rows() - first - count;
        adapter.merge_rows(plan, begin, rows_of(target, begin, count));
      });
}

/// Delta W [out, in] as a dense matrix: what merging adds.
template <Adapter A>
[[nodiscard]] Matrix<typename A::Scalar> dense_update(
    const A& adapter, const FrozenLinear<typename A::Scalar>& base) {
  using T = typename A::Scalar;
  Matrix<T> delta(base.out_features(), base.in_features());
  const auto plan = adapter.plan_merge();
  for_each_weight_chunk(delta.rows(), delta.cols(), [&](Index first, Index count) {
    MutableMap<T> rows = rows_of(map_of(delta), first, count);
    if constexpr (A::additive) {
      rows.setZero();
      adapter.merge_rows(plan, first, rows);
    } else {
      MutableMap<T> frozen = scratch<T, TrialRows>(count, delta.cols());
      FrozenAccess::read_rows(base, first, frozen);
      rows = frozen;
      adapter.merge_rows(plan, first, rows);
      rows -= frozen;
    }
  });
  return delta;
}

}  // namespace mora::inline MORA_ABI::detail
