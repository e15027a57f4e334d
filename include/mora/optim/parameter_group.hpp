// SPDX-License-Identifier: MIT
#pragma once

#include <limits>

#include "mora/optim/name_rule.hpp"

namespace mora::inline MORA_ABI {

/// Parameters that an optimizer treats by settings of their own.
template <class Settings>
struct ParameterGroup {
  NameRule parameters;
  Settings settings;
};

/// LoRA+ (Hayou et al. 2024, arXiv 2402.12354): the B of every LoRA adapter learns `ratio` times as
/// fast as A, which keeps `settings`. The paper has ratios of 2 to 16. For an optimizer of modules
/// with LoRA: elsewhere no parameter is called B, and the optimizer refuses to step.
/// Throws ArgumentError unless 0 < ratio < infinity.
template <class Settings>
[[nodiscard]] ParameterGroup<Settings> lora_plus(Settings settings, double ratio) {
  detail::require_range("lora_plus, ratio", ratio, std::numeric_limits<double>::min(),
                        std::numeric_limits<double>::infinity());
  settings.learning_rate *= ratio;
  return {"B", settings};
}

}  // namespace mora::inline MORA_ABI
