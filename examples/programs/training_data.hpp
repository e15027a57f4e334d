// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <iostream>
#include <mora/io/json_lines.hpp>
#include <mora/io/text_file.hpp>
#include <mora/io/token_file.hpp>
#include <mora/models/llama/config.hpp>
#include <mora/train/byte_tokenizer.hpp>
#include <mora/train/prompt_responses.hpp>
#include <mora/train/token_windows.hpp>
#include <optional>
#include <string>
#include <vector>

#include "programs/any_data.hpp"

/// \file
/// What a language model is trained on, whatever file it comes from.

namespace programs {

struct DataSettings {
  /// "text", "jsonl", "uint16" or "uint32"; none: by the file's name.
  std::optional<std::string> form = std::nullopt;
  mora::Index length = 256;  ///< Positions of a window; tokens of a prompt with its response.
  mora::JsonLinesSettings keys = {};
};

[[nodiscard]] inline std::string form_of(const std::filesystem::path& file,
                                         const DataSettings& settings) {
  if (settings.form) return *settings.form;
  const auto extension = file.extension();
  if (extension == ".jsonl" || extension == ".json") return "jsonl";
  if (extension == ".txt" || extension == ".md") return "text";
  throw mora::ArgumentError("--form: the name of " + file.string() +
                            " does not say: expected text, jsonl, uint16 or uint32");
}

/// Whether a model can read bytes as tokens; a larger vocabulary may be another tokenizer's.
inline void require_bytes(mora::Index vocabulary) {
  constexpr mora::Index needed = mora::ByteTokenizer::vocabulary;
  if (vocabulary < needed) {
    throw mora::ArgumentError("vocab_size: text needs at least " + std::to_string(needed) +
                              ", found " + std::to_string(vocabulary));
  }
  if (vocabulary > needed) {
    std::cerr << "warning: text is read as bytes, and the model has " << vocabulary
              << " tokens: it may know another tokenizer's, for which give the numbers of tokens\n";
  }
}

/// Text and JSON lines become bytes as tokens, for a model with such a vocabulary.
[[nodiscard]] inline TrainingData read_data(const std::filesystem::path& file,
                                            const mora::LlamaConfig& config,
                                            const DataSettings& settings) {
  using Bytes = mora::ByteTokenizer;
  const std::string form = form_of(file, settings);
  const mora::Index vocabulary = config.vocab_size;
  if (form != "jsonl" && settings.length > config.max_position_embeddings) {  // all windows are
    throw mora::ArgumentError(mora::detail::concat(
        "--length: expected at most max_position_embeddings = ", config.max_position_embeddings,
        ", found ", settings.length));
  }
  const mora::TokenWindowsSettings windows{.length = settings.length};
  if (form == "uint16" || form == "uint32") {
    const auto type = form == "uint16" ? mora::TokenType::uint16 : mora::TokenType::uint32;
    return any_data(mora::TokenWindows<mora::TokenFile>(
        mora::TokenFile(file, {.type = type, .vocabulary = vocabulary}), windows));
  }
  require_bytes(vocabulary);
  if (form == "text") {
    return any_data(mora::TokenWindows<std::vector<mora::Token>>(
        mora::read_text_tokens(file, Bytes()), windows));
  }
  mora::PromptResponses examples({.begin = Bytes::bos,
                                  .end = Bytes::eos,
                                  .max_length = settings.length,
                                  .vocabulary = vocabulary});
  for (const mora::TextExample& example : mora::read_json_lines(file, settings.keys)) {
    examples.add(Bytes().encode(example.prompt), Bytes().encode(example.response));
  }
  if (examples.truncated() + examples.dropped() > 0) {
    std::cerr << "warning: of " << examples.size() + examples.dropped() << " examples "
              << examples.truncated() << " are cut and " << examples.dropped()
              << " left out, as they are longer than --length " << settings.length << '\n';
  }
  if (examples.size() == 0) {
    throw mora::FormatError(file, "no prompt leaves room for a response in --length " +
                                      std::to_string(settings.length));
  }
  return any_data(std::move(examples));
}

}  // namespace programs
