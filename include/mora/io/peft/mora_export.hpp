// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <type_traits>
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

}  // namespace detail

/// Adapters as MoRA of one operator, each module's update as near as that operator can have it
/// (nearest_mora); what is stored whole (FullAdapter) stays. An operator cannot say what another
/// has learnt, as a rule: look at the errors. Throws as nearest_mora does, naming the module, and
/// ArgumentError for an adapter whose update depends on the frozen weight without `weight`.
template <Real T>
[[nodiscard]] AdapterExport<T> export_mora(const std::vector<NamedAdapter<T>>& adapters,
                                           const MoraExportSettings& settings = {},
                                           const std::type_identity_t<WeightOf<T>>& weight = {}) {
  detail::require_rank(settings.rank);
  AdapterExport<T> result;
  for (const NamedAdapter<T>& each : adapters) {
    if (each.adapter.template get_if<FullAdapter<T>>()) {
      result.adapters.push_back(each);
      continue;
    }
    const auto convert = [&]<class Op>(const Op& op) {
      const MoraSettings<Op> own{.rank = settings.rank, .rounding = settings.rounding, .op = op};
      NearestMora<T, Op> nearest =
          nearest_mora<T, Op>(each.adapter.additive() ? detail::update_of(each.adapter)
                                                      : detail::update_on_weight(each, weight),
                              own);
      result.modules.push_back({each.module, settings.rank, nearest.relative_error});
      result.adapters.push_back(
          {each.module, AnyAdapter<T>(std::move(nearest.adapter)), each.dropout});
    };
    detail::name_module(each.module, [&] { std::visit(convert, settings.op); });
  }
  return result;
}

}  // namespace mora::inline MORA_ABI
