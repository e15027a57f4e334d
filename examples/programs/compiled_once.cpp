// SPDX-License-Identifier: MIT
#include <mora/io/peft/peft_folder.hpp>

/// \file
/// Adapters of every kind, made from a folder: what takes longest to compile, once for all programs
/// (programs/program.hpp declares it).

template std::vector<mora::NamedAdapter<float>> mora::PeftFolder::adapters<float>(
    std::span<const mora::LayerShape>) const;
template std::vector<mora::NamedAdapter<double>> mora::PeftFolder::adapters<double>(
    std::span<const mora::LayerShape>) const;
