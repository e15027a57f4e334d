// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mora/io/safetensors.hpp>
#include <mora/io/safetensors_writer.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace mora_tests {

[[nodiscard]] inline std::string little_endian(std::uint64_t number) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(number >> (8 * i) & 0xff);
  return bytes;
}

/// A safetensors file of this header.
[[nodiscard]] inline std::string with_header(std::string_view json, std::string_view data = "") {
  return little_endian(json.size()) + std::string(json) + std::string(data);
}

/// A file with these bytes alone in memory of their size, so that a sanitizer sees what is read
/// beyond them.
[[nodiscard]] inline mora::SafetensorsFile in_memory(std::string_view bytes) {
  const std::shared_ptr<std::byte[]> copy(new std::byte[bytes.size()]);
  if (!bytes.empty()) std::memcpy(copy.get(), bytes.data(), bytes.size());
  return {{copy.get(), bytes.size()}, copy, "memory"};
}

/// What the reference writer makes of these tensors.
[[nodiscard]] inline std::string file_bytes(std::vector<mora::TensorBytes> tensors,
                                            const mora::TextMap& metadata) {
  std::vector<mora::TensorInfo> infos;
  for (const auto& tensor : tensors) infos.push_back(tensor.info);
  const mora::SafetensorsLayout layout = mora::lay_out_safetensors(infos, metadata);
  std::string bytes = layout.header;
  for (const mora::TensorInfo& info : layout.tensors) {
    for (const auto& tensor : tensors) {
      if (tensor.info.name != info.name) continue;
      bytes.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
    }
  }
  if (std::ssize(bytes) != layout.file_bytes) throw std::runtime_error("layout: wrong file_bytes");
  return bytes;
}

/// Tensors as they are, for writing.
[[nodiscard]] inline std::vector<mora::TensorBytes> as_bytes(
    const std::vector<mora::StoredTensor>& tensors) {
  std::vector<mora::TensorBytes> all;
  for (const auto& tensor : tensors) all.push_back({tensor.info(), tensor.bytes()});
  return all;
}

/// Does with a file whatever can be done: every byte is read, every number converted, every tensor
/// looked up. Throws std::runtime_error where two ways do not agree. Returns the sum of the bytes,
/// so that reading them is not left out.
inline unsigned use(const mora::SafetensorsFile& file) {
  const auto require = [](bool right, const char* what) {
    if (!right) throw std::runtime_error(what);
  };
  require(file.tensors().size() == static_cast<std::size_t>(file.size()), "size()");
  unsigned sum = 0;
  for (const mora::StoredTensor& tensor : file.tensors()) {
    for (const std::byte byte : tensor.bytes()) sum += static_cast<unsigned>(byte);
    const mora::StoredTensor same = file.tensor(tensor.name());
    require(same.bytes().data() == tensor.bytes().data() && same.info() == tensor.info(), "find()");
    tensor.require_shape(tensor.shape());
    require(std::ssize(tensor.bytes()) == mora::byte_count(tensor.info()), "byte_count()");
    if (!mora::is_float(tensor.dtype())) continue;
    const auto floats = tensor.numbers<float>();
    const auto doubles = tensor.numbers<double>();
    require(
        std::ssize(floats.values) == tensor.size() && std::ssize(doubles.values) == tensor.size(),
        "numbers()");
    for (std::size_t i = 0; i < floats.values.size(); ++i) {
      const auto wide = static_cast<double>(floats.values[i]);
      const double exact = doubles.values[i];
      require(wide == exact || tensor.dtype() == mora::Dtype::f64 || exact != exact,
              "float and double");
    }
  }
  // What is read can be written, and read again.
  const std::string bytes = file_bytes(as_bytes(file.tensors()), file.metadata());
  const mora::SafetensorsFile again = in_memory(bytes);
  require(file_bytes(as_bytes(again.tensors()), again.metadata()) == bytes, "written twice");
  require(again.metadata() == file.metadata() && again.size() == file.size(), "written and read");
  return sum;
}

}  // namespace mora_tests
