// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <mora/adapters/mora.hpp>
#include <string_view>
#include <type_traits>

#include "support/operators.hpp"
#include "support/random.hpp"

namespace mora_tests {

/// Random parameters.
template <class A>
[[nodiscard]] A filled(A adapter, Random& random) {
  adapter.visit_parameters(
      [&](std::string_view, auto& p) { mora::fill_normal(p.value, 1.0, random.generator()); });
  return adapter;
}

/// Delta W as merging adds it to zeros.
template <class A>
[[nodiscard]] mora::Matrix<double> update_of(const A& adapter) {
  using T = typename A::Scalar;
  mora::Matrix<T> update = mora::Matrix<T>::Zero(adapter.out_features(), adapter.in_features());
  adapter.merge_rows(adapter.plan_merge(), 0, mora::detail::map_of(update));
  return update.template cast<double>();
}

/// Calls f(shape, settings) for MoRA with every operator at all the awkward shapes that it has.
template <class F>
void for_each_mora(const F& f) {
  for_each_operator([&](const char* name, const auto& op) {
    SCOPED_TRACE(name);
    for (const Shape& shape : awkward_shapes) {
      SCOPED_TRACE(shape);
      if (!side_for(op, shape)) continue;
      mora::MoraSettings<std::decay_t<decltype(op)>> settings;
      settings.rank = shape.rank;
      settings.rounding = shape.rounding;
      settings.scale = -0.75;
      settings.op = op;
      f(shape, settings);
    }
  });
}

/// The adapter of given settings.
template <class Settings>
using MoraOf = mora::MoraAdapter<double, std::decay_t<decltype(Settings::op)>>;

}  // namespace mora_tests
