// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <type_traits>
#include <utility>
#include <vector>

#include "mora/adapters/named_adapter.hpp"
#include "mora/analysis/low_rank.hpp"
#include "mora/io/peft/adapter_export.hpp"
#include "mora/io/peft/visit_adapter.hpp"

namespace mora::inline MORA_ABI {

/// Adapters as plain LoRA of scale 1, which every reader of PEFT folders knows; what is stored
/// whole (FullAdapter) stays. Without settings nothing is lost but rounding: rank r̂ for truncation
/// and any sharing, min(in, out) for DoRA and HiRA, whose update is that on the frozen weight.
/// Throws as low_rank does, naming the module, and ArgumentError for an adapter of a type of the
/// caller's, and for DoRA and HiRA without `weight`.
template <Real T>
[[nodiscard]] AdapterExport<T> export_lora(const std::vector<NamedAdapter<T>>& adapters,
                                           const LowRankSettings& settings = {},
                                           const std::type_identity_t<WeightOf<T>>& weight = {}) {
  settings.validate();
  AdapterExport<T> result;
  for (const NamedAdapter<T>& each : adapters) {
    const auto keep = [&](LowRankUpdate<T> update) {
      result.modules.push_back(
          {each.module, update.adapter.settings().rank, update.relative_error});
      result.adapters.push_back(
          {each.module, AnyAdapter<T>(std::move(update.adapter)), each.dropout});
    };
    detail::name_module(each.module, [&] {
      const bool known = visit_adapter(each.adapter, [&]<class A>(const A& adapter) {
        if constexpr (std::same_as<A, FullAdapter<T>>) {
          result.adapters.push_back(each);
        } else if constexpr (!A::additive) {
          keep(low_rank(detail::update_on_weight(each, weight), settings));
        } else {
          keep(low_rank(adapter, settings));
        }
      });
      if (!known) throw ArgumentError("its adapter is of a type that is not exported");
    });
  }
  return result;
}

}  // namespace mora::inline MORA_ABI
