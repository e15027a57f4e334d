// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <utility>

#include "mora/io/mapped_file.hpp"
#include "mora/models/batch.hpp"

namespace mora::inline MORA_ABI {

/// How a file stores tokens: as little-endian numbers, one after another, without a header, as
/// nanoGPT does.
enum class TokenType { uint16, uint32 };

namespace detail {

[[nodiscard]] constexpr Index bytes_of(TokenType type) { return type == TokenType::uint16 ? 2 : 4; }

/// The number at an address of any alignment.
template <class Unsigned>
[[nodiscard]] Unsigned load_little_endian(const std::byte* bytes) {
  static_assert(std::endian::native == std::endian::little,
                "mora: token files are read on little-endian machines only");
  Unsigned number;
  std::memcpy(&number, bytes, sizeof number);
  return number;
}

}  // namespace detail

struct TokenFileSettings {
  TokenType type = TokenType::uint16;      ///< The file does not tell.
  Index vocabulary = 0;                    ///< Tokens are in [0, vocabulary). To be set.
  FileAccess access = FileAccess::mapped;  ///< See there for what others may do to the file.

  void validate() const {
    detail::require_vocabulary(vocabulary);
    if (type != TokenType::uint16 && type != TokenType::uint32) {
      throw ArgumentError(detail::concat("type: expected TokenType::uint16 or uint32, found ",
                                         static_cast<int>(type)));
    }
  }
};

/// The tokens of a file: a handle, whose copies share the memory. All of them are checked once,
/// when it is opened, in one pass at about the speed of reading the file: an error comes before the
/// training and not in its third hour. Whoever writes into a mapped file later can still put in
/// what does not belong there; Batch::validate, which every model calls, sees that.
class TokenFile {
 public:
  using Settings = TokenFileSettings;

  /// Throws as MappedFile does, and FormatError for a size that is no number of tokens, or for a
  /// token outside the vocabulary, with its position.
  explicit TokenFile(const std::filesystem::path& path, const Settings& settings)
      : settings_(validated(settings)), file_(path, settings.access) {
    const Index bytes = detail::bytes_of(settings_.type);
    if (file_.size() % bytes != 0) {
      throw FormatError(
          path, detail::concat("expected a multiple of ", bytes, " bytes, found ", file_.size()));
    }
    if (settings_.type == TokenType::uint16) {
      check<std::uint16_t>();
    } else {
      check<std::uint32_t>();
    }
  }

  [[nodiscard]] Index size() const { return file_.size() / detail::bytes_of(settings_.type); }

  /// Throws ArgumentError for a position that the file does not have.
  [[nodiscard]] Token operator[](Index position) const {
    if (position < 0 || position >= size()) {
      throw ArgumentError(
          detail::concat("position: expected 0 <= position < ", size(), ", found ", position));
    }
    const std::byte* const first = file_.bytes().data();
    return settings_.type == TokenType::uint16
               ? static_cast<Token>(detail::load_little_endian<std::uint16_t>(first + 2 * position))
               : static_cast<Token>(
                     detail::load_little_endian<std::uint32_t>(first + 4 * position));
  }

  [[nodiscard]] const Settings& settings() const { return settings_; }
  [[nodiscard]] const std::filesystem::path& path() const { return file_.path(); }

 private:
  [[nodiscard]] static const Settings& validated(const Settings& settings) {
    settings.validate();
    return settings;
  }

  /// The largest token of a stretch decides, as that is a loop over vectors; only where it is too
  /// large is the first of them looked for.
  template <class Unsigned>
  void check() const {
    constexpr Index stretch = 4096;
    const auto vocabulary = static_cast<std::uint64_t>(settings_.vocabulary);
    const std::byte* const bytes = file_.bytes().data();
    const auto token = [&](Index i) {
      return detail::load_little_endian<Unsigned>(bytes + i * Index{sizeof(Unsigned)});
    };
    for (Index first = 0; first < size(); first += stretch) {
      const Index end = std::min(first + stretch, size());
      Unsigned largest = 0;
      for (Index i = first; i < end; ++i) largest = std::max(largest, token(i));
      if (largest < vocabulary) continue;
      Index position = first;
      while (token(position) < vocabulary) ++position;
      throw FormatError(
          path(), detail::concat("token ", position),
          detail::concat("expected 0 to ", vocabulary - 1, ", found ", token(position)));
    }
  }

  Settings settings_;
  MappedFile file_;
};

}  // namespace mora::inline MORA_ABI
