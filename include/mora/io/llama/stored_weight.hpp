// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "mora/adapters/frozen_linear.hpp"
#include "mora/io/stored_tensor.hpp"

namespace mora::inline MORA_ABI::detail {

/// A tensor that was checked as a frozen weight [rows, cols] whose numbers are `Number`: in place
/// where the file has these at an aligned address.
template <Real T, class Number>
[[nodiscard]] FrozenLinear<T> stored_weight(const StoredTensor& tensor, Index rows, Index cols) {
  SharedNumbers<Number> numbers = tensor.template numbers<Number>();
  return {numbers.values.data(), rows, cols, std::move(numbers.owner)};
}

/// Writes a weight row by row, as it may be kept in other numbers than T.
template <Real T, class Writer>
void write_weight(Writer& writer, const std::string& name, const FrozenLinear<T>& weight) {
  Matrix<T> row(1, weight.in_features());
  for (Index i = 0; i < weight.out_features(); ++i) {
    weight.read_weight(i, row);
    writer.write(name, std::span<const T>(row.data(), static_cast<std::size_t>(row.size())));
  }
}

}  // namespace mora::inline MORA_ABI::detail
