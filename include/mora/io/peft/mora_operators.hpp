// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "mora/adapters/side.hpp"
#include "mora/operators/reference_types.hpp"
#include "mora/operators/truncation.hpp"

namespace mora::inline MORA_ABI {

/// The operators that an adapter folder can name, with their settings.
using PeftOperator =
    std::variant<Sharing, AdjacentSharing, AdjacentStridedSharing, StridedAdjacentSharing, Rotation,
                 Truncation, Decoupling, RandomSharing, CoveringRotation>;

namespace detail {

struct PeftOperatorRow {
  std::string_view name;  // the value of mora_operator
  PeftOperator op;        // with the settings that a folder need not say
};
inline constexpr std::array peft_operators = {
    PeftOperatorRow{"sharing", Sharing{}},
    PeftOperatorRow{"adjacent_sharing", AdjacentSharing{}},
    PeftOperatorRow{"adjacent_strided_sharing", AdjacentStridedSharing{}},
    PeftOperatorRow{"strided_adjacent_sharing", StridedAdjacentSharing{}},
    PeftOperatorRow{"rotation", Rotation{}},
    PeftOperatorRow{"truncation", Truncation{}},
    PeftOperatorRow{"decoupling", Decoupling{}},
    PeftOperatorRow{"random_sharing", RandomSharing{}},
    PeftOperatorRow{"covering_rotation", CoveringRotation{}},
};

/// An operator's `seed`, or null where it has none.
[[nodiscard]] inline const std::uint64_t* seed_of(const PeftOperator& op) {
  return std::visit(
      [](const auto& each) -> const std::uint64_t* {
        if constexpr (requires { each.seed; }) return &each.seed;
        return nullptr;
      },
      op);
}
[[nodiscard]] inline std::uint64_t* seed_of(PeftOperator& op) {
  return const_cast<std::uint64_t*>(seed_of(std::as_const(op)));
}
/// A rotation's `base`, or null.
[[nodiscard]] inline const double* base_of(const PeftOperator& op) {
  return std::visit(
      [](const auto& each) -> const double* {
        if constexpr (requires { each.base; }) return &each.base;
        return nullptr;
      },
      op);
}
[[nodiscard]] inline double* base_of(PeftOperator& op) {
  return const_cast<double*>(base_of(std::as_const(op)));
}

/// The number that the paper's code has for an operator with these settings, if it has one.
[[nodiscard]] inline std::optional<int> mora_type_of(const PeftOperator& op) {
  for (const int type : mora_types) {
    const auto theirs = with_mora_type(type, [](auto each) { return PeftOperator(each); });
    if (theirs == op) return type;
  }
  return {};
}

/// The side of M on a layer of this shape. Throws as mora_side does, and where the operator has no
/// such side.
[[nodiscard]] inline Index side_of(const PeftOperator& op, Index in, Index out, Index rank,
                                   SideRounding rounding) {
  const Index side = mora_side(in, out, rank, rounding);
  return std::visit([side](const auto& each) { return each.fit_side(side); }, op);
}

}  // namespace detail

/// As a folder's mora_operator has it.
[[nodiscard]] inline std::string_view name_of(const PeftOperator& op) {
  return detail::peft_operators[op.index()].name;
}

/// All names, "sharing, adjacent_sharing, ...": for messages.
[[nodiscard]] inline std::string peft_operator_names() {
  std::string names;
  for (const auto& row : detail::peft_operators) {
    if (!names.empty()) names += ", ";
    names += row.name;
  }
  return names;
}

/// The operator of that name with its default settings; none for another name.
[[nodiscard]] inline std::optional<PeftOperator> peft_operator(std::string_view name) {
  for (const auto& row : detail::peft_operators) {
    if (row.name == name) return row.op;
  }
  return {};
}

}  // namespace mora::inline MORA_ABI
