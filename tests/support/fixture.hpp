// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mora/core/matrix.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace mora_tests {

using mora::Index;

/// A safetensors file of tests/fixtures: 8 bytes with the header's length, a JSON header, numbers.
/// It reads what is there and no more: float64 tensors, a header without blanks. Throws
/// std::runtime_error for what is not there.
class Fixture {
 public:
  explicit Fixture(const std::string& name) {
    std::ifstream file(folder() / name, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    std::uint64_t length = 0;
    if (bytes_.size() < sizeof length) throw std::runtime_error("cannot read fixture " + name);
    std::memcpy(&length, bytes_.data(), sizeof length);
    header_ = std::string_view(bytes_).substr(sizeof length, length);
    numbers_ = std::string_view(bytes_).substr(sizeof length + length);
  }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;

  /// The names of the files that start with `prefix`, sorted.
  [[nodiscard]] static std::vector<std::string> names(std::string_view prefix) {
    std::vector<std::string> all;
    for (const auto& entry : std::filesystem::directory_iterator(folder())) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with(prefix) && name.ends_with(".safetensors")) all.push_back(name);
    }
    std::sort(all.begin(), all.end());
    return all;
  }

  /// Metadata.
  [[nodiscard]] std::string text(std::string_view key) const {
    const std::string_view rest = after(header_, quoted(key) + ":\"");
    return std::string(rest.substr(0, rest.find('"')));
  }
  [[nodiscard]] Index integer(std::string_view key) const { return std::stoll(text(key)); }
  [[nodiscard]] double number(std::string_view key) const { return std::stod(text(key)); }

  /// A tensor of one dimension is one row.
  [[nodiscard]] mora::Matrix<double> tensor(std::string_view name) const {
    const std::string_view entry = after(header_, quoted(name) + ":{\"dtype\":\"F64\",");
    const std::vector<Index> shape = integers(after(entry, "\"shape\":["));
    const std::vector<Index> offsets = integers(after(entry, "\"data_offsets\":["));
    mora::Matrix<double> matrix(shape.size() == 1 ? 1 : shape.at(0), shape.back());
    const std::string_view data = numbers_.substr(static_cast<std::size_t>(offsets.at(0)));
    const auto size = static_cast<std::size_t>(matrix.size()) * sizeof(double);
    if (data.size() < size) throw std::runtime_error("short fixture");
    std::memcpy(matrix.data(), data.data(), size);
    return matrix;
  }

 private:
  [[nodiscard]] static std::filesystem::path folder() { return MORA_FIXTURES; }
  [[nodiscard]] static std::string quoted(std::string_view text) {
    return '"' + std::string(text) + '"';
  }
  [[nodiscard]] static std::string_view after(std::string_view text, const std::string& mark) {
    const std::size_t start = text.find(mark);
    if (start == std::string_view::npos) throw std::runtime_error("fixture without " + mark);
    return text.substr(start + mark.size());
  }
  /// Those up to a ']'.
  [[nodiscard]] static std::vector<Index> integers(std::string_view text) {
    std::vector<Index> all;
    const char* const end = text.data() + text.find(']');
    for (const char* at = text.data(); at < end; ++at) {
      all.push_back(0);
      at = std::from_chars(at, end, all.back()).ptr;
    }
    return all;
  }

  std::string bytes_;
  std::string_view header_;
  std::string_view numbers_;
};

}  // namespace mora_tests
