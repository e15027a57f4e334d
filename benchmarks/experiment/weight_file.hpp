// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mora/core/matrix.hpp"
#include "mora/io/atomic_file.hpp"
#include "mora/io/mapped_file.hpp"

/// \file
/// A cache of a model's weights between two runs on one machine; no format for exchange. It is
///   a line of text that says what is in it, the checksum of the rest in 16 digits and a newline,
///   then for each matrix rows and columns (64 bits each) and its floats, as they are in memory.

namespace experiment {

using Weights = std::vector<mora::Matrix<float>>;

/// FNV-1a of 64 bits: for files that were cut or changed by accident.
[[nodiscard]] inline std::uint64_t checksum(std::span<const std::byte> bytes) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const std::byte byte : bytes) {
    hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3u;
  }
  return hash;
}

namespace detail {

[[nodiscard]] inline std::string hexadecimal(std::uint64_t number) {
  std::string text(16, '0');
  for (std::size_t i = 16; i-- > 0; number >>= 4) text[i] = "0123456789abcdef"[number & 15];
  return text;
}

}  // namespace detail

/// Writes the file, whole or not at all. `contents` has no newline.
inline void write_weights(const std::filesystem::path& path, std::string_view contents,
                          const Weights& weights) {
  std::vector<std::byte> data;
  const auto append = [&](const void* from, std::size_t size) {
    const auto* const bytes = static_cast<const std::byte*>(from);
    data.insert(data.end(), bytes, bytes + size);
  };
  for (const mora::Matrix<float>& weight : weights) {
    const std::int64_t shape[] = {weight.rows(), weight.cols()};
    append(shape, sizeof shape);
    append(weight.data(), sizeof(float) * static_cast<std::size_t>(weight.size()));
  }
  const std::string head =
      std::string(contents) + '\n' + detail::hexadecimal(checksum(data)) + '\n';
  mora::AtomicFile file(path);
  file.write(std::as_bytes(std::span(head)));
  file.write(data);
  file.commit();
}

/// Reads what write_weights wrote with the same contents. Throws mora::FormatError for a file with
/// other contents, of another size, or changed since, mora::FileError where there is none.
[[nodiscard]] inline Weights read_weights(const std::filesystem::path& path,
                                          std::string_view contents) {
  const mora::MappedFile file(path, mora::FileAccess::copied);
  std::string_view text = file.text();
  const auto line = [&] {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) {
      throw mora::FormatError(path, "head", "expected two lines of text, found less");
    }
    const std::string_view found = text.substr(0, end);
    text.remove_prefix(end + 1);
    return found;
  };
  const std::string_view found_contents = line();
  if (found_contents != contents) {
    throw mora::FormatError(path, "line 1",
                            "expected '" + std::string(contents) + "', found something else");
  }
  const std::string_view found_checksum = line();
  std::span<const std::byte> data = file.bytes().last(text.size());
  const std::string expected = detail::hexadecimal(checksum(data));
  if (found_checksum != expected) {
    throw mora::FormatError(path, "checksum",
                            "expected " + expected + ", found '" +
                                std::string(found_checksum.substr(0, 16)) +
                                "': the file was cut or changed; remove it to have it made again");
  }
  Weights weights;
  const auto take = [&](void* to, std::size_t size) {
    if (size > data.size()) throw mora::FormatError(path, "end", "a matrix has no end");
    std::memcpy(to, data.data(), size);
    data = data.subspan(size);
  };
  while (!data.empty()) {
    std::int64_t shape[2];
    take(shape, sizeof shape);
    const auto floats = static_cast<std::int64_t>(data.size() / sizeof(float));
    if (shape[0] < 1 || shape[1] < 1 || shape[0] > floats || shape[1] > floats / shape[0]) {
      throw mora::FormatError(path, "shape", "no shape of a matrix that is in the file");
    }
    mora::Matrix<float>& weight = weights.emplace_back(shape[0], shape[1]);
    take(weight.data(), sizeof(float) * static_cast<std::size_t>(weight.size()));
    if (!weight.allFinite()) throw mora::FormatError(path, "weights", "a number is not finite");
  }
  return weights;
}

}  // namespace experiment
