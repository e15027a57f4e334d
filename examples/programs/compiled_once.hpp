// SPDX-License-Identifier: MIT
#pragma once

#include <mora/io/peft/peft_folder.hpp>
#include <span>
#include <vector>

#include "experiment/decompositions_once.hpp"

/// \file
/// Adapters of every kind, made from a folder: what takes longest to compile, once for all
/// programs, in compiled_once.cpp, which defines the word before `template` as nothing.

#ifndef PROGRAMS_EXTERN
#define PROGRAMS_EXTERN extern
#endif

PROGRAMS_EXTERN template std::vector<mora::NamedAdapter<float>> mora::PeftFolder::adapters<float>(
    std::span<const mora::LayerShape>) const;
PROGRAMS_EXTERN template std::vector<mora::NamedAdapter<double>> mora::PeftFolder::adapters<double>(
    std::span<const mora::LayerShape>) const;
