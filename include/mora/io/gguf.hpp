// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "mora/core/index.hpp"
#include "mora/io/atomic_file.hpp"
#include "mora/io/in_quotes.hpp"

namespace mora::inline MORA_ABI {

/// What a key of a GGUF file may say here.
using GgufValue = std::variant<std::uint32_t, float, std::string>;

/// A float32 tensor of a GGUF file. `sizes` has the fastest first: [in, out] for a row-major matrix
/// [out, in]. The numbers outlive the call that writes them.
struct GgufTensor {
  std::string name;
  std::vector<Index> sizes;
  std::span<const float> numbers;
};

namespace detail {

/// The head of a GGUF file, little-endian.
class GgufHead {
 public:
  template <std::integral I>
  void add(I value) {
    for (std::size_t i = 0; i < sizeof(I); ++i) {
      bytes_.push_back(static_cast<std::byte>(static_cast<std::uint64_t>(value) >> (8 * i) & 0xff));
    }
  }
  void add(float value) { add(std::bit_cast<std::uint32_t>(value)); }
  void add(std::string_view text) {
    add(std::uint64_t{text.size()});
    for (const char c : text) bytes_.push_back(static_cast<std::byte>(c));
  }
  void add(const GgufValue& value) {
    // The format's numbers for uint32, float32 and string, in the variant's order.
    constexpr std::array<std::uint32_t, 3> types = {4, 6, 8};
    add(types[value.index()]);
    std::visit([this](const auto& each) { add_plain(each); }, value);
  }
  void pad(std::size_t alignment) {
    while (bytes_.size() % alignment != 0) bytes_.push_back(std::byte{0});
  }
  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

 private:
  void add_plain(std::uint32_t value) { add(value); }
  void add_plain(float value) { add(value); }
  void add_plain(const std::string& value) { add(std::string_view(value)); }

  std::vector<std::byte> bytes_;
};

/// GGML_MAX_NAME, with its terminating zero.
inline constexpr std::size_t gguf_name_size = 64;

/// As the format says: segments of lower-case letters, digits and _ (and - in architectures' names)
/// between dots.
inline void require_gguf_key(const std::filesystem::path& path, const std::string& key,
                             const GgufValue& value, std::uint32_t alignment) {
  constexpr std::size_t most = 65'535;
  const auto fail = [&](const auto&... what) {
    throw ArgumentError(concat(path.string(), ", key ", in_quotes(key), ": expected ", what...));
  };
  if (key.empty() || key.size() > most) fail("1 to ", most, " bytes, found ", key.size());
  const bool plain = std::ranges::all_of(key, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
  });
  if (!plain || key.front() == '.' || key.back() == '.' || key.find("..") != key.npos) {
    fail("lower-case words with dots in between");
  }
  // Readers would look for the tensors elsewhere.
  if (key == "general.alignment" && value != GgufValue(alignment)) {
    fail("the uint32 ", alignment, ", as tensors are placed, found another value");
  }
}

inline void require_gguf_tensor(const std::filesystem::path& path, const GgufTensor& tensor) {
  const auto fail = [&](const auto&... what) {
    throw ArgumentError(concat(path.string(), ", tensor ", in_quotes(tensor.name), ": ", what...));
  };
  if (tensor.name.empty() || tensor.name.size() >= gguf_name_size) {
    fail("expected a name of 1 to ", gguf_name_size - 1, " bytes, found ", tensor.name.size());
  }
  if (tensor.sizes.empty() || tensor.sizes.size() > 4) {
    fail("expected 1 to 4 dimensions, found ", tensor.sizes.size());
  }
  // Divided, as the product might overflow.
  Index left = std::ssize(tensor.numbers);
  bool fits = left > 0;
  for (const Index size : tensor.sizes) {
    if (size < 1) fail("expected sizes of at least 1, found ", size);
    fits = fits && left % size == 0;
    left /= size;
  }
  if (!fits || left != 1)
    fail("expected as many numbers as its sizes say, found ", tensor.numbers.size());
}

}  // namespace detail

/// Writes a GGUF file (version 3, little-endian, alignment 32) with float32 tensors, whole or not
/// at all (AtomicFile): llama.cpp's format, github.com/ggml-org/ggml/blob/master/docs/gguf.md.
/// Throws ArgumentError naming a key or tensor of a bad name or size, or one that is there twice,
/// and for an alignment among the keys that is another; FileError as AtomicFile does.
inline void write_gguf(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, GgufValue>>& keys,
                       const std::vector<GgufTensor>& tensors) {
  constexpr std::uint32_t alignment = 32;
  const auto require_once = [&](const char* what, std::set<std::string_view>& seen,
                                const std::string& name) {
    if (!seen.insert(name).second) {
      throw ArgumentError(detail::concat(path.string(), ": the ", what, " ",
                                         detail::in_quotes(name), " is there twice"));
    }
  };
  detail::GgufHead head;
  head.add(std::uint32_t{0x46554747});  // "GGUF"
  head.add(std::uint32_t{3});
  head.add(std::uint64_t{tensors.size()});
  head.add(std::uint64_t{keys.size()});
  std::set<std::string_view> names;
  for (const auto& [key, value] : keys) {
    detail::require_gguf_key(path, key, value, alignment);
    require_once("key", names, key);
    head.add(std::string_view(key));
    head.add(value);
  }
  names.clear();
  std::uint64_t offset = 0;
  for (const GgufTensor& tensor : tensors) {
    detail::require_gguf_tensor(path, tensor);
    require_once("tensor", names, tensor.name);
    head.add(std::string_view(tensor.name));
    head.add(static_cast<std::uint32_t>(tensor.sizes.size()));
    for (const Index size : tensor.sizes) head.add(static_cast<std::uint64_t>(size));
    head.add(std::uint32_t{0});  // float32
    head.add(offset);
    offset += (tensor.numbers.size_bytes() + alignment - 1) / alignment * alignment;
  }
  head.pad(alignment);

  AtomicFile file(path);
  file.write(head.bytes());
  for (const GgufTensor& tensor : tensors) {
    static_assert(std::endian::native == std::endian::little);
    constexpr std::array<std::byte, alignment> zeros{};
    file.write(std::as_bytes(tensor.numbers));
    const std::size_t over = tensor.numbers.size_bytes() % alignment;
    if (over != 0) file.write(std::span(zeros).first(alignment - over));
  }
  file.commit();
}

}  // namespace mora::inline MORA_ABI
