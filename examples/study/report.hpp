// SPDX-License-Identifier: MIT
#pragma once

#include <iosfwd>
#include <map>
#include <string>

#include "study/cost.hpp"

namespace study {

/// runs.csv: every run of the results; curves.csv: the same by step; learning_rates.csv: the whole
/// search; spectrum.csv and singular_values.csv: what was learnt.
void write_csv(const Study& study, const std::string& folder);
/// cost.csv: a step's, in the order of the grid.
void write_costs(const Grid& grid, const std::map<Case, Cost>& costs, const std::string& folder);

void print_costs(const Grid& grid, const std::map<Case, Cost>& costs, std::ostream& out);
/// The search and the results as tables.
void print(const Study& study, const std::map<Case, Cost>& costs, std::ostream& out);

}  // namespace study
