// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>

#include "mora/core/matrix.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

/// Neighbouring numbers of a parameter, its gradient or a moment.
template <class T>
using Numbers = Eigen::Map<Eigen::Array<T, Eigen::Dynamic, 1>>;
template <class T>
using ConstNumbers = Eigen::Map<const Eigen::Array<T, Eigen::Dynamic, 1>>;

/// A coefficient of a step in its scalar. Throws ArgumentError unless it is finite there.
template <class T>
[[nodiscard]] T coefficient(const char* what, double value) {
  constexpr double largest{std::numeric_limits<T>::max()};
  if (!(std::abs(value) <= largest)) {
    throw ArgumentError(concat(what, ": expected at most ", largest, " in size, found ", value));
  }
  return static_cast<T>(value);
}

}  // namespace detail

/// What Optimizer needs of a method: a value that has the coefficients of one step of one
/// parameter.
///
/// - `Scalar`, `Settings` (an aggregate with `learning_rate` and `validate()`).
/// - `moments`: the names of the numbers that it remembers for each weight, zero at the start.
/// - `Rule(settings, factor, step)`: `factor` multiplies the learning rate; `step` counts the steps
///   of the parameter from 1. Throws ArgumentError where a coefficient is beyond Scalar.
/// - `Rule::accepts(g)`: whether the gradient g leaves every moment finite.
/// - `rule.update(w, g, moments)`: changes weights and moments, number by number. Called from
///   several threads at once, for disjoint numbers.
template <class R>
concept UpdateRule = Real<typename R::Scalar> && std::copyable<typename R::Settings> &&
    requires(const R& rule, const typename R::Settings& settings,
             detail::Numbers<typename R::Scalar>& w,
             const detail::ConstNumbers<typename R::Scalar>& g,
             std::array<detail::Numbers<typename R::Scalar>, R::moments.size()>& moments) {
  settings.validate();
  { settings.learning_rate } -> std::convertible_to<double>;
  R(settings, 1.0, std::int64_t{1});
  { R::accepts(g) } -> std::same_as<bool>;
  rule.update(w, g, moments);
};

}  // namespace mora::inline MORA_ABI
