// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "mora/core/error.hpp"

namespace mora::inline MORA_ABI::detail {

/// What a tensor of an adapter folder is to its module.
enum class PeftRole : std::size_t {
  a,
  b,
  m,
  magnitude,
  hira_a,
  hira_b,
  miss,
  lokr_w1,
  lokr_w1_a,
  lokr_w1_b,
  lokr_w2,
  lokr_w2_a,
  lokr_w2_b,
  weight,
  bias,
  frozen
};
inline constexpr std::size_t peft_roles = 16;
/// Those of adapters.
inline constexpr std::array peft_adapter_roles = {
    PeftRole::a,         PeftRole::b,         PeftRole::m,       PeftRole::magnitude,
    PeftRole::hira_a,    PeftRole::hira_b,    PeftRole::miss,    PeftRole::lokr_w1,
    PeftRole::lokr_w1_a, PeftRole::lokr_w1_b, PeftRole::lokr_w2, PeftRole::lokr_w2_a,
    PeftRole::lokr_w2_b};

/// Of a factor of LoKr's, which is stored whole or in two halves.
struct LokrRoles {
  PeftRole whole;
  PeftRole a;
  PeftRole b;
};
inline constexpr LokrRoles lokr_w1_roles = {PeftRole::lokr_w1, PeftRole::lokr_w1_a,
                                            PeftRole::lokr_w1_b};
inline constexpr LokrRoles lokr_w2_roles = {PeftRole::lokr_w2, PeftRole::lokr_w2_a,
                                            PeftRole::lokr_w2_b};

struct PeftSuffix {
  std::string_view text;
  PeftRole role;
};

/// In writing the first of a role; in reading any of them, the first that fits.
inline constexpr std::array peft_suffixes = {
    PeftSuffix{".lora_A.weight", PeftRole::a},
    PeftSuffix{".lora_B.weight", PeftRole::b},
    PeftSuffix{".mora_M.weight", PeftRole::m},
    PeftSuffix{".lora_magnitude_vector", PeftRole::magnitude},
    PeftSuffix{".hira_A", PeftRole::hira_a},
    PeftSuffix{".hira_B", PeftRole::hira_b},
    PeftSuffix{".miss_block", PeftRole::miss},
    PeftSuffix{".lokr_w1", PeftRole::lokr_w1},
    PeftSuffix{".lokr_w1_a", PeftRole::lokr_w1_a},
    PeftSuffix{".lokr_w1_b", PeftRole::lokr_w1_b},
    PeftSuffix{".lokr_w2", PeftRole::lokr_w2},
    PeftSuffix{".lokr_w2_a", PeftRole::lokr_w2_a},
    PeftSuffix{".lokr_w2_b", PeftRole::lokr_w2_b},
    PeftSuffix{".lora_A.default.weight", PeftRole::a},
    PeftSuffix{".lora_B.default.weight", PeftRole::b},
    PeftSuffix{".lora_magnitude_vector.weight", PeftRole::magnitude},
    PeftSuffix{".lora_magnitude_vector.default.weight", PeftRole::magnitude},
    PeftSuffix{".base_layer.weight", PeftRole::frozen},
    PeftSuffix{".weight", PeftRole::weight},
    PeftSuffix{".bias", PeftRole::bias},
};

inline constexpr std::string_view peft_prefix = "base_model.model.";

/// Parts of adapters that are not supported, by what their names contain behind the module's.
struct PeftStranger {
  std::string_view text;
  std::string_view what;
};
inline constexpr std::array peft_strangers = {
    PeftStranger{".lora_embedding_", "LoRA on an embedding"},
    PeftStranger{".hira_embedding_", "HiRA on an embedding"},
    PeftStranger{".lokr_t2", "LoKr of a convolution"},
    PeftStranger{".lora_B.bias", "a bias of B"},
    PeftStranger{".lora_B.default.bias", "a bias of B"},
    PeftStranger{".trainable_tokens_", "training of single tokens"},
};

struct PeftTensorName {
  std::string module;
  PeftRole role;
};

/// What a name says, if anything: "base_model.model." in front of the module's name may be missing.
/// Only the end counts, so that a module may be called "lora_A" or "weight" itself.
[[nodiscard]] inline std::optional<PeftTensorName> parse_peft_name(std::string_view name) {
  if (name.starts_with(peft_prefix)) name.remove_prefix(peft_prefix.size());
  for (const PeftSuffix& suffix : peft_suffixes) {
    if (name.size() > suffix.text.size() && name.ends_with(suffix.text)) {
      name.remove_suffix(suffix.text.size());
      return PeftTensorName{std::string(name), suffix.role};
    }
  }
  return {};
}

[[nodiscard]] inline std::string peft_name(std::string_view module, PeftRole role) {
  for (const PeftSuffix& suffix : peft_suffixes) {
    if (suffix.role == role) return concat(peft_prefix, module, suffix.text);
  }
  throw ArgumentError("tensor: no role of an adapter's");
}

/// What a name has of a method that is not supported; empty without.
[[nodiscard]] inline std::string_view peft_stranger(std::string_view name) {
  for (const PeftStranger& stranger : peft_strangers) {
    if (name.find(stranger.text) != name.npos) return stranger.what;
  }
  return {};
}

}  // namespace mora::inline MORA_ABI::detail
