// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>
#include <variant>

#include "mora/adapters/any_adapter.hpp"
#include "mora/adapters/dora.hpp"
#include "mora/adapters/full.hpp"
#include "mora/adapters/hira.hpp"
#include "mora/adapters/lokr.hpp"
#include "mora/adapters/lora.hpp"
#include "mora/adapters/miss.hpp"
#include "mora/adapters/mora.hpp"
#include "mora/io/peft/mora_operators.hpp"

namespace mora::inline MORA_ABI {

/// Calls f(adapter) with what is behind an AnyAdapter, where an adapter folder can name it: LoRA,
/// DoRA over it, HiRA, LoKr, MiSS, MoRA with a PeftOperator, or a FullAdapter. Returns false,
/// without a call, for other types.
template <Real T, class F>
[[nodiscard]] bool visit_adapter(const AnyAdapter<T>& any, const F& f) {
  bool found = false;
  const auto try_type = [&]<class A>(std::type_identity<A>) {
    const A* const adapter = found ? nullptr : any.template get_if<A>();
    if (!adapter) return;
    found = true;
    f(*adapter);
  };
  try_type(std::type_identity<LoraAdapter<T>>{});
  try_type(std::type_identity<DoraAdapter<LoraAdapter<T>>>{});
  try_type(std::type_identity<HiraAdapter<T>>{});
  try_type(std::type_identity<LokrAdapter<T>>{});
  try_type(std::type_identity<MissAdapter<T>>{});
  try_type(std::type_identity<FullAdapter<T>>{});
  [&]<class... Op>(std::type_identity<std::variant<Op...>>) {
    (try_type(std::type_identity<MoraAdapter<T, Op>>{}), ...);
  }(std::type_identity<PeftOperator>{});
  return found;
}

}  // namespace mora::inline MORA_ABI
