// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "mora/core/elementwise.hpp"
#include "mora/core/parameter.hpp"

namespace mora::inline MORA_ABI::detail {

/// What an optimizer remembers of each parameter (matrices of its shape), by name.
template <class State>
using StateByName = std::map<std::string, State, std::less<>>;

/// An optimizer's step: `update(state, parameter)` for each parameter that has a gradient. Every
/// gradient is checked, and the memory for new states taken, before the first update, so that a
/// step which throws has changed nothing: no weight, and no moment poisoned by a NaN.
template <class State, class M, class Update>
void step_each(StateByName<State>& states, M& module, const Update& update) {
  module.visit_parameters([&](std::string_view name, auto& p) {
    if (p.gradient.size() == 0) return;
    require_same_shape("gradient", name, p.value, p.gradient);
    if (!all_finite(p.gradient)) throw NumericError(concat("gradient of ", name, ": not finite"));
    auto state = states.find(name);
    if (state == states.end()) {
      state = states.emplace(std::string(name), State(p.value.rows(), p.value.cols())).first;
    }
    require_same_shape("optimizer state", name, p.value, state->second.first());
  });
  module.visit_parameters([&](std::string_view name, auto& p) {
    if (p.gradient.size() != 0) update(states.find(name)->second, p);
  });
}

/// Throws ArgumentError unless minimum <= value < limit.
inline void require_range(const char* name, double value, double minimum, double limit) {
  if (!(value >= minimum && value < limit)) {
    throw ArgumentError(
        concat(name, ": expected ", minimum, " <= ", name, " < ", limit, ", found ", value));
  }
}

}  // namespace mora::inline MORA_ABI::detail
