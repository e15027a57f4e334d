// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "mora/adapters/named_adapter.hpp"
#include "mora/analysis/low_rank.hpp"
#include "mora/io/peft/mora_operators.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

/// Calls f(adapter) with the adapter itself where it is LoRA, or MoRA with an operator that a
/// folder can name; false for others.
template <Real T, class F>
[[nodiscard]] bool with_known_adapter(const AnyAdapter<T>& any, const F& f) {
  bool known = false;
  const auto try_type = [&]<class A>(std::type_identity<A>) {
    if (known) return;
    if (const A* const adapter = any.template get_if<A>()) {
      known = true;
      f(*adapter);
    }
  };
  try_type(std::type_identity<LoraAdapter<T>>{});
  [&]<class... Op>(std::type_identity<std::variant<Op...>>) {
    (try_type(std::type_identity<MoraAdapter<T, Op>>{}), ...);
  }(std::type_identity<PeftOperator>{});
  return known;
}

}  // namespace detail

/// What became of one module.
struct ExportedModule {
  std::string module;
  Index rank = 0;
  double relative_error = 0.0;  ///< See LowRankUpdate.
};

template <Real T>
struct LoraExport {
  std::vector<NamedAdapter<T>> adapters;
  std::vector<ExportedModule> modules;  ///< In the same order; without those that stay as they are.
};

/// MoRA and LoRA adapters as plain LoRA of scale 1, which every reader of PEFT folders knows; what
/// is stored whole (FullAdapter) stays. Without settings nothing is lost but rounding: rank r̂ for
/// truncation and any sharing. Throws as low_rank does, naming the module, and ArgumentError for an
/// adapter of a type of the caller's.
template <Real T>
[[nodiscard]] LoraExport<T> export_lora(const std::vector<NamedAdapter<T>>& adapters,
                                        const LowRankSettings& settings = {}) {
  settings.validate();
  LoraExport<T> result;
  for (const NamedAdapter<T>& each : adapters) {
    if (each.adapter.template get_if<FullAdapter<T>>()) {
      result.adapters.push_back(each);
      continue;
    }
    const bool known = detail::with_known_adapter(each.adapter, [&](const auto& adapter) {
      auto update = [&] {
        try {
          return low_rank(adapter, settings);
        } catch (const NumericError& error) {
          throw NumericError(detail::concat(each.module, ": ", error.what()));
        }
      }();
      result.modules.push_back(
          {each.module, update.adapter.settings().rank, update.relative_error});
      result.adapters.push_back(
          {each.module, AnyAdapter<T>(std::move(update.adapter)), each.dropout});
    });
    if (!known) {
      throw ArgumentError(
          detail::concat(each.module, ": its adapter is of a type that is not exported"));
    }
  }
  return result;
}

}  // namespace mora::inline MORA_ABI
