// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <string>
#include <vector>

#include "mora/adapters/frozen_linear.hpp"
#include "mora/core/parameter.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

template <class A>
concept ComputesItsPart = bool(A::additive) &&
                          requires(A& a, const A& c, const ConstMap<typename A::Scalar>& in,
                                   MutableMap<typename A::Scalar> out, typename A::Saved& saved,
                                   MutableMap<typename A::Scalar>* dx) {
  c.add_forward(in, out, &saved);
  a.add_backward(in, in, saved, dx);
};
template <class A>
concept ComputesTheLayer =
    !bool(A::additive) &&
    requires(A & a, const A& c, const FrozenLinear<typename A::Scalar>& base,
             const ConstMap<typename A::Scalar>& in, MutableMap<typename A::Scalar> out,
             typename A::Saved& saved, MutableMap<typename A::Scalar>* dx) {
  c.add_forward(base, in, out, &saved);
  a.add_backward(base, in, in, saved, dx);
};

template <class A>
concept Computes = ComputesItsPart<A> || ComputesTheLayer<A>;

}  // namespace detail

/// Which adapter a settings type belongs to: `AdapterOf<float, LoraSettings>` is
/// LoraAdapter<float>. An adapter of a user's own joins models with a specialisation.
template <class T, class Settings>
struct AdapterTraits;
template <class T, class Settings>
using AdapterOf = typename AdapterTraits<T, Settings>::Type;

/// What AdaptedLinear needs of an adapter: the trainable part of a layer around a frozen weight.
///
/// - `Scalar`, `Settings` (an aggregate with defaults and `validate()`), `Saved` (what the backward
///   pass needs besides x; its memory is reused from step to step).
/// - `saves_input`: whether the backward pass needs x itself.
/// - `additive`: whether the update W' - W does not depend on W. An additive adapter computes its
///   own part alone; what reads it may be another x than the frozen layer's (dropout).
///   - `add_forward(x, y, saved)`: y [tokens, out] += the update's output. Fills `*saved` unless it
///     is null. Thread-safe.
///   - `add_backward(x, dy, saved, dx)`: adds to the parameters' gradients, and to dx [tokens, in]
///     unless that is null. x is empty unless saves_input.
///   - `save(x, saved)`: fills `saved` as add_forward does, for passes whose output comes from
///     W + Delta W; dx is null in their backward passes. May be missing, and is not used where the
///     adapter changes the bias.
///   `saved` may serve as working memory. Where a whole layer can be computed faster than the
///   frozen part and this one after the other, it has the two functions below as well.
/// - One that is not additive computes the whole layer.
///   - `add_forward(base, x, y, saved)`: y [tokens, out] += the layer's output, bias included.
///   - `add_backward(base, x, dy, saved, dx)`: as above, with the whole layer's input gradient.
/// - `plan_merge()`: what the rows of a merge have in common, computed once before them. Where
///   `plan_merge(plan)` makes it in the memory of an earlier one, a pass that merges on its way
///   (DoRA's) allocates nothing; it may be missing.
/// - `merge_rows(plan, first, rows)`: on entry rows first ... of W, on exit the merged ones. Called
///   from several threads at once, for disjoint rows. An adapter that is zero changes no bit. A
///   plan owns what it holds: several may be alive at a time.
/// - `reserve_merge()`: takes the working memory of the calling thread for a merge, after which
///   merge_rows does not throw: merge_into must not run out of memory half-way. May be missing
///   where merge_rows takes none.
/// - `merged_bias(bias)`: the merged layer's bias [1, out], where it is not the frozen layer's. May
///   be missing.
/// - `update_bound()`: an upper bound of |W' - W| over all entries, infinite when unknown. It saves
///   merge_into the trial of every row.
/// - `in_features()`, `out_features()`: of the layers that it fits.
/// - `require_saved(saved)`: throws when `saved` cannot be this adapter's. Called before a backward
///   pass changes anything. May be missing.
/// - `require_shapes()`: throws ShapeError when a parameter was given another shape.
/// - `require_disjoint(what, result)`: throws ArgumentError for a result that overlaps what the
///   adapter reads beside its parameters. May be missing.
/// - `require_base(base)`: throws ShapeError for a frozen layer of its size that does not fit it
///   all the same. May be missing.
/// - `visit_parameters(f)`: see Module.
/// - `warnings()`: what is legal about its settings and yet probably not meant.
///
/// Arguments are checked by the layer, and outputs never overlap inputs.
template <class A>
concept Adapter = Module<A> && std::copyable<A> && Real<typename A::Scalar> &&
    detail::Computes<A> && requires(const A& c, MutableMap<typename A::Scalar> out, Index n,
                                    const typename A::Settings& settings) {
  settings.validate();
  { A::saves_input } -> std::convertible_to<bool>;
  { c.in_features() } -> std::same_as<Index>;
  { c.out_features() } -> std::same_as<Index>;
  { c.update_bound() } -> std::convertible_to<double>;
  c.merge_rows(c.plan_merge(), n, out);
  c.require_shapes();
  { c.warnings() } -> std::convertible_to<std::vector<std::string>>;
};

namespace detail {

/// It is made without random numbers.
template <class A>
concept StartsWithoutNumbers = requires(const FrozenLinear<typename A::Scalar>& base,
                                        const typename A::Settings& settings) {
  A(base, settings);
};

/// A fresh adapter, whether it starts with random numbers or not.
template <class A, class G>
[[nodiscard]] A fresh_adapter(const FrozenLinear<typename A::Scalar>& base,
                              const typename A::Settings& settings, G& generator) {
  if constexpr (requires { A(base, settings, generator); }) {
    return A(base, settings, generator);
  } else {
    return A(base, settings);
  }
}

/// Throws ShapeError unless the adapter fits the layer, as it may have been changed freely, and
/// StateError for a layer that was moved from.
template <Adapter A, class T>
void require_fits(const A& adapter, const FrozenLinear<T>& base) {
  base.require_usable();
  require_size("adapter, in_features", base.in_features(), adapter.in_features());
  require_size("adapter, out_features", base.out_features(), adapter.out_features());
  adapter.require_shapes();
  if constexpr (requires { adapter.require_base(base); }) adapter.require_base(base);
}

/// Throws StateError unless a training forward pass was kept and not yet used (-1 tokens), and
/// ShapeError for a gradient of another number of tokens.
inline void require_kept(Index tokens, Index dy_rows) {
  if (tokens < 0) {
    throw StateError("backward: no training forward pass since the last backward pass");
  }
  require_size("backward, rows of dy (tokens)", tokens, dy_rows);
}

/// y += the adapted layer's output.
template <Adapter A, class T>
void add_forward_layer(const A& adapter, const FrozenLinear<T>& base, const ConstMap<T>& x,
                       MutableMap<T> y, typename A::Saved* saved) {
  if constexpr (requires { adapter.add_forward(base, x, y, saved); }) {
    adapter.add_forward(base, x, y, saved);
  } else {
    add_frozen_forward(base, x, y);
    adapter.add_forward(x, y, saved);
  }
}

/// Adds to the parameters' gradients, and to dx unless it is null.
template <Adapter A, class T>
void add_backward_layer(A& adapter, const FrozenLinear<T>& base, const ConstMap<T>& x,
                        const ConstMap<T>& dy, typename A::Saved& saved, MutableMap<T>* dx) {
  if constexpr (requires { adapter.add_backward(base, x, dy, saved, dx); }) {
    adapter.add_backward(base, x, dy, saved, dx);
  } else {
    if (dx) add_frozen_backward(base, dy, *dx);
    adapter.add_backward(x, dy, saved, dx);
  }
}

}  // namespace detail
}  // namespace mora::inline MORA_ABI
