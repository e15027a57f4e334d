// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "mora/adapters/named_adapter.hpp"

namespace mora::inline MORA_ABI {

/// Gives a module's frozen weight, for adapters whose update depends on it (DoRA, HiRA).
template <Real T>
using WeightOf = std::function<FrozenLinear<T>(const std::string& module)>;

/// What became of one module.
struct ExportedModule {
  std::string module;
  Index rank = 0;
  double relative_error = 0.0;  ///< What the update has lost, in Frobenius norm.
};

/// Adapters in another form.
template <Real T>
struct AdapterExport {
  std::vector<NamedAdapter<T>> adapters;
  std::vector<ExportedModule> modules;  ///< In the same order; without those that stay as they are.
};

namespace detail {

/// Delta W [out, in] of an adapter that needs the frozen weight for it. Throws ArgumentError where
/// there is none.
template <Real T>
[[nodiscard]] Matrix<T> update_on_weight(const NamedAdapter<T>& each, const WeightOf<T>& weight) {
  if (!weight) {
    throw ArgumentError("its update depends on the frozen weight, which is not given");
  }
  const FrozenLinear<T> frozen = weight(each.module);
  require_size("frozen weight, rows (out_features)", each.adapter.out_features(),
               frozen.out_features());
  require_size("frozen weight, columns (in_features)", each.adapter.in_features(),
               frozen.in_features());
  return each.adapter.update(frozen);
}

/// `f()`, with the module in front of what it throws.
template <class F>
void name_module(const std::string& module, const F& f) {
  try {
    f();
  } catch (const NumericError& error) {
    throw NumericError(concat(module, ": ", error.what()));
  } catch (const ShapeError& error) {
    throw ShapeError(concat(module, ": ", error.what()));
  } catch (const ArgumentError& error) {
    throw ArgumentError(concat(module, ": ", error.what()));
  }
}

}  // namespace detail
}  // namespace mora::inline MORA_ABI
