// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "mora/io/strict_json.hpp"
#include "mora/io/tensor_info.hpp"

namespace mora::inline MORA_ABI {

/// What a safetensors file says of itself, as its `__metadata__`.
using TextMap = std::map<std::string, std::string, std::less<>>;

/// A tensor with its place: bytes [begin, end) behind the header.
struct SafetensorsEntry {
  TensorInfo info;
  Index begin = 0;
  Index end = 0;
};

/// The header of a safetensors file.
struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  ///< In the order of their bytes.
  TextMap metadata;
  Index size = 0;  ///< Of the header with its length in front: where the tensors' bytes begin.
};

namespace detail {

/// The format's limit, which keeps a reader from endless headers.
inline constexpr std::uint64_t most_header_bytes = 100'000'000;

inline constexpr std::string_view metadata_key = "__metadata__";

/// Reads the JSON: an object of tensors, each with dtype, shape and data_offsets. What tensors have
/// beyond that is skipped, as the reference does.
class SafetensorsJson : private StrictJson {
 public:
  explicit SafetensorsJson(const std::filesystem::path& path) : StrictJson(path) {}

  [[nodiscard]] SafetensorsHeader read(std::string_view text) {
    parse(text, "header");
    return std::move(header_);
  }

 private:
  enum class Field { none, dtype, shape, offsets };

  void on_value(const JsonEvent& event) override {
    switch (depth()) {
      case 0: return expect(event, Kind::object, "an object", [] { return "the header"; });
      case 1: return on_entry(event);
      case 2: return in_metadata_ ? on_metadata(event) : on_field(event);
      case 3:
        if (field_ == Field::shape) shape_.push_back(number(event, "shape"));
        if (field_ == Field::offsets) on_offset(event);
        return;
      default: return;
    }
  }

  void on_entry(const JsonEvent& event) {
    in_metadata_ = key(0) == metadata_key;
    expect(event, Kind::object, "an object", [&] { return concat("key ", in_quotes(key(0))); });
    field_ = Field::none;
    seen_ = 0;
    shape_.clear();
    offsets_.clear();
  }

  void on_metadata(const JsonEvent& event) {
    expect(event, Kind::string, "a string",
           [&] { return concat(metadata_key, ", key ", in_quotes(key(1))); });
    header_.metadata.insert_or_assign(std::string(key(1)), std::move(*event.text));
  }

  void on_field(const JsonEvent& event) {
    const std::string_view name = key(1);
    field_ = name == "dtype"          ? Field::dtype
             : name == "shape"        ? Field::shape
             : name == "data_offsets" ? Field::offsets
                                      : Field::none;
    if (field_ == Field::none) return;
    seen_ |= 1u << static_cast<int>(field_);
    if (field_ == Field::dtype) {
      expect(event, Kind::string, "a string", [&] { return tensor("dtype"); });
      const auto dtype = find_dtype(*event.text);
      if (!dtype)
        fail(concat(tensor("dtype"), ": expected one of the format's, found ", found(event)));
      dtype_ = *dtype;
    } else {
      expect(event, Kind::array, "an array of numbers", [&] { return tensor(name); });
    }
  }

  void on_offset(const JsonEvent& event) {
    if (offsets_.size() == 2) fail(tensor("data_offsets") + ": expected 2 numbers, found more");
    offsets_.push_back(number(event, "data_offsets"));
  }

  /// Of a shape, of offsets, of an entry, or of anything else.
  void on_end() override {
    if (depth() == 2 && !in_metadata_) add_entry();
  }

  void add_entry() {
    constexpr std::pair<Field, const char*> fields[] = {
        {Field::dtype, "dtype"}, {Field::shape, "shape"}, {Field::offsets, "data_offsets"}};
    for (const auto& [field, name] : fields) {
      if ((seen_ >> static_cast<int>(field) & 1u) == 0) {
        fail(concat(tensor(name), ": expected this key, found none"));
      }
    }
    if (offsets_.size() != 2) {
      fail(concat(tensor("data_offsets"), ": expected 2 numbers, found ", offsets_.size()));
    }
    header_.entries.push_back(
        {.info = {.name = std::string(key(0)), .dtype = dtype_, .shape = shape_},
         .begin = offsets_[0],
         .end = offsets_[1]});
  }

  [[nodiscard]] Index number(const JsonEvent& event, const char* field) const {
    constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<Index>::max());
    if (event.kind != Kind::whole || event.whole > most) {
      fail(concat(tensor(field), ": expected whole numbers from 0 to ", most, ", found ",
                  found(event)));
    }
    return static_cast<Index>(event.whole);
  }

  [[nodiscard]] std::string tensor(std::string_view field) const {
    return concat("tensor ", in_quotes(key(0)), ", ", field);
  }

  SafetensorsHeader header_;
  bool in_metadata_ = false;
  Field field_ = Field::none;
  unsigned seen_ = 0;  // bits of fields
  Dtype dtype_ = Dtype::f32;
  std::vector<Index> shape_;
  std::vector<Index> offsets_;
};

/// Each tensor's bytes are as many as its shape says, and all together fill the file without holes
/// or overlaps.
inline void require_exact_cover(const std::filesystem::path& path, SafetensorsHeader& header,
                                std::uint64_t data_bytes) {
  const auto fail = [&](const SafetensorsEntry& entry, const auto&... parts) {
    throw FormatError(path, concat("tensor ", in_quotes(entry.info.name)), concat(parts...));
  };
  const auto header_bytes = static_cast<std::uint64_t>(header.size);
  for (const SafetensorsEntry& entry : header.entries) {
    const TensorSize size = size_of(entry.info);
    if (!size.fault.empty()) fail(entry, size.fault);
    if (entry.begin > entry.end) {
      fail(entry, "data_offsets: expected begin <= end, found ", entry.begin, " and ", entry.end);
    }
    if (static_cast<std::uint64_t>(entry.end) > data_bytes) {
      fail(entry, "data_offsets: expected an end of at most ", data_bytes, ", found ", entry.end,
           ": the file has ", header_bytes + data_bytes, " bytes instead of at least ",
           header_bytes + static_cast<std::uint64_t>(entry.end));
    }
    const auto found = static_cast<std::uint64_t>(entry.end - entry.begin);
    if (found != size.bytes) {
      fail(entry, "data_offsets: expected ", size.bytes, " bytes for ", name_of(entry.info.dtype),
           " of shape ", shape_text(entry.info.shape), ", found ", found);
    }
  }
  std::sort(header.entries.begin(), header.entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.info.name) < std::tie(b.begin, b.end, b.info.name);
  });
  Index end = 0;
  const SafetensorsEntry* before = nullptr;
  for (const SafetensorsEntry& entry : header.entries) {
    if (entry.begin != end) {
      const char* const fault = entry.begin < end ? "overlap" : "hole";
      fail(entry, "data_offsets: expected a begin of ", end, ", ",
           before == nullptr ? "as it is the first"
                             : concat("where tensor ", in_quotes(before->info.name), " ends"),
           ", found ", entry.begin, " (", fault, ")");
    }
    end = entry.end;
    before = &entry;
  }
  if (static_cast<std::uint64_t>(end) != data_bytes) {
    throw FormatError(
        path, concat("expected ", header.size + end, " bytes as the header says (", header.size,
                     " of it, ", end, " of tensors), found ", header_bytes + data_bytes));
  }
}

}  // namespace detail

/// Reads and checks the header of a safetensors file, whose bytes are all of it; `path` is for
/// messages. What it returns can be relied on: every tensor's bytes are inside, as many as dtype
/// and shape say, and no two share any. Nothing is taken on trust: the memory that is asked
/// for grows with the header, to at most twenty times its size. Throws FormatError with the tensor
/// and both numbers.
///
/// The format is described at https://github.com/huggingface/safetensors. Stricter than the
/// reference reader: a key twice in an object is refused, and a dimension of 2^63 or more.
[[nodiscard]] inline SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file,
                                                                const std::filesystem::path& path) {
  static_assert(std::endian::native == std::endian::little,
                "mora: safetensors files are read and written on little-endian machines only");
  std::uint64_t length = 0;
  if (file.size() < sizeof length) {
    throw FormatError(path, detail::concat("expected at least 8 bytes, found ", file.size()));
  }
  std::memcpy(&length, file.data(), sizeof length);
  const std::uint64_t behind = file.size() - sizeof length;
  if (length > detail::most_header_bytes) {
    throw FormatError(path, "header",
                      detail::concat("expected at most ", detail::most_header_bytes,
                                     " bytes, found a length of ", length));
  }
  if (length > behind) {
    throw FormatError(path, "header",
                      detail::concat("expected ", length, " bytes, found ", behind));
  }
  std::string_view text(reinterpret_cast<const char*>(file.data()) + sizeof length,
                        static_cast<std::size_t>(length));
  text = text.substr(0, text.find_last_not_of(' ') + 1);  // padding
  SafetensorsHeader header = detail::SafetensorsJson(path).read(text);
  header.size = static_cast<Index>(sizeof length + length);
  detail::require_exact_cover(path, header, behind - length);
  return header;
}

}  // namespace mora::inline MORA_ABI
