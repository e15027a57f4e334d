// SPDX-License-Identifier: MIT
#include <cstddef>
#include <cstdint>
#include <mora/io/peft/config_file.hpp>
#include <mora/io/peft/config_text.hpp>
#include <stdexcept>
#include <string_view>

/// \file
/// Whatever the bytes: an adapter's config that can be used, written and read again, or a
/// FormatError.

namespace {

void require(bool right, const char* what) {
  if (!right) throw std::runtime_error(what);
}

/// Asks for a module by all rules for names.
void use(const mora::PeftConfig& config, std::string_view module) {
  const mora::Index rank = config.rank_of(module);
  require(rank >= 1 && rank <= mora::max_rank, "a rank out of range");
  (void)config.targets(module);
  (void)config.saves(module);
}

std::string_view text_of(const mora::PeftConfig& config) {
  return config.target_pattern ? std::string_view(config.target_pattern->text()) : "";
}

bool same(const mora::PeftConfig& a, const mora::PeftConfig& b, std::string_view module) {
  return a.rank_of(module) == b.rank_of(module) && a.alpha_of(module) == b.alpha_of(module) &&
         a.scale_of(module) == b.scale_of(module);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const mora::PeftConfig config = mora::parse_peft_config(text, "config");
    for (const std::string_view module :
         {std::string_view("model.layers.10.self_attn.q_proj"), std::string_view("a.b.3"),
          std::string_view(), std::string_view("."), text}) {
      use(config, module);
    }
    const auto again = mora::parse_peft_config(mora::peft_config_json(config), "written");
    // What is written has everything but a warning, or that its dropout has no effect alone.
    const bool additive = !config.dora && config.dialect != mora::PeftDialect::hira;
    const std::size_t warnings = !additive && config.dropout > 0.0 ? 1 : 0;
    require(again.dialect == config.dialect && again.rank == config.rank &&
                again.alpha == config.alpha && again.scaling == config.scaling &&
                again.scale == config.scale && again.rounding == config.rounding &&
                again.dropout == config.dropout && again.op == config.op &&
                again.target_modules == config.target_modules &&
                again.all_linear == config.all_linear && text_of(again) == text_of(config) &&
                again.modules_to_save == config.modules_to_save &&
                again.warnings.size() == warnings && same(again, config, "q_proj") &&
                same(again, config, text),
            "written and read");
  } catch (const mora::FormatError&) {
  }
  return 0;
}
