// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <vector>

#include "mora/core/buffer.hpp"
#include "mora/models/batch.hpp"
#include "mora/models/layers/rotary.hpp"
#include "mora/models/llama/parts.hpp"

namespace mora::inline MORA_ABI::detail {

/// What one decoder layer keeps for its backward pass besides its input, in numbers a token: hidden
/// + 2 query + 2 key_value + 2 intermediate + heads + 2, and what the adapters save; intermediate
/// more where that of `down` needs its input.
template <Real T>
struct LlamaBlock {
  Buffer<T> first_inverse;  // of the norm before attention [positions, 1]
  Buffer<T> qkv;            // queries, keys (turned) and values
  Buffer<T> attention;      // [positions, query_size]
  Buffer<T> log_sum;        // [positions, heads]
  Buffer<T> middle;         // the stream after attention [positions, hidden]
  Buffer<T> second_inverse;
  Buffer<T> gate_up;     // [positions, 2 intermediate]: kept are the activation's derivatives
  Buffer<T> activation;  // [positions, intermediate]
  std::array<typename AnyAdapter<T>::SavedPointer, llama_slots> adapters;
};

/// The most of what all layers keep, in numbers a token.
[[nodiscard]] inline Index kept_numbers(const LlamaConfig& c) {
  return c.num_hidden_layers * (2 * c.hidden_size + 2 * c.query_size() + 2 * c.key_value_size() +
                                3 * c.intermediate_size);
}

/// The memory of passes, reused from one to the next. A copy is an empty one.
template <Real T>
struct LlamaWorkspace {
  LlamaWorkspace() = default;
  LlamaWorkspace(const LlamaWorkspace&) {}
  LlamaWorkspace& operator=(const LlamaWorkspace&) { return *this = LlamaWorkspace(); }
  LlamaWorkspace(LlamaWorkspace&&) noexcept = default;
  LlamaWorkspace& operator=(LlamaWorkspace&&) noexcept = default;
  ~LlamaWorkspace() = default;

  std::vector<LlamaBlock<T>> blocks;  // of the layers that keep theirs
  LlamaBlock<T> block;                // of all others in turn, and activations that are not kept
  std::vector<Buffer<T>> streams;     // the inputs of layers that are kept
  std::array<Buffer<T>, 2> passing;   // and of others in turn; [positions, hidden]
  Buffer<T> last_stream;              // the last layer's output
  Buffer<T> inverse;                  // of the final norm
  Buffer<T> hidden;                   // after it

  // Of one layer at a time.
  Buffer<T> normed;
  Buffer<T> dropped;
  Buffer<T> logits;
  Buffer<T> head_input;

  typename AnyAdapter<T>::SavedPointer head_saved;

  // Gradients.
  Buffer<T> d_stream;
  Buffer<T> d_normed;
  Buffer<T> d_qkv;
  Buffer<T> d_attention;
  Buffer<T> d_activation;
  Buffer<T> d_dropped;
  Buffer<T> d_head_input;

  Index first_position = 0;  // of the batch, within a larger one: for dropout
  RotaryTable<T> rotary;
  std::vector<Index> positions;  // of every token within its sequence
  std::vector<Index> rows;       // those that have a target
  std::vector<Token> targets;    // of those
  std::vector<double> losses;
  LlamaNeeds needs;
};

}  // namespace mora::inline MORA_ABI::detail
