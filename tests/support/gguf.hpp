// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace mora_tests {

/// A GGUF file as its format says, for what the library writes: not by the library's own code.
struct GgufFile {
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> sizes;
    std::uint32_t type = 0;
    std::uint64_t offset = 0;  // from `data`
  };
  std::uint32_t version = 0;
  std::map<std::string, std::variant<std::uint32_t, float, std::string>> keys;
  std::vector<Tensor> tensors;
  std::size_t data = 0;  // where the first tensor may be
  std::string bytes;

  /// Throws std::runtime_error for what is no such file.
  explicit GgufFile(std::string text) : bytes(std::move(text)) {
    std::size_t at = 0;
    const auto take = [&](std::size_t count) {
      if (bytes.size() - at < count) throw std::runtime_error("GGUF: cut off");
      at += count;
      return bytes.data() + at - count;
    };
    const auto read = [&]<class T>(T value) {
      std::memcpy(&value, take(sizeof value), sizeof value);
      return value;
    };
    const auto read_text = [&] {
      const auto size = read(std::uint64_t{});
      return std::string(take(size), size);
    };
    if (std::string_view(take(4), 4) != "GGUF") throw std::runtime_error("GGUF: no magic");
    version = read(std::uint32_t{});
    tensors.resize(read(std::uint64_t{}));
    const auto key_count = read(std::uint64_t{});
    for (std::uint64_t i = 0; i < key_count; ++i) {
      const std::string key = read_text();
      switch (read(std::uint32_t{})) {
        case 4: keys[key] = read(std::uint32_t{}); break;
        case 6: keys[key] = read(float{}); break;
        case 8: keys[key] = read_text(); break;
        default: throw std::runtime_error("GGUF: a type of value that is not written");
      }
    }
    if (keys.size() != key_count) throw std::runtime_error("GGUF: a key twice");
    for (Tensor& tensor : tensors) {
      tensor.name = read_text();
      tensor.sizes.resize(read(std::uint32_t{}));
      for (std::uint64_t& size : tensor.sizes) size = read(std::uint64_t{});
      tensor.type = read(std::uint32_t{});
      tensor.offset = read(std::uint64_t{});
    }
    data = (at + 31) / 32 * 32;
  }

  /// Numbers of a float32 tensor; throws where they are not all there.
  [[nodiscard]] std::vector<float> numbers(const Tensor& tensor) const {
    std::uint64_t count = 1;
    for (const std::uint64_t size : tensor.sizes) count *= size;
    const std::size_t begin = data + tensor.offset;
    if (bytes.size() < begin + 4 * count) throw std::runtime_error("GGUF: a tensor is cut off");
    std::vector<float> all(count);
    std::memcpy(all.data(), bytes.data() + begin, 4 * count);
    return all;
  }
};

}  // namespace mora_tests
