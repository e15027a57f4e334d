// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/io/json_text.hpp"
#include "mora/io/safetensors_header.hpp"
#include "mora/io/strict_json.hpp"

namespace mora::inline MORA_ABI {

/// Which file of a folder holds which tensor: Hugging Face's `model.safetensors.index.json`.
struct ShardIndex {
  TextMap weight_map;                 ///< From the tensor's name to the file's.
  std::optional<Index> total_size;    ///< Bytes of all tensors, where the index says it.
  std::vector<std::string> warnings;  ///< What is odd about it and does no harm.
};

namespace detail {

/// What is wrong with the name of a shard, if something is: it has to be one plain name, so that no
/// index reaches out of its folder, on any system.
[[nodiscard]] inline std::string shard_name_fault(std::string_view name) {
  constexpr std::size_t most = 255;
  if (name.empty()) return "found none";
  if (name.size() > most) return concat("found ", name.size(), " bytes");
  if (name == "." || name == "..") return concat("found ", in_quotes(name));
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || c == '/' || c == '\\' || c == ':') {
      return concat("found ", in_quotes(name));
    }
  }
  return {};
}

class ShardIndexJson : private StrictJson {
 public:
  explicit ShardIndexJson(const std::filesystem::path& path) : StrictJson(path) {}

  [[nodiscard]] ShardIndex read(std::string_view text) {
    parse(text, "index");
    if (!found_map_) fail("expected a key 'weight_map', found none");
    return std::move(index_);
  }

 private:
  void on_value(const JsonEvent& event) override {
    if (depth() == 0) {
      expect(event, Kind::object, "an object", [] { return "the index"; });
    } else if (depth() == 1 && key(0) == "weight_map") {
      expect(event, Kind::object, "an object", [] { return "weight_map"; });
      found_map_ = true;
    } else if (depth() == 2 && key(0) == "weight_map") {
      const auto what = [&] { return concat("tensor ", in_quotes(key(1))); };
      expect(event, Kind::string, "the name of a file", what);
      const std::string fault = shard_name_fault(*event.text);
      if (!fault.empty()) {
        fail(concat(what(), ": expected the name of a file in this folder, ", fault));
      }
      index_.weight_map.insert_or_assign(std::string(key(1)), std::move(*event.text));
    } else if (depth() == 2 && key(0) == "metadata" && key(1) == "total_size") {
      on_total_size(event);
    }
  }

  /// Nothing is read by it, and files with a wrong one are in use.
  void on_total_size(const JsonEvent& event) {
    if (event.kind == Kind::whole && event.whole <= std::numeric_limits<Index>::max()) {
      index_.total_size = static_cast<Index>(event.whole);
    } else {
      index_.warnings.push_back(
          concat("total_size: expected a whole number of bytes, found ", found(event)));
    }
  }

  ShardIndex index_;
  bool found_map_ = false;
};

}  // namespace detail

/// Reads an index; `path` is for messages. Throws FormatError for what is no index or larger than
/// 100,000,000 bytes, and for a file's name that is anything but one plain name: no separator or
/// colon, not "..", no control characters, at most 255 bytes.
[[nodiscard]] inline ShardIndex parse_shard_index(std::string_view text,
                                                  const std::filesystem::path& path) {
  if (text.size() > detail::most_header_bytes) {
    throw FormatError(path, "index",
                      detail::concat("expected at most ", detail::most_header_bytes,
                                     " bytes, found ", text.size()));
  }
  return detail::ShardIndexJson(path).read(text);
}

/// The index as transformers writes it. Throws ArgumentError for names that are not UTF-8.
[[nodiscard]] inline std::string shard_index_json(const ShardIndex& index) {
  std::string json = "{\n  \"metadata\": {";
  if (index.total_size) json += detail::concat("\n    \"total_size\": ", *index.total_size, "\n  ");
  json += "},\n  \"weight_map\": {";
  const char* between = "\n    ";
  for (const auto& [tensor, file] : index.weight_map) {
    json += between + detail::json_text(tensor, "tensor", true) + ": " +
            detail::json_text(file, "file", true);
    between = ",\n    ";
  }
  return json + (index.weight_map.empty() ? "}\n}\n" : "\n  }\n}\n");
}

}  // namespace mora::inline MORA_ABI
