// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/io/error.hpp"
#include "mora/io/in_quotes.hpp"
#include "mora/io/mapped_file.hpp"
#include "mora/io/safetensors_header.hpp"
#include "mora/io/stored_tensor.hpp"

namespace mora::inline MORA_ABI {

/// A safetensors file that is read: a handle, whose copies and tensors share the bytes.
///
///     const mora::SafetensorsFile file("adapter.safetensors");
///     for (const mora::StoredTensor& tensor : file.tensors()) use(tensor.name(), tensor.shape());
///     const auto w = file.tensor("norm.weight").numbers<float>();  // in place, or converted
///
/// Opening reads and checks the header alone, in a time of n log n in the number of tensors.
class SafetensorsFile {
 public:
  /// Throws as MappedFile does, and FormatError where parse_safetensors_header does.
  explicit SafetensorsFile(const std::filesystem::path& path,
                           FileAccess access = FileAccess::mapped)
      : SafetensorsFile(MappedFile(path, access)) {}

  /// A file that is in memory, kept there by `owner`; `name` is for messages.
  SafetensorsFile(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                  std::filesystem::path name)
      : contents_(
            std::make_shared<const Contents>(bytes, std::move(owner), std::move(name), false)) {}

  // Moving copies, so that there is no state without a file.
  SafetensorsFile(const SafetensorsFile&) = default;
  SafetensorsFile& operator=(const SafetensorsFile&) = default;
  ~SafetensorsFile() = default;

  /// As it was given.
  [[nodiscard]] const std::filesystem::path& path() const { return contents_->path; }
  /// What the file says of itself; empty for one that says nothing.
  [[nodiscard]] const TextMap& metadata() const { return contents_->header.metadata; }
  /// How many tensors there are.
  [[nodiscard]] Index size() const { return std::ssize(contents_->header.entries); }

  /// All, in the order of their bytes.
  [[nodiscard]] std::vector<StoredTensor> tensors() const {
    std::vector<StoredTensor> all;
    all.reserve(contents_->header.entries.size());
    for (const SafetensorsEntry& entry : contents_->header.entries) all.push_back(handle(entry));
    return all;
  }

  /// The one of this name, if there is one.
  [[nodiscard]] std::optional<StoredTensor> find(std::string_view name) const {
    const auto& entries = contents_->header.entries;
    const auto& order = contents_->by_name;
    const auto at = std::lower_bound(
        order.begin(), order.end(), name,
        [&](std::size_t i, std::string_view wanted) { return entries[i].info.name < wanted; });
    if (at == order.end() || entries[*at].info.name != name) return {};
    return handle(entries[*at]);
  }

  /// Throws FormatError, naming file and tensor, where there is none.
  [[nodiscard]] StoredTensor tensor(std::string_view name) const {
    if (auto found = find(name)) return *std::move(found);
    throw FormatError(path(), detail::concat("tensor ", detail::in_quotes(name)),
                      detail::concat("expected, but is none of the ", size(), " in the file"));
  }

 private:
  struct Contents {
    Contents(std::span<const std::byte> bytes, std::shared_ptr<const void> owner_of_bytes,
             std::filesystem::path name, bool pages)
        : path(std::move(name)),
          owner(std::move(owner_of_bytes)),
          mapped(pages),
          header(parse_safetensors_header(bytes, path)),
          data(bytes.subspan(static_cast<std::size_t>(header.size))),
          by_name(header.entries.size()) {
      std::iota(by_name.begin(), by_name.end(), std::size_t{0});
      std::sort(by_name.begin(), by_name.end(), [&](std::size_t a, std::size_t b) {
        return header.entries[a].info.name < header.entries[b].info.name;
      });
    }

    std::filesystem::path path;
    std::shared_ptr<const void> owner;
    bool mapped;
    SafetensorsHeader header;
    std::span<const std::byte> data;
    std::vector<std::size_t> by_name;
  };

  explicit SafetensorsFile(const MappedFile& file)
      : contents_(std::make_shared<const Contents>(file.bytes(), file.owner(), file.path(),
                                                   file.mapped())) {}

  [[nodiscard]] StoredTensor handle(const SafetensorsEntry& entry) const {
    return {contents_, contents_->path, entry.info,
            contents_->data.subspan(static_cast<std::size_t>(entry.begin),
                                    static_cast<std::size_t>(entry.end - entry.begin)),
            contents_->mapped};
  }

  std::shared_ptr<const Contents> contents_;
};

namespace detail {

/// Every tensor of the file was asked for.
inline void require_no_more(const SafetensorsFile& file, const std::set<std::string>& known) {
  for (const StoredTensor& tensor : file.tensors()) {
    if (known.contains(tensor.name())) continue;
    throw FormatError(file.path(), concat("tensor ", in_quotes(tensor.name())),
                      concat("is none of this model's ", known.size()));
  }
}

}  // namespace detail
}  // namespace mora::inline MORA_ABI
