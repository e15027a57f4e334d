// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <string>
#include <vector>

#include "mora/adapters/frozen_linear.hpp"
#include "mora/core/parameter.hpp"

namespace mora::inline MORA_ABI {

/// What AdaptedLinear needs of an adapter: the trainable part of a layer around a frozen weight.
///
/// - `Scalar`, `Settings` (an aggregate with defaults and `validate()`), `Saved` (what the backward
///   pass needs besides x; its memory is reused from step to step).
/// - `saves_input`: whether the backward pass needs x itself.
/// - `additive`: whether the update W' - W does not depend on W.
/// - `forward(base, x, y, saved)`: y [tokens, out], overwritten, = the adapted layer's output, bias
///   included. Fills `*saved` unless it is null. Thread-safe.
/// - `backward(base, x, dy, saved, dx)`: adds to the parameters' gradients; overwrites dx [tokens,
///   in] with the whole layer's input gradient unless dx is null. x is empty unless saves_input.
/// - `plan_merge()`: what the rows of a merge have in common, computed once before them.
/// - `merge_rows(plan, first, rows)`: on entry rows first ... of W, on exit the merged ones. Called
/// from several threads at once, for disjoint rows. A zero update changes no bit.
/// - `update_bound()`: an upper bound of |W' - W| over all entries, infinite when unknown. It saves
///   merge_into the trial of every row.
/// - `require_shapes()`: throws ShapeError when a parameter was given another shape.
/// - `visit_parameters(f)`: see Module.
/// - `warnings()`: what is legal about its settings and yet probably not meant.
///
/// Arguments are checked by the layer, and outputs never overlap inputs.
template <class A>
concept Adapter = Module<A> && std::copyable<A> && Real<typename A::Scalar> &&
    requires(A& a, const A& c, const FrozenLinear<typename A::Scalar>& base,
             const ConstMap<typename A::Scalar>& in, MutableMap<typename A::Scalar> out,
             typename A::Saved& saved, MutableMap<typename A::Scalar>* dx, Index n,
             const typename A::Settings& settings) {
  settings.validate();
  { A::saves_input } -> std::convertible_to<bool>;
  { A::additive } -> std::convertible_to<bool>;
  c.forward(base, in, out, &saved);
  a.backward(base, in, in, saved, dx);
  c.merge_rows(c.plan_merge(), n, out);
  c.require_shapes();
  { c.warnings() } -> std::convertible_to<std::vector<std::string>>;
};

}  // namespace mora::inline MORA_ABI
