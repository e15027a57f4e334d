// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <string_view>

#include "mora/io/peft/config.hpp"

/// \file
/// The keys of adapter_config.json that config_file.hpp does not read one by one, by what they do
/// to results.

namespace mora::inline MORA_ABI::detail {

/// A key of adapter_config.json, and what it asks for unless it is off.
struct PeftKey {
  std::string_view key;
  std::string_view what;
};

/// What changes results and is not there.
inline constexpr std::array peft_refused = {
    PeftKey{"use_qalora", "QA-LoRA"},
    PeftKey{"kasa_config", "KaSA"},
    PeftKey{"monteclora_config", "MonteCLoRA"},
    PeftKey{"use_bdlora", "block-diagonal LoRA"},
    PeftKey{"arrow_config", "routing by Arrow"},
    PeftKey{"alora_invocation_tokens", "activated LoRA"},
    PeftKey{"lora_bias", "a bias of B"},
    PeftKey{"trainable_token_indices", "training of single tokens"},
    PeftKey{"target_parameters", "an adapter on a parameter that is no layer"},
    PeftKey{"layer_replication", "replication of layers"},
    PeftKey{"megatron_config", "Megatron"},
    PeftKey{"enable_lora", "LoRA on parts of a layer"},
};

/// What MoRA's dialects say, each in its own way: read as another it would be another adapter.
struct PeftDialectKey {
  std::string_view key;
  PeftDialect dialect;
};
inline constexpr std::array peft_dialect_keys = {
    PeftDialectKey{"mora_type", PeftDialect::paper},
    PeftDialectKey{"mora_operator", PeftDialect::mora},
    PeftDialectKey{"mora_rounding", PeftDialect::mora},
    PeftDialectKey{"mora_scale", PeftDialect::mora},
    PeftDialectKey{"mora_scale_pattern", PeftDialect::mora},
    PeftDialectKey{"mora_seed", PeftDialect::mora},
    PeftDialectKey{"mora_rotation_base", PeftDialect::mora},
};

/// What changes no result here, and yet is worth a word unless it is off.
inline constexpr std::array peft_left_out = {
    PeftKey{"fan_in_fan_out", "frozen weights are [out, in] here in any case"},
    PeftKey{"velora_config", "gradients are exact here"},
};

/// What says nothing about results.
inline constexpr std::array<std::string_view, 16> peft_ignored = {
    "init_weights",   "auto_mapping",      "corda_config",      "eva_config",
    "inference_mode", "loftq_config",      "lora_ga_config",    "megatron_core",
    "merge_weights",  "qalora_group_size", "revision",          "runtime_config",
    "peft_version",   "layers_pattern",    "init_lora_weights", "task_type"};

/// Ways to begin that leave the frozen weight as it is; the others store an adapter for a changed
/// one.
inline constexpr std::array<std::string_view, 4> peft_plain_starts = {"gaussian", "eva",
                                                                      "orthogonal", "mica"};

/// The newest version of PEFT whose keys are all known here.
inline constexpr std::array<int, 2> peft_version_known = {0, 21};

}  // namespace mora::inline MORA_ABI::detail
