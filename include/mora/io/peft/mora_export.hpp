// SPDX-License-Identifier: MIT
#pragma once

#include <utility>
#include <variant>
#include <vector>

#include "mora/analysis/nearest_mora.hpp"
#include "mora/io/peft/adapter_export.hpp"
#include "mora/io/peft/mora_operators.hpp"

namespace mora::inline MORA_ABI {

struct MoraExportSettings {
  PeftOperator op = Rotation{};
  Index rank = 8;                               ///< See MoraSettings.
  SideRounding rounding = SideRounding::paper;  ///< See MoraSettings.
};

/// MoRA and LoRA adapters as MoRA of one operator, each module's update as near as that operator
/// can have it (nearest_mora); what is stored whole (FullAdapter) stays. An operator cannot say
/// what another has learnt, as a rule: look at the errors. Throws as nearest_mora does, naming the
/// module.
template <Real T>
[[nodiscard]] AdapterExport<T> export_mora(const std::vector<NamedAdapter<T>>& adapters,
                                           const MoraExportSettings& settings = {}) {
  AdapterExport<T> result;
  for (const NamedAdapter<T>& each : adapters) {
    if (!each.adapter.additive()) {
      result.adapters.push_back(each);
      continue;
    }
    Matrix<T> update = Matrix<T>::Zero(each.adapter.out_features(), each.adapter.in_features());
    each.adapter.row_merge()->merge_rows(0, detail::map_of(update));
    const Matrix<double> wanted = update.template cast<double>();
    const auto convert = [&]<class Op>(const Op& op) {
      const MoraSettings<Op> own{.rank = settings.rank, .rounding = settings.rounding, .op = op};
      const NearestMora<Op> nearest = nearest_mora(MatrixView<double>(wanted), own);
      MoraAdapter<T, Op> adapter(update.cols(), update.rows(), own);
      adapter.matrix().value = nearest.adapter.matrix().value.template cast<T>();
      result.modules.push_back({each.module, settings.rank, nearest.relative_error});
      result.adapters.push_back({each.module, AnyAdapter<T>(std::move(adapter)), each.dropout});
    };
    try {
      std::visit(convert, settings.op);
    } catch (const NumericError& error) {
      throw NumericError(detail::concat(each.module, ": ", error.what()));
    }
  }
  return result;
}

}  // namespace mora::inline MORA_ABI
