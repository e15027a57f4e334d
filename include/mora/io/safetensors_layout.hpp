// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/io/json_text.hpp"
#include "mora/io/safetensors_header.hpp"

namespace mora::inline MORA_ABI {

/// What comes first in a file that is to be written, and the order of the rest.
struct SafetensorsLayout {
  std::vector<TensorInfo> tensors;  ///< By dtype, u64 first, then by name: the file's order.
  std::string header;               ///< With its length in front, padded to a multiple of 8.
  Index file_bytes = 0;             ///< Of the whole file.
};

namespace detail {

/// With its key; empty where there is none.
[[nodiscard]] inline std::string metadata_json(const TextMap& metadata) {
  std::string json;
  for (const auto& [key, value] : metadata) {
    json += json.empty() ? concat('"', metadata_key, "\":{") : ",";
    json += json_text(key, "metadata") + ":" + json_text(value, "metadata");
  }
  return json.empty() ? json : json + "}";
}

[[nodiscard]] inline std::string entry_json(const TensorInfo& tensor, Index begin, Index end) {
  std::string shape;
  for (const Index dimension : tensor.shape) {
    if (!shape.empty()) shape += ',';
    shape += std::to_string(dimension);
  }
  return concat(json_text(tensor.name, "tensor"), ":{\"dtype\":\"", name_of(tensor.dtype),
                "\",\"shape\":[", shape, "],\"data_offsets\":[", begin, ",", end, "]}");
}

/// The JSON as a file begins: its length in front, blanks behind to a multiple of 8.
[[nodiscard]] inline std::string framed_header(std::string_view json) {
  const std::uint64_t size = (std::uint64_t{json.size()} + 7) / 8 * 8;
  if (size > most_header_bytes) {
    throw ArgumentError(
        concat("header: expected at most ", most_header_bytes, " bytes, found ", size));
  }
  std::string header;
  header.reserve(sizeof size + static_cast<std::size_t>(size));
  for (std::size_t byte = 0; byte < sizeof size; ++byte) {
    header += static_cast<char>(size >> (8 * byte) & 0xff);
  }
  header += json;
  header.append(static_cast<std::size_t>(size) - json.size(), ' ');
  return header;
}

inline void require_unique_names(const std::vector<TensorInfo>& tensors) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorInfo& tensor : tensors) {
    if (tensor.name == metadata_key) {
      throw ArgumentError(
          concat("tensor ", in_quotes(tensor.name), ": this name is the format's own"));
    }
    names.push_back(tensor.name);
  }
  std::sort(names.begin(), names.end());
  const auto twin = std::adjacent_find(names.begin(), names.end());
  if (twin != names.end()) {
    throw ArgumentError(concat("tensor ", in_quotes(*twin), ": expected once, found twice"));
  }
}

}  // namespace detail

/// Lays a file out as the reference writer does, to the byte: `__metadata__` first unless it is
/// empty, then the tensors in their order; no blanks but the padding. The reference writes metadata
/// of several keys in an order that differs between runs; here it is sorted. Throws ArgumentError
/// for a name that is there twice, is not UTF-8 or is `__metadata__`, for a shape without a size
/// (byte_count), and for a header beyond the format's 100,000,000 bytes.
[[nodiscard]] inline SafetensorsLayout lay_out_safetensors(std::vector<TensorInfo> tensors,
                                                           const TextMap& metadata = {}) {
  using detail::concat;
  for (const TensorInfo& tensor : tensors) (void)name_of(tensor.dtype);
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
  });
  detail::require_unique_names(tensors);
  std::string json = detail::metadata_json(metadata);
  Index begin = 0;
  for (const TensorInfo& tensor : tensors) {
    const Index bytes = byte_count(tensor);
    if (bytes > std::numeric_limits<Index>::max() / 2 - begin) {
      throw ArgumentError(concat("tensor ", detail::in_quotes(tensor.name),
                                 ": expected less than 2^62 bytes in one file, found ", bytes,
                                 " after ", begin));
    }
    if (!json.empty()) json += ',';
    json += detail::entry_json(tensor, begin, begin + bytes);
    begin += bytes;
  }
  std::string header = detail::framed_header("{" + json + "}");
  const Index file_bytes = std::ssize(header) + begin;
  return {.tensors = std::move(tensors), .header = std::move(header), .file_bytes = file_bytes};
}

}  // namespace mora::inline MORA_ABI
