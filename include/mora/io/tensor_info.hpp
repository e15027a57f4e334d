// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "mora/io/dtype.hpp"
#include "mora/io/in_quotes.hpp"

namespace mora::inline MORA_ABI {

/// What a file says of a tensor. Its numbers are in row-major order.
struct TensorInfo {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<Index> shape = {};  ///< Empty for a single number.

  bool operator==(const TensorInfo&) const = default;
};

namespace detail {

[[nodiscard]] inline std::string shape_text(std::span<const Index> shape) {
  constexpr std::size_t most = 16;
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size() && i < most; ++i) {
    text += concat(i == 0 ? "" : ", ", shape[i]);
  }
  return text + (shape.size() > most ? concat(", ... (", shape.size(), " dimensions)]") : "]");
}

/// The product, unless it is too large for the type.
[[nodiscard]] constexpr std::optional<std::uint64_t> checked_product(std::uint64_t a,
                                                                     std::uint64_t b) {
  if (b != 0 && a > std::numeric_limits<std::uint64_t>::max() / b) return {};
  return a * b;
}

/// A tensor's size, or what is wrong with its shape. A number takes 4 bits or more, so that the
/// count is less than 2^62.
struct TensorSize {
  std::uint64_t count = 0;
  std::uint64_t bytes = 0;
  std::string fault = {};
};

[[nodiscard]] inline TensorSize size_of(const TensorInfo& info) {
  TensorSize size{.count = 1};
  const auto fault = [&](const auto&... parts) {
    return TensorSize{.fault = concat("shape ", shape_text(info.shape), ": ", parts...)};
  };
  for (const Index dimension : info.shape) {
    if (dimension < 0) return fault("expected no negative number, found ", dimension);
    const auto product = checked_product(size.count, static_cast<std::uint64_t>(dimension));
    if (!product) return fault("expected less than 2^64 numbers, found more");
    size.count = *product;
  }
  const auto bits = checked_product(size.count, static_cast<std::uint64_t>(bits_of(info.dtype)));
  if (!bits) return fault("expected less than 2^64 bits, found more");
  if (*bits % 8 != 0) return fault("expected whole bytes, found ", *bits, " bits");
  size.bytes = *bits / 8;
  return size;
}

[[nodiscard]] inline TensorSize require_size_of(const TensorInfo& info) {
  TensorSize size = size_of(info);
  if (size.fault.empty()) return size;
  throw ArgumentError(concat("tensor ", in_quotes(info.name), ": ", size.fault));
}

}  // namespace detail

/// How many numbers a tensor has. Throws ArgumentError for a negative dimension, a product that
/// overflows, or a size that is no whole number of bytes, naming the tensor.
[[nodiscard]] inline Index number_count(const TensorInfo& info) {
  return static_cast<Index>(detail::require_size_of(info).count);
}

/// How many bytes it takes. Throws as number_count does.
[[nodiscard]] inline Index byte_count(const TensorInfo& info) {
  return static_cast<Index>(detail::require_size_of(info).bytes);
}

}  // namespace mora::inline MORA_ABI
