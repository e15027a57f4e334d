// SPDX-License-Identifier: MIT
#pragma once

#include <map>

#include "study/study.hpp"

namespace study {

/// What a step of training takes.
struct Cost {
  double step_ms = 0;  ///< The median over rounds, on one thread.
  double times_first =
      0;  ///< The median of its ratio to the first method's step in the same round.
  double mib =
      0;  ///< Memory besides the weights that runs share, which fresh decoders do not; 0: unknown.
};

/// Of each case of the grid, measured by turns on one thread.
[[nodiscard]] std::map<Case, Cost> measure_costs(const Grid& grid, const Task& task);

}  // namespace study
