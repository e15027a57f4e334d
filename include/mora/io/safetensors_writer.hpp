// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/io/atomic_file.hpp"
#include "mora/io/safetensors_layout.hpp"

namespace mora::inline MORA_ABI {

/// Writes a safetensors file tensor by tensor, so that no more of it than the piece at hand has to
/// be in memory. The file appears with commit(), whole or not at all (AtomicFile), also in place of
/// one that is mapped; its bytes are the reference writer's (lay_out_safetensors).
///
///     using mora::Dtype;
///     mora::SafetensorsWriter writer(path, {{"w", Dtype::bf16, {4, 3}}, {"b", Dtype::f32, {4}}});
///     for (const mora::TensorInfo& tensor : writer.tensors()) {
///       writer.write(tensor.name, std::span<const float>(numbers_of(tensor)));  // all, or pieces
///     }
///     writer.commit();
class SafetensorsWriter {
 public:
  /// Throws as lay_out_safetensors and AtomicFile do.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorInfo> tensors,
                    const TextMap& metadata = {})
      : SafetensorsWriter(path, lay_out_safetensors(std::move(tensors), metadata)) {}

  /// With what lay_out_safetensors returned. Throws as AtomicFile does.
  SafetensorsWriter(const std::filesystem::path& path, SafetensorsLayout layout)
      : path_(path), layout_(std::move(layout)), file_(path) {
    file_.write(std::as_bytes(std::span(layout_.header)));
  }

  /// In the order in which they are to be written.
  [[nodiscard]] const std::vector<TensorInfo>& tensors() const { return layout_.tensors; }
  /// The file's name, as it was given.
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  /// The next bytes of a tensor: of the one at hand, or of the next one when that is complete.
  /// Tensors without numbers may be left out. Throws ArgumentError for another tensor, ShapeError
  /// for more bytes than it has left, naming it and both numbers, after which the writer is as it
  /// was; FileError and StateError as AtomicFile does.
  void write(std::string_view name, std::span<const std::byte> bytes) {
    leave(name, std::ssize(bytes)).write(0, bytes);
  }

  /// Leaves room for the next bytes of a tensor, to be filled by several threads before finish(),
  /// which otherwise throws StateError with the file and both numbers. Throws as write().
  [[nodiscard]] AtomicFile::Room leave(std::string_view name, Index bytes) {
    const Place place = find(name, bytes);
    AtomicFile::Room room = file_.leave(static_cast<std::size_t>(bytes));
    place_ = {.tensor = place.tensor, .bytes = place.bytes + bytes};
    return room;
  }

  /// The next numbers of a tensor, rounded once to its dtype. Throws as above; ArgumentError for a
  /// dtype that is not converted (is_float), and NumericError, with the number, before any of them
  /// is written, where a finite one would become infinite or NaN.
  template <detail::WideFloat T>
  void write(std::string_view name, std::span<const T> numbers) {
    const TensorInfo& tensor = tensors_at(name);
    const Index bytes_each = bits_of(tensor.dtype) / 8;
    if (!is_float(tensor.dtype)) {
      fail(tensor, "numbers are written to F64, F32, F16, BF16, F8_E4M3 and F8_E5M2, found ",
           name_of(tensor.dtype));
    }
    // Divided, as the product might overflow.
    const Place place = find(name, 0);
    const Index left = (byte_count(tensor) - place.bytes) / bytes_each;
    if (std::ssize(numbers) > left) too_many(tensor, left, std::ssize(numbers), "numbers");
    (void)detail::with_type_of(tensor.dtype, [&]<class To>(To) {
      if constexpr (std::same_as<To, T>) return write(name, std::as_bytes(numbers));
      require_in_range<To>(tensor, numbers);
      std::array<To, (1 << 14) / sizeof(To)> piece;
      for (std::span<const T> rest = numbers; !rest.empty();) {
        const std::size_t count = std::min(rest.size(), piece.size());
        const std::span<To> converted = std::span(piece).first(count);
        convert(rest.first(count), converted);
        write(name, std::as_bytes(converted));
        rest = rest.subspan(count);
      }
    });
  }

  /// Whether all bytes have been written, or room been left for them.
  [[nodiscard]] bool complete() const { return first_missing().tensor == tensors().size(); }

  /// Brings the bytes to the disk; what remains for commit() is to give the file its name. Throws
  /// StateError unless all bytes have been written, naming the tensor and both numbers.
  void finish() {
    if (finished_) return;
    require_complete();
    file_.finish();
    finished_ = true;
  }

  /// Puts the file in its place. Throws as finish() and AtomicFile::commit() do.
  void commit() {
    finish();
    file_.commit();
  }

 private:
  /// How much has been written: tensors before this one, and bytes of it.
  struct Place {
    std::size_t tensor = 0;
    Index bytes = 0;
  };

  [[nodiscard]] bool complete(const Place& place) const {
    return place.tensor == tensors().size() || place.bytes == byte_count(tensors()[place.tensor]);
  }

  /// The next place in `name`, at hand or after complete tensors.
  [[nodiscard]] Place seek(std::string_view name) const {
    Place place = place_;
    while (place.tensor < tensors().size() && tensors()[place.tensor].name != name &&
           complete(place)) {
      place = {.tensor = place.tensor + 1};
    }
    return place;
  }

  [[nodiscard]] const TensorInfo& tensors_at(std::string_view name) const {
    const Place place = seek(name);
    if (place.tensor < tensors().size() && tensors()[place.tensor].name == name) {
      return tensors()[place.tensor];
    }
    // Tensors without numbers can be passed over: the first that cannot is expected.
    throw ArgumentError(detail::concat(
        path_.string(), ", tensor ", detail::in_quotes(name), ": expected ",
        place.tensor == tensors().size()
            ? "no more tensors"
            : detail::concat("tensor ", detail::in_quotes(tensors()[place.tensor].name), " with ",
                             byte_count(tensors()[place.tensor]) - place.bytes, " more bytes"),
        " next"));
  }

  [[nodiscard]] Place find(std::string_view name, Index bytes) const {
    const TensorInfo& tensor = tensors_at(name);
    const Place place = seek(name);
    const Index left = byte_count(tensor) - place.bytes;
    if (bytes > left) too_many(tensor, left, bytes, "bytes");
    return place;
  }

  [[noreturn]] void too_many(const TensorInfo& tensor, Index left, Index found,
                             const char* what) const {
    throw ShapeError(detail::concat(path_.string(), ", tensor ", detail::in_quotes(tensor.name),
                                    " (", name_of(tensor.dtype), ", ",
                                    detail::shape_text(tensor.shape), "): expected at most ", left,
                                    " more ", what, ", found ", found));
  }

  template <class... Parts>
  [[noreturn]] void fail(const TensorInfo& tensor, const Parts&... parts) const {
    throw ArgumentError(detail::concat(path_.string(), ", tensor ", detail::in_quotes(tensor.name),
                                       ": ", parts...));
  }

  template <class To, class T>
  void require_in_range(const TensorInfo& tensor, std::span<const T> numbers) const {
    if constexpr (sizeof(To) < sizeof(T)) {
      const auto lost = [](T x) {
        return std::isfinite(x) && !std::isfinite(convert_number<double>(convert_number<To>(x)));
      };
      const auto bad = std::find_if(numbers.begin(), numbers.end(), lost);
      if (bad == numbers.end()) return;
      throw NumericError(detail::concat(path_.string(), ", tensor ", detail::in_quotes(tensor.name),
                                        ", number ", bad - numbers.begin(), " of ", numbers.size(),
                                        ": ", *bad, " is too large for ", name_of(tensor.dtype)));
    }
  }

  /// The first place that misses bytes: behind the last tensor if none does.
  [[nodiscard]] Place first_missing() const {
    Place place = place_;
    while (place.tensor < tensors().size() && complete(place)) place = {.tensor = place.tensor + 1};
    return place;
  }

  void require_complete() const {
    if (complete()) return;
    const Place place = first_missing();
    const TensorInfo& tensor = tensors()[place.tensor];
    throw StateError(detail::concat(path_.string(), ", tensor ", detail::in_quotes(tensor.name),
                                    ": expected ", byte_count(tensor), " bytes, found ",
                                    place.bytes));
  }

  std::filesystem::path path_;
  SafetensorsLayout layout_;
  AtomicFile file_;
  Place place_;
  bool finished_ = false;
};

/// A tensor in memory, to be written as it is.
struct TensorBytes {
  TensorInfo info;
  std::span<const std::byte> bytes;
};

/// Writes all tensors at once. Throws as SafetensorsWriter does, and ShapeError for bytes that are
/// not as many as dtype and shape say, naming the tensor and both numbers; nothing is written then.
inline void write_safetensors(const std::filesystem::path& path,
                              std::span<const TensorBytes> tensors, const TextMap& metadata = {}) {
  std::vector<TensorInfo> infos;
  std::map<std::string_view, std::span<const std::byte>> bytes;
  for (const TensorBytes& tensor : tensors) {
    const Index expected = byte_count(tensor.info);
    if (std::ssize(tensor.bytes) != expected) {
      throw ShapeError(detail::concat(path.string(), ", tensor ",
                                      detail::in_quotes(tensor.info.name), ": expected ", expected,
                                      " bytes, found ", tensor.bytes.size()));
    }
    infos.push_back(tensor.info);
    bytes[tensor.info.name] = tensor.bytes;
  }
  SafetensorsWriter writer(path, std::move(infos), metadata);
  for (const TensorInfo& tensor : writer.tensors()) writer.write(tensor.name, bytes[tensor.name]);
  writer.commit();
}

}  // namespace mora::inline MORA_ABI
