// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "mora/adapters/lora.hpp"
#include "mora/adapters/named_adapter.hpp"
#include "mora/io/gguf.hpp"
#include "mora/models/llama/tensors.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

/// A linear module's name in GGUF files: "blk.3.attn_q" for "model.layers.3.self_attn.q_proj".
[[nodiscard]] inline std::optional<std::string> gguf_module(std::string_view module) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 7> names = {{
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},
  }};
  if (module == "lm_head") return "output";
  constexpr std::string_view layers = "model.layers.";
  if (!module.starts_with(layers)) return {};
  module.remove_prefix(layers.size());
  Index layer = 0;
  const auto [end, error] = std::from_chars(module.data(), module.data() + module.size(), layer);
  if (error != std::errc()) return {};
  module.remove_prefix(static_cast<std::size_t>(end - module.data()));
  if (!module.starts_with('.')) return {};
  module.remove_prefix(1);
  const auto at = std::ranges::find(names, module, [](const auto& name) { return name.first; });
  if (at == names.end()) return {};
  return concat("blk.", layer, ".", at->second);
}

/// Throws ArgumentError, with both numbers, for a module that the config does not have or that has
/// other sizes there.
template <Real T>
void require_module_of(const LlamaTensors& table, const std::string& module,
                       const AnyAdapter<T>& adapter) {
  const LlamaTensor& wanted = table[table.place_of(module)];
  const auto require = [&](const char* what, Index expected, Index found) {
    if (found == expected) return;
    throw ArgumentError(
        concat(module, ": expected ", expected, " ", what, " by the config, found ", found));
  };
  require("inputs", wanted.cols, adapter.in_features());
  require("outputs", wanted.rows, adapter.out_features());
}

/// llama.cpp's order of the rows of q and k: it rotates neighbours where Hugging Face rotates
/// halves, so that of each head row 2 i + h here is row h d/2 + i there.
template <class T>
[[nodiscard]] Matrix<T> pair_rotated_rows(const Matrix<T>& rows, Index heads) {
  const Index size = rows.rows() / heads;
  Matrix<T> result(rows.rows(), rows.cols());
  for (Index head = 0; head < heads; ++head) {
    for (Index i = 0; i < size / 2; ++i) {
      for (const Index half : {0, 1}) {
        result.row(head * size + 2 * i + half) = rows.row(head * size + half * (size / 2) + i);
      }
    }
  }
  return result;
}

}  // namespace detail

/// Writes LoRA adapters of a LLaMA as a GGUF adapter for llama.cpp (`--lora`): float32, each
/// module's scale multiplied into B, alpha 0 (llama.cpp then scales by nothing more, where one
/// alpha for all could not say rsLoRA or different ranks), and the rows of B for q and k in
/// llama.cpp's order. MoRA goes through export_lora first. Throws ArgumentError naming the module
/// for an adapter that is not LoRA, a module that GGUF has no name for or that the config does not
/// have (a layer too many, a tied head), or sizes that are not the config's; NumericError for a
/// number beyond float; FileError as AtomicFile does.
template <Real T>
void save_gguf_adapter(const std::vector<NamedAdapter<T>>& adapters, const LlamaConfig& config,
                       const std::filesystem::path& path) {
  const LlamaTensors table(config);
  std::vector<Matrix<float>> numbers;
  numbers.reserve(2 * adapters.size());  // they stay where they are
  std::vector<GgufTensor> tensors;
  const auto add = [&](std::string name, Matrix<float> matrix, std::string_view module) {
    if (!detail::all_finite(matrix)) {
      throw NumericError(detail::concat(module, ": a number of its adapter is not a finite float"));
    }
    numbers.push_back(std::move(matrix));
    const Matrix<float>& kept = numbers.back();
    tensors.push_back({std::move(name),
                       {kept.cols(), kept.rows()},
                       {kept.data(), static_cast<std::size_t>(kept.size())}});
  };
  for (const NamedAdapter<T>& each : adapters) {
    const std::string& module = each.module;
    const auto* const lora = each.adapter.template get_if<LoraAdapter<T>>();
    if (!lora)
      throw ArgumentError(module +
                          ": expected a LoRA adapter; a module that is stored whole has no "
                          "place in a GGUF adapter");
    const auto name = detail::gguf_module(module);
    if (!name) throw ArgumentError(module + ": there is no GGUF name for this module");
    detail::require_module_of(table, module, each.adapter);
    lora->require_shapes();
    Matrix<double> b = lora->settings().scale() * lora->b().value.template cast<double>();
    const bool q = name->ends_with("attn_q");
    if (q || name->ends_with("attn_k")) {
      b = detail::pair_rotated_rows(b, q ? config.num_attention_heads : config.key_value_heads());
    }
    add(*name + ".weight.lora_a", lora->a().value.template cast<float>(), module);
    add(*name + ".weight.lora_b", b.template cast<float>(), module);
  }
  write_gguf(path,
             {{"general.type", "adapter"},
              {"general.architecture", "llama"},
              {"adapter.type", "lora"},
              {"adapter.lora.alpha", 0.0f}},
             tensors);
}

}  // namespace mora::inline MORA_ABI
