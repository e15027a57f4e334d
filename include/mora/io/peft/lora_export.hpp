// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <utility>
#include <vector>

#include "mora/adapters/named_adapter.hpp"
#include "mora/analysis/low_rank.hpp"
#include "mora/io/peft/adapter_export.hpp"
#include "mora/io/peft/visit_adapter.hpp"

namespace mora::inline MORA_ABI {

/// Additive adapters (LoRA, LoKr, MiSS, MoRA) as plain LoRA of scale 1, which every reader of PEFT
/// folders knows; what is stored whole (FullAdapter) stays. Without settings nothing is lost but
/// rounding: rank r̂ for truncation and any sharing. Throws as low_rank does, naming the module, and
/// ArgumentError for an adapter of a type of the caller's.
template <Real T>
[[nodiscard]] AdapterExport<T> export_lora(const std::vector<NamedAdapter<T>>& adapters,
                                           const LowRankSettings& settings = {}) {
  settings.validate();
  AdapterExport<T> result;
  for (const NamedAdapter<T>& each : adapters) {
    const bool known = visit_adapter(each.adapter, [&]<class A>(const A& adapter) {
      if constexpr (std::same_as<A, FullAdapter<T>>) {
        result.adapters.push_back(each);
      } else if constexpr (!A::additive) {
        throw ArgumentError(detail::concat(
            each.module, ": its update depends on the frozen weight, and is no LoRA for itself"));
      } else {
        try {
          LowRankUpdate<T> update = low_rank(adapter, settings);
          result.modules.push_back(
              {each.module, update.adapter.settings().rank, update.relative_error});
          result.adapters.push_back(
              {each.module, AnyAdapter<T>(std::move(update.adapter)), each.dropout});
        } catch (const NumericError& error) {
          throw NumericError(detail::concat(each.module, ": ", error.what()));
        }
      }
    });
    if (!known) {
      throw ArgumentError(
          detail::concat(each.module, ": its adapter is of a type that is not exported"));
    }
  }
  return result;
}

}  // namespace mora::inline MORA_ABI
