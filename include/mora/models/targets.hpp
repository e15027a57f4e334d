// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "mora/core/matrix.hpp"

namespace mora::inline MORA_ABI {

/// Which modules of a model get an adapter, by PEFT's rules for lists of names.
struct Targets {
  /// A module's name, or what it ends in after a dot: "q_proj", "self_attn.q_proj".
  std::vector<std::string> modules = {};
  /// Every linear layer but the output head, besides those of `modules`.
  bool all_linear = false;
  /// Wins over both.
  std::vector<std::string> exclude = {};
  /// Only in these layers; empty: in all of them. Modules outside of layers are then left out.
  std::vector<Index> layers = {};

  [[nodiscard]] bool matches(std::string_view module, bool linear, Index layer) const {
    const auto names = [module](const std::vector<std::string>& list) {
      return std::any_of(list.begin(), list.end(), [module](const std::string& name) {
        return module == name || (module.size() > name.size() && module.ends_with(name) &&
                                  module[module.size() - name.size() - 1] == '.');
      });
    };
    if (names(exclude)) return false;
    if (!layers.empty() && std::find(layers.begin(), layers.end(), layer) == layers.end()) {
      return false;
    }
    return names(modules) || (all_linear && linear && module != "lm_head");
  }
};

}  // namespace mora::inline MORA_ABI
