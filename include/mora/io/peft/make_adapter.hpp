// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <variant>

#include "mora/adapters/any_adapter.hpp"
#include "mora/adapters/dora.hpp"
#include "mora/adapters/full.hpp"
#include "mora/adapters/hira.hpp"
#include "mora/adapters/lokr.hpp"
#include "mora/adapters/lora.hpp"
#include "mora/adapters/miss.hpp"
#include "mora/adapters/mora.hpp"
#include "mora/io/peft/adapter_tensors.hpp"
#include "mora/io/peft/config.hpp"
#include "mora/io/peft/layer_shape.hpp"

namespace mora::inline MORA_ABI::detail {

/// Where M is, by the dialect.
[[nodiscard]] inline const StoredTensor& matrix_of(const PeftConfig& config,
                                                   const PeftModule& module) {
  return *module[config.dialect == PeftDialect::mora ? PeftRole::m : PeftRole::a];
}

/// From a module's tensors, which fit its layer, to the adapter that they are.
class PeftAdapterMaker {
 public:
  /// The config lives as long. `transposed`: see PeftFolderSettings.
  PeftAdapterMaker(const PeftConfig& config, bool transposed)
      : config_(config), transposed_(transposed) {}

  /// Throws FormatError, naming a tensor, for what the config says and T cannot hold.
  template <Real T>
  [[nodiscard]] AnyAdapter<T> make(const LayerShape& layer, const PeftModule& module) const {
    try {
      if (module.saved()) return make_full<T>(layer, module);
      switch (config_.dialect) {
        case PeftDialect::lora: return make_lora<T>(layer, module);
        case PeftDialect::hira: return make_hira<T>(module);
        case PeftDialect::lokr: return make_lokr<T>(layer, module);
        case PeftDialect::miss: return make_miss<T>(layer, module);
        case PeftDialect::paper:
        case PeftDialect::mora: break;
      }
      return std::visit(
          [&](const auto& op) { return make_mora<T>(layer, matrix_of(config_, module), op); },
          config_.op);
    } catch (const ArgumentError& error) {  // a scale beyond T, say
      fail_tensor(module.any(), error.what());
    }
  }

 private:
  template <class T>
  static void read(const StoredTensor& tensor, Matrix<T>& matrix) {
    tensor.copy_to(std::span<T>(matrix.data(), static_cast<std::size_t>(matrix.size())));
  }

  /// All numbers of a tensor of one or two dimensions.
  template <Real T>
  [[nodiscard]] static Matrix<T> matrix(const StoredTensor& tensor) {
    const auto& shape = tensor.shape();
    Matrix<T> numbers(shape.size() == 2 ? shape[0] : 1, shape.back());
    read(tensor, numbers);
    return numbers;
  }

  template <Real T>
  [[nodiscard]] AnyAdapter<T> make_lora(const LayerShape& layer, const PeftModule& module) const {
    LoraAdapter<T> lora(matrix<T>(*module[PeftRole::a]), matrix<T>(*module[PeftRole::b]),
                        {.rank = config_.rank_of(layer.module),
                         .alpha = config_.alpha_of(layer.module),
                         .scaling = config_.scaling});
    if (!config_.dora) return AnyAdapter<T>(std::move(lora));
    return AnyAdapter<T>(
        DoraAdapter<LoraAdapter<T>>(std::move(lora), matrix<T>(*module[PeftRole::magnitude])));
  }

  template <Real T>
  [[nodiscard]] static AnyAdapter<T> make_hira(const PeftModule& module) {
    return AnyAdapter<T>(
        HiraAdapter<T>(matrix<T>(*module[PeftRole::hira_a]), matrix<T>(*module[PeftRole::hira_b])));
  }

  template <Real T>
  [[nodiscard]] AnyAdapter<T> make_lokr(const LayerShape& layer, const PeftModule& module) const {
    const auto factor = [&](const LokrRoles& roles) {
      LokrFactor<T> numbers;
      numbers.a.value = matrix<T>(*module[module[roles.whole] ? roles.whole : roles.a]);
      if (!module[roles.whole]) numbers.b.value = matrix<T>(*module[roles.b]);
      return numbers;
    };
    return AnyAdapter<T>(LokrAdapter<T>(layer.in_features, layer.out_features,
                                        config_.lokr_of(layer.module), factor(lokr_w1_roles),
                                        factor(lokr_w2_roles)));
  }

  template <Real T>
  [[nodiscard]] static AnyAdapter<T> make_miss(const LayerShape& layer, const PeftModule& module) {
    return AnyAdapter<T>(MissAdapter<T>(layer.in_features, matrix<T>(*module[PeftRole::miss])));
  }

  template <Real T, class Op>
  [[nodiscard]] AnyAdapter<T> make_mora(const LayerShape& layer, const StoredTensor& matrix,
                                        const Op& op) const {
    MoraAdapter<T, Op> adapter(layer.in_features, layer.out_features,
                               {.rank = config_.rank_of(layer.module),
                                .rounding = config_.rounding,
                                .scale = config_.scale_of(layer.module),
                                .op = op});
    Matrix<T>& m = adapter.matrix().value;
    read(matrix, m);
    if (transposed_) m.transposeInPlace();
    return AnyAdapter<T>(std::move(adapter));
  }

  template <Real T>
  [[nodiscard]] static AnyAdapter<T> make_full(const LayerShape& layer, const PeftModule& module) {
    Matrix<T> weight(layer.out_features, layer.in_features);
    read(*module[PeftRole::weight], weight);
    RowVector<T> bias;
    if (const auto& stored = module[PeftRole::bias]) {
      bias.resize(layer.out_features);
      stored->copy_to(std::span<T>(bias.data(), static_cast<std::size_t>(bias.size())));
    }
    return AnyAdapter<T>(FullAdapter<T>(FrozenLinear<T>(std::move(weight), std::move(bias))));
  }

  const PeftConfig& config_;
  bool transposed_;
};

}  // namespace mora::inline MORA_ABI::detail
