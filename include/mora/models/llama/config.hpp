// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>

#include "mora/adapters/side.hpp"
#include "mora/core/error.hpp"

namespace mora::inline MORA_ABI {

/// The sizes of a LLaMA-style decoder; names and defaults are those of Hugging Face's LlamaConfig.
struct LlamaConfig {
  Index vocab_size = 32000;
  Index hidden_size = 4096;
  Index intermediate_size = 11008;
  Index num_hidden_layers = 32;  ///< At most 10,000.
  Index num_attention_heads = 32;
  Index num_key_value_heads = 0;  ///< 0: as many as attention heads. Divides those.
  Index head_dim = 0;             ///< 0: hidden_size / num_attention_heads. Even.
  Index max_position_embeddings = 2048;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  bool tie_word_embeddings = false;

  [[nodiscard]] Index key_value_heads() const {
    return num_key_value_heads == 0 ? num_attention_heads : num_key_value_heads;
  }
  [[nodiscard]] Index head_size() const {
    return head_dim == 0 ? hidden_size / num_attention_heads : head_dim;
  }
  /// The width of all queries, and of all keys or values.
  [[nodiscard]] Index query_size() const { return num_attention_heads * head_size(); }
  [[nodiscard]] Index key_value_size() const { return key_value_heads() * head_size(); }

  /// Throws ArgumentError naming the setting, its value and what was expected.
  void validate() const {
    constexpr Index most = Index{1} << 30;  // so that products of two can be counted
    constexpr Index most_layers = 10'000;   // so that a table of all tensors is no burden
    const auto require_size = [](const char* name, Index value, Index limit) {
      if (value < 1 || value > limit) {
        throw ArgumentError(detail::concat(name, ": expected 1 to ", limit, ", found ", value));
      }
    };
    const auto require_positive = [&](const char* name, Index value) {
      require_size(name, value, most);
    };
    require_positive("vocab_size", vocab_size);
    require_positive("hidden_size", hidden_size);
    require_positive("intermediate_size", intermediate_size);
    require_size("num_hidden_layers", num_hidden_layers, most_layers);
    require_positive("num_attention_heads", num_attention_heads);
    require_positive("max_position_embeddings", max_position_embeddings);
    require_positive("num_key_value_heads", key_value_heads());
    if (num_attention_heads % key_value_heads() != 0) {
      throw ArgumentError(detail::concat(
          "num_key_value_heads: expected a divisor of num_attention_heads = ", num_attention_heads,
          ", found ", num_key_value_heads));
    }
    if (head_dim == 0 && hidden_size % num_attention_heads != 0) {
      throw ArgumentError(detail::concat("hidden_size: expected a multiple of num_attention_heads ",
                                         "= ", num_attention_heads, ", found ", hidden_size));
    }
    if (head_size() < 2 || head_size() % 2 != 0) {
      throw ArgumentError(
          detail::concat("head_dim: expected an even positive number, found ", head_size()));
    }
    if (head_size() > most / num_attention_heads) {
      throw ArgumentError(detail::concat("head_dim: expected at most ", most / num_attention_heads,
                                         " with num_attention_heads = ", num_attention_heads,
                                         ", found ", head_size()));
    }
    if (!(rms_norm_eps >= 0.0 && std::isfinite(rms_norm_eps))) {
      throw ArgumentError(
          detail::concat("rms_norm_eps: expected a number >= 0, found ", rms_norm_eps));
    }
    if (!(rope_theta > 0.0 && std::isfinite(rope_theta))) {
      throw ArgumentError(detail::concat("rope_theta: expected a number > 0, found ", rope_theta));
    }
  }
};

}  // namespace mora::inline MORA_ABI
