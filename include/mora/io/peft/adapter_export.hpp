// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "mora/adapters/named_adapter.hpp"

namespace mora::inline MORA_ABI {

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

}  // namespace mora::inline MORA_ABI
