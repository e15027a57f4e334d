// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "mora/core/buffer.hpp"
#include "mora/models/llama/workspace.hpp"

namespace mora::inline MORA_ABI {

/// Keys and values of the tokens that one sequence has had so far, so that the next token costs a
/// pass over that token alone. Made by Llama::cache(); belongs to the weights and adapters that
/// filled it. Memory: 2 layers key_value_size numbers a token.
template <Real T>
class LlamaCache {
 public:
  LlamaCache(Index layers, Index key_value_size)
      : width_(key_value_size), layers_(static_cast<std::size_t>(layers)) {}
  LlamaCache(const LlamaCache&) = default;
  LlamaCache(LlamaCache&&) = default;
  LlamaCache& operator=(const LlamaCache& other) { return *this = LlamaCache(other); }
  LlamaCache& operator=(LlamaCache&&) = default;
  ~LlamaCache() = default;

  /// Tokens so far.
  [[nodiscard]] Index length() const { return length_; }
  /// Forgets the tokens after the first `length`.
  void truncate(Index length) { length_ = std::clamp<Index>(length, 0, length_); }
  /// Memory for that many tokens, so that nothing is allocated up to there.
  void reserve(Index tokens) {
    for (Layer& layer : layers_) {
      grow(layer.keys, tokens);
      grow(layer.values, tokens);
    }
  }

  /// \name For passes.
  /// @{

  /// Throws ShapeError for another model's.
  void require_layers(Index layers, Index key_value_size) const {
    detail::require_size("cache, layers", layers, std::ssize(layers_));
    detail::require_size("cache, key_value_size", key_value_size, width_);
  }
  [[nodiscard]] MutableMap<T> keys(Index layer, Index first, Index count) {
    return rows(layers_[static_cast<std::size_t>(layer)].keys, first, count);
  }
  [[nodiscard]] MutableMap<T> values(Index layer, Index first, Index count) {
    return rows(layers_[static_cast<std::size_t>(layer)].values, first, count);
  }
  void advance(Index tokens) { length_ += tokens; }
  [[nodiscard]] detail::LlamaWorkspace<T>& workspace() { return workspace_; }
  [[nodiscard]] Batch& batch() { return batch_; }
  /// @}

 private:
  struct Layer {
    Matrix<T> keys;  // [capacity, width]
    Matrix<T> values;
  };
  void grow(Matrix<T>& memory, Index tokens) const {
    if (memory.rows() >= tokens) return;
    Matrix<T> larger(std::max(tokens, 2 * memory.rows()), width_);
    if (length_ > 0) larger.topRows(length_) = memory.topRows(length_);
    memory = std::move(larger);
  }
  [[nodiscard]] MutableMap<T> rows(Matrix<T>& memory, Index first, Index count) const {
    return detail::rows_of(detail::map_of(memory), first, count);
  }

  Index width_;
  Index length_ = 0;
  std::vector<Layer> layers_;
  detail::LlamaWorkspace<T> workspace_;
  Batch batch_;
};

}  // namespace mora::inline MORA_ABI
