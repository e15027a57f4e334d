// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "mora/adapters/full.hpp"
#include "mora/adapters/merging.hpp"
#include "mora/analysis/nearest_mora.hpp"
#include "mora/io/peft/adapter_export.hpp"
#include "mora/io/peft/mora_operators.hpp"

namespace mora::inline MORA_ABI {

struct MoraExportSettings {
  PeftOperator op = Rotation{};
  Index rank = 8;                               ///< See MoraSettings.
  SideRounding rounding = SideRounding::paper;  ///< See MoraSettings.
};

namespace detail {

/// Delta W [out, in] of an additive adapter.
template <Real T>
[[nodiscard]] Matrix<T> update_of(const AnyAdapter<T>& adapter) {
  Matrix<T> update = Matrix<T>::Zero(adapter.out_features(), adapter.in_features());
  const auto merge = adapter.row_merge();
  for_each_weight_chunk(update.rows(), update.cols(), [&](Index first, Index count) {
    merge->merge_rows(first, rows_of(map_of(update), first, count));
  });
  return update;
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

/// Additive adapters (LoRA, LoKr, MiSS, MoRA) as MoRA of one operator, each module's update as near
/// as that operator can have it (nearest_mora); what is stored whole (FullAdapter) stays. An
/// operator cannot say what another has learnt, as a rule: look at the errors. Throws as
/// nearest_mora does, naming the module, and ArgumentError for another adapter that is not
/// additive.
template <Real T>
[[nodiscard]] AdapterExport<T> export_mora(const std::vector<NamedAdapter<T>>& adapters,
                                           const MoraExportSettings& settings = {}) {
  detail::require_rank(settings.rank);
  AdapterExport<T> result;
  for (const NamedAdapter<T>& each : adapters) {
    if (each.adapter.template get_if<FullAdapter<T>>()) {
      result.adapters.push_back(each);
      continue;
    }
    if (!each.adapter.additive()) {
      throw ArgumentError(
          detail::concat(each.module, ": its adapter is of a type that is not exported"));
    }
    const auto convert = [&]<class Op>(const Op& op) {
      const MoraSettings<Op> own{.rank = settings.rank, .rounding = settings.rounding, .op = op};
      NearestMora<T, Op> nearest = nearest_mora<T, Op>(detail::update_of(each.adapter), own);
      result.modules.push_back({each.module, settings.rank, nearest.relative_error});
      result.adapters.push_back(
          {each.module, AnyAdapter<T>(std::move(nearest.adapter)), each.dropout});
    };
    detail::name_module(each.module, [&] { std::visit(convert, settings.op); });
  }
  return result;
}

}  // namespace mora::inline MORA_ABI
