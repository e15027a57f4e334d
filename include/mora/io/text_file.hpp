// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <filesystem>
#include <string_view>
#include <vector>

#include "mora/io/mapped_file.hpp"
#include "mora/models/batch.hpp"

namespace mora::inline MORA_ABI {

/// Makes tokens of text, such as ByteTokenizer.
template <class Z>
concept TextTokenizer = requires(const Z& tokenizer, std::string_view text) {
  { tokenizer.encode(text) } -> std::convertible_to<std::vector<Token>>;
};

/// The tokens of a whole text file, whose bytes are taken as they are: no line ends are changed, no
/// byte order mark is left out. Throws as MappedFile does: a file without contents is an error.
template <TextTokenizer Z>
[[nodiscard]] std::vector<Token> read_text_tokens(const std::filesystem::path& path,
                                                  const Z& tokenizer) {
  return tokenizer.encode(MappedFile(path).text());
}

}  // namespace mora::inline MORA_ABI
