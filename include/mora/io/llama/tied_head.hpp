// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <system_error>

#include "mora/io/json_object.hpp"
#include "mora/io/sharded_tensors.hpp"
#include "mora/io/stored_tensor.hpp"

namespace mora::inline MORA_ABI::detail {

/// For a head that the config says is the embedding, and that is stored all the same. Throws
/// FormatError unless both have the same numbers: what a model of others computes depends on the
/// reader, as transformers 4 takes the embedding, and 5 the stored head.
inline void require_tied_numbers(const StoredTensor& embedding, const StoredTensor& head) {
  const bool equal = head.equals(embedding);
  head.release_pages();
  embedding.release_pages();
  if (equal) return;
  throw FormatError(
      head.file(), concat("tensor ", in_quotes(head.name())),
      concat("expected the numbers of ", in_quotes(embedding.name()),
             ", as tie_word_embeddings is true in config.json, found others: set it to false if ",
             "this is the head, else remove the tensor"));
}

/// The names under which a tied embedding may be stored twice.
inline constexpr const char* embedding_weight = "model.embed_tokens.weight";
inline constexpr const char* head_weight = "lm_head.weight";

/// Whether a checkpoint stores a head that its config says is the embedding. Throws FormatError
/// where the two have other numbers.
[[nodiscard]] inline bool has_stored_tied_head(const std::filesystem::path& base,
                                               const ShardedTensors& tensors) {
  const auto head = tensors.find(head_weight);
  const std::filesystem::path config = base / "config.json";
  std::error_code error;
  if (!head || !std::filesystem::exists(config, error)) return false;
  if (!JsonObject::read(config).boolean("tie_word_embeddings").value_or(false)) return false;
  require_tied_numbers(tensors.tensor(embedding_weight), *head);
  return true;
}

}  // namespace mora::inline MORA_ABI::detail
