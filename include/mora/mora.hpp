// SPDX-License-Identifier: MIT
#pragma once

/// \file
/// The whole library but for analysis/singular_values.hpp, which compiles Eigen's decompositions.
/// One header for one thing works as well.

#include "mora/adapters/linear.hpp"
#include "mora/analysis/budget.hpp"
#include "mora/analysis/spectrum.hpp"
#include "mora/operators/reference_types.hpp"
#include "mora/operators/truncation.hpp"
#include "mora/optim/adamw.hpp"
#include "mora/optim/clip.hpp"
#include "mora/optim/schedule.hpp"
#include "mora/optim/sgd.hpp"
#include "mora/version.hpp"
