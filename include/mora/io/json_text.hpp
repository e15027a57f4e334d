// SPDX-License-Identifier: MIT
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "mora/core/error.hpp"
#include "mora/io/in_quotes.hpp"

namespace mora::inline MORA_ABI::detail {

/// A string as JSON writes it: in quotes, and what has to be escaped is; with `ascii`, all that is
/// not ASCII too. Throws ArgumentError, naming `what`, for text that is not UTF-8.
[[nodiscard]] inline std::string json_text(const std::string& text, std::string_view what,
                                           bool ascii = false) {
  try {
    return nlohmann::json(text).dump(-1, ' ', ascii);
  } catch (const nlohmann::json::type_error&) {
    throw ArgumentError(concat(what, " ", in_quotes(text), ": expected UTF-8, found other bytes"));
  }
}

}  // namespace mora::inline MORA_ABI::detail
