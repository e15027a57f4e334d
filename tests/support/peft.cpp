// SPDX-License-Identifier: MIT
#include "support/peft.hpp"

template std::vector<mora::NamedAdapter<float>> mora::PeftFolder::adapters<float>(
    std::span<const mora::LayerShape>) const;
template std::vector<mora::NamedAdapter<double>> mora::PeftFolder::adapters<double>(
    std::span<const mora::LayerShape>) const;
