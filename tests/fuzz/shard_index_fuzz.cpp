// SPDX-License-Identifier: MIT
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <mora/io/sharded_tensors.hpp>
#include <stdexcept>
#include <string_view>

#include "support/safetensors_cases.hpp"

/// \file
/// Whatever the bytes: an index whose files are plain names, that can be written and read again and
/// joined with files, or a FormatError.

namespace {

void require(bool right, const char* what) {
  if (!right) throw std::runtime_error(what);
}

/// The index over files that all have the tensors "a" and "b", or one of them.
void join(const mora::ShardIndex& index) {
  static const auto both = mora_tests::in_memory(
      mora_tests::with_header("{" + mora_tests::entry_of_bytes("a", "0", "4", "4") + "," +
                                  mora_tests::entry_of_bytes("b", "4", "8", "4") + "}",
                              "aaaabbbb"));
  static const auto one = mora_tests::in_memory(
      mora_tests::with_header("{" + mora_tests::entry_of_bytes("a", "0", "4", "4") + "}", "aaaa"));
  mora::detail::Shards shards;
  for (const auto& [tensor, file] : index.weight_map) {
    shards.emplace(file, file == "two" ? both : one);
  }
  for (const auto& tensor : mora::detail::join_shards(index, "index", shards)) {
    require(index.weight_map.contains(tensor.name()), "a tensor from nowhere");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto index =
        mora::parse_shard_index({reinterpret_cast<const char*>(data), size}, "index");
    for (const auto& [tensor, file] : index.weight_map) {
      const std::filesystem::path name = file;
      require(name.filename() == name && file != "." && file != "..", "a file elsewhere");
    }
    const auto again = mora::parse_shard_index(mora::shard_index_json(index), "index");
    require(again.weight_map == index.weight_map && again.total_size == index.total_size,
            "written and read");
    join(index);
  } catch (const mora::FormatError&) {
  }
  return 0;
}
