// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "capacity/shared.hpp"
#include "experiment/uuid.hpp"
#include "mora/core/matrix.hpp"

namespace capacity {

using Matrix = mora::Matrix<float>;

/// The frozen network: key -> embedding [width] -> [hidden], ReLU -> [width] -> head, 32 * 16
/// logits. The two layers in the middle, one of which widens and one of which narrows, as in the
/// blocks of a transformer, carry the adapters.
struct NetworkShape {
  Index width = 256;
  Index hidden = 768;
  static constexpr Index logits = Index{Uuid::digits * Uuid::values};
};

/// What is to be memorised, and the frozen network that shall do it; the seed decides everything,
/// so that all methods get the same. Smaller sets are the beginnings of larger ones.
///
/// Embedding and head are random too and have no adapters. They mix the coordinates, so that the
/// adapted layers see dense inputs and outputs, like hidden states, and no operator gains or loses
/// by the order in which digits stand. Numbers keep a variance of about 1 from layer to layer.
struct MemoryTask {
  MemoryTask(const NetworkShape& shape, Index pairs, std::uint64_t seed)
      : keys(pairs, shape.width),
        first_weight(shape.hidden, shape.width),
        second_weight(shape.width, shape.hidden),
        head(NetworkShape::logits, shape.width) {
    mora::SplitMix64 seeds(seed);
    mora::SplitMix64 weights(seeds());
    Matrix embedding(NetworkShape::logits, shape.width);
    mora::fill_normal(embedding, std::sqrt(1.0 / double(Uuid::digits)), weights);
    mora::fill_normal(first_weight, std::sqrt(2.0 / double(shape.width)), weights);
    mora::fill_normal(second_weight, std::sqrt(1.0 / double(shape.hidden)), weights);
    mora::fill_normal(head, std::sqrt(1.0 / double(shape.width)), weights);

    mora::SplitMix64 uuids(seeds());
    keys.setZero();
    for (Index p = 0; p < pairs; ++p) {
      const Uuid key = Uuid::draw(uuids);
      // A one for each digit: the embedding of a key is a sum of 32 rows.
      for (std::size_t i = 0; i < Uuid::digits; ++i) {
        keys.row(p) += embedding.row(static_cast<Index>(i * Uuid::values + key.digit[i]));
      }
      values.push_back(Uuid::draw(uuids));
    }
  }

  [[nodiscard]] Index pairs() const { return keys.rows(); }

  Matrix keys;               ///< Embedded, [pairs, width].
  std::vector<Uuid> values;  ///< What the network shall answer.
  Matrix first_weight;       ///< [hidden, width]
  Matrix second_weight;      ///< [width, hidden]
  Matrix head;               ///< [512, width]
};

}  // namespace capacity
