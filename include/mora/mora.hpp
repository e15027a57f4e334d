// SPDX-License-Identifier: MIT
#pragma once

/// \file
/// The whole library but for analysis/low_rank.hpp, analysis/pissa.hpp and
/// analysis/singular_values.hpp, which compile Eigen's decompositions, and for io, which needs
/// nlohmann/json. One header for one thing works as
/// well.

#include "mora/adapters/arithmetic.hpp"
#include "mora/adapters/linear.hpp"
#include "mora/analysis/budget.hpp"
#include "mora/analysis/nearest_mora.hpp"
#include "mora/analysis/spectrum.hpp"
#include "mora/models/batch.hpp"
#include "mora/models/llama/generate.hpp"
#include "mora/operators/reference_types.hpp"
#include "mora/operators/truncation.hpp"
#include "mora/optim/adamw.hpp"
#include "mora/optim/clip.hpp"
#include "mora/optim/schedule.hpp"
#include "mora/optim/sgd.hpp"
#include "mora/train/batches.hpp"
#include "mora/train/byte_tokenizer.hpp"
#include "mora/train/callbacks/checkpoint.hpp"
#include "mora/train/callbacks/csv_log.hpp"
#include "mora/train/callbacks/early_stop.hpp"
#include "mora/train/callbacks/history.hpp"
#include "mora/train/callbacks/progress.hpp"
#include "mora/train/callbacks/restart.hpp"
#include "mora/train/evaluate.hpp"
#include "mora/train/prompt_responses.hpp"
#include "mora/train/token_windows.hpp"
#include "mora/train/train.hpp"
#include "mora/version.hpp"
