// SPDX-License-Identifier: MIT
#pragma once

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

}  // namespace mora::inline MORA_ABI::detail
