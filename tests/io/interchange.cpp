// SPDX-License-Identifier: MIT
#include <exception>
#include <filesystem>
#include <iostream>
#include <mora/io/sharded_tensors.hpp>
#include <mora/io/sharded_writer.hpp>
#include <string_view>

#include "support/tensor_files.hpp"

/// \file
/// interchange copy <from> <to>: a safetensors file, read and written again.
/// interchange numbers <from> <to>: its floats, converted to F64.
/// interchange narrow <from> <to>: its F32 tensors, as BF16, F16, F8_E4M3 and F8_E5M2.
/// interchange shards <from> <folder> <bytes>: as a model of files of so many bytes.
/// interchange join <folder> <to>: and back.
///
/// For interchange.py, which makes the files and looks at them with Python's safetensors.

namespace {

using mora::Dtype;
using mora::SafetensorsFile;

void write_numbers(const std::string& from, const std::string& to) {
  const SafetensorsFile file(from);
  std::vector<mora::TensorInfo> infos;
  for (const auto& tensor : file.tensors()) {
    if (mora::is_float(tensor.dtype()))
      infos.push_back({tensor.name(), Dtype::f64, tensor.shape()});
  }
  mora::SafetensorsWriter writer(to, infos);
  for (const auto& info : writer.tensors()) {
    writer.write(info.name, file.tensor(info.name).numbers<double>().values);
  }
  writer.commit();
}

void write_narrow(const std::string& from, const std::string& to) {
  const SafetensorsFile file(from);
  std::vector<mora::TensorInfo> infos;
  for (const auto& tensor : file.tensors()) {
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f8_e4m3, Dtype::f8_e5m2}) {
      infos.push_back(
          {tensor.name() + "." + std::string(mora::name_of(dtype)), dtype, tensor.shape()});
    }
  }
  mora::SafetensorsWriter writer(to, infos);
  for (const auto& info : writer.tensors()) {
    const std::string name = info.name.substr(0, info.name.rfind('.'));
    writer.write(info.name, file.tensor(name).numbers<float>().values);
  }
  writer.commit();
}

void write_shards(const std::string& from, const std::string& folder, mora::Index bytes) {
  const SafetensorsFile file(from);
  std::vector<mora::TensorInfo> infos;
  for (const auto& tensor : file.tensors()) infos.push_back(tensor.info());
  mora::ShardedWriter writer(folder, infos, {.max_shard_bytes = bytes});
  for (const auto& info : writer.tensors()) {
    writer.write(info.name, file.tensor(info.name).bytes());
  }
  writer.commit();
}

}  // namespace

int main(int count, char** arguments) {
  const std::vector<std::string> words(arguments + 1, arguments + count);
  try {
    if (words.size() == 3 && words[0] == "copy") {
      const SafetensorsFile file(words[1]);
      mora_tests::use(file);
      mora::write_safetensors(words[2], mora_tests::as_bytes(file.tensors()), file.metadata());
    } else if (words.size() == 3 && words[0] == "numbers") {
      write_numbers(words[1], words[2]);
    } else if (words.size() == 3 && words[0] == "narrow") {
      write_narrow(words[1], words[2]);
    } else if (words.size() == 4 && words[0] == "shards") {
      write_shards(words[1], words[2], std::stoll(words[3]));
    } else if (words.size() == 3 && words[0] == "join") {
      const mora::ShardedTensors model(words[1]);
      for (const auto& warning : model.warnings()) throw std::runtime_error(warning);
      mora::write_safetensors(words[2], mora_tests::as_bytes(model.tensors()));
    } else {
      std::cerr << "interchange copy|numbers|narrow|shards|join ...\n";
      return 2;
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
