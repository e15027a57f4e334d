// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/core/large_memory.hpp"
#include "mora/io/error.hpp"
#include "mora/io/mapped_file.hpp"
#include "mora/io/tensor_info.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

/// Numbers that stand at any address, converted.
template <AnyFloat From, AnyFloat To>
void convert_bytes(const std::byte* from, std::span<To> to) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    From number;
    std::memcpy(&number, from + i * sizeof number, sizeof number);
    to[i] = convert_number<To>(number);
  }
}

}  // namespace detail

/// What a tensor's numbers are read as: double, float, or one of the two formats of 16 bits.
template <class T>
concept TensorNumber =
    detail::WideFloat<T> || std::same_as<T, Float16> || std::same_as<T, BFloat16>;

/// Numbers for reading, and what keeps them alive.
template <class T>
struct SharedNumbers {
  std::span<const T> values;
  std::shared_ptr<const void> owner;
  bool in_place = false;  ///< Whether they are the file's own bytes, of which there is no copy.
};

/// A tensor of a file: a handle, which keeps the file's bytes alive.
class StoredTensor {
 public:
  /// `info` and `file` live as long as `owner`; `mapped`: the bytes are pages of a mapped file. For
  /// readers of files, which have checked all of it.
  StoredTensor(std::shared_ptr<const void> owner, const std::filesystem::path& file,
               const TensorInfo& info, std::span<const std::byte> bytes, bool mapped = false)
      : owner_(std::move(owner)), file_(&file), info_(&info), bytes_(bytes), mapped_(mapped) {}

  // Moving copies, so that there is no state without a tensor.
  StoredTensor(const StoredTensor&) = default;
  StoredTensor& operator=(const StoredTensor&) = default;
  ~StoredTensor() = default;

  [[nodiscard]] const TensorInfo& info() const { return *info_; }
  [[nodiscard]] const std::string& name() const { return info_->name; }
  [[nodiscard]] Dtype dtype() const { return info_->dtype; }
  [[nodiscard]] const std::vector<Index>& shape() const { return info_->shape; }
  /// How many numbers it has.
  [[nodiscard]] Index size() const { return number_count(*info_); }
  /// As they are in the file, at any address: whatever was stored before decides the alignment.
  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  [[nodiscard]] const std::filesystem::path& file() const { return *file_; }
  [[nodiscard]] const std::shared_ptr<const void>& owner() const { return owner_; }

  /// Gives memory back that holds the file's pages: of all bytes, or of `count` from `first` on.
  /// They are read again when they are used. Without effect on a copy, whose bytes have no other
  /// place.
  void release_pages() const { release_pages(0, std::ssize(bytes_)); }
  void release_pages(Index first, Index count) const {
    if (!mapped_) return;
    detail::release_mapped(
        bytes_.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
  }

  /// Whether the other has the same dtype, shape and bytes.
  [[nodiscard]] bool equals(const StoredTensor& other) const {
    return dtype() == other.dtype() && shape() == other.shape() &&
           std::ranges::equal(bytes(), other.bytes());
  }

  /// Throws FormatError with both shapes unless the tensor has this one.
  void require_shape(std::span<const Index> expected) const {
    if (std::ranges::equal(expected, shape())) return;
    fail(detail::concat("expected shape ", detail::shape_text(expected), ", found ",
                        detail::shape_text(shape())));
  }
  void require_shape(std::initializer_list<Index> expected) const {
    require_shape(std::span(expected.begin(), expected.size()));
  }

  /// Throws FormatError unless the numbers can be converted (is_float).
  void require_float() const {
    if (is_float(dtype())) return;
    fail(detail::concat("expected F64, F32, F16, BF16, F8_E4M3 or F8_E5M2, found ",
                        name_of(dtype())));
  }

  /// Throws FormatError naming the first number that is NaN or infinite: reading lets them pass, as
  /// the format does. Also throws as require_float.
  void require_finite() const {
    require_float();
    constexpr Index piece = 4096;
    std::array<double, piece> numbers;
    for (Index first = 0; first < size(); first += piece) {
      const std::span<double> part(numbers.data(),
                                   static_cast<std::size_t>(std::min(piece, size() - first)));
      copy_to(first, part);
      const auto bad = std::ranges::find_if_not(part, [](double x) { return std::isfinite(x); });
      if (bad == part.end()) continue;
      fail(detail::concat("number ", first + (bad - part.begin()), " of ", size(), " is ", *bad));
    }
  }

  /// All numbers: in place where the file has T at an aligned address, which costs nothing, else
  /// converted into memory of their own, rounded once. Numbers beyond T's become infinite. Throws
  /// FormatError for a dtype that is not converted (is_float).
  template <TensorNumber T>
  [[nodiscard]] SharedNumbers<T> numbers() const {
    const bool aligned = reinterpret_cast<std::uintptr_t>(bytes_.data()) % alignof(T) == 0;
    const auto count = static_cast<std::size_t>(size());
    if (dtype() == dtype_of<T>() && aligned) {
      return {{reinterpret_cast<const T*>(bytes_.data()), count}, owner_, true};
    }
    require_float();
    const std::shared_ptr<T> copy = detail::allocate_large<T>(size());
    copy_to(std::span<T>(copy.get(), count));
    return {{copy.get(), count}, copy, false};
  }

  /// All numbers into memory of the caller's, converted like numbers(). Throws FormatError as that
  /// does, ShapeError for memory of another size.
  template <TensorNumber T>
  void copy_to(std::span<T> numbers) const {
    require_float();
    detail::require_size("numbers", size(), std::ssize(numbers));
    (void)detail::with_type_of(
        dtype(), [&]<class From>(From) { detail::convert_bytes<From>(bytes_.data(), numbers); });
  }
  /// Those from number `first` on, as many as the memory holds. Throws as above, and ShapeError
  /// where the tensor ends before.
  template <TensorNumber T>
  void copy_to(Index first, std::span<T> numbers) const {
    require_float();
    if (first < 0 || std::ssize(numbers) > size() - first) {
      throw ShapeError(detail::concat("numbers: expected at most ", size(), ", found ", first,
                                      " + ", numbers.size()));
    }
    const std::byte* const from = bytes_.data() + first * (bits_of(dtype()) / 8);
    (void)detail::with_type_of(
        dtype(), [&]<class From>(From) { detail::convert_bytes<From>(from, numbers); });
  }

 private:
  [[noreturn]] void fail(std::string_view fault) const {
    throw FormatError(file(), detail::concat("tensor ", detail::in_quotes(name())), fault);
  }

  std::shared_ptr<const void> owner_;
  const std::filesystem::path* file_;
  const TensorInfo* info_;
  std::span<const std::byte> bytes_;
  bool mapped_;
};

}  // namespace mora::inline MORA_ABI
