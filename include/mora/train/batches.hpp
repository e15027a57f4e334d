// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include "mora/train/dataset.hpp"
#include "mora/train/sampler.hpp"

namespace mora::inline MORA_ABI {

/// Batches of a data set without end, one epoch after another. For one pass in order, as for
/// evaluation: {.shuffle = false}, and batches_per_epoch() calls.
template <Dataset D>
class Batches {
 public:
  using Settings = SamplerSettings;

  /// Throws ArgumentError for an empty data set and for settings out of range.
  Batches(D dataset, const Settings& settings)
      : dataset_(std::move(dataset)), sampler_(dataset_.size(), settings) {}

  /// The next batch, in memory that the call after it uses again: nothing is allocated once it has
  /// grown to the largest batch. Where the data set throws, the position stays.
  [[nodiscard]] const Batch& next() {
    batch_.clear();
    for (const Index example : sampler_.current()) dataset_.add_to(example, batch_);
    sampler_.advance();
    return batch_;
  }

  /// Where the batches so far have led: seek() goes on from there, in another process too.
  [[nodiscard]] DataPosition position() const { return sampler_.position(); }
  void seek(const DataPosition& to) { sampler_.seek(to); }

  [[nodiscard]] Index batches_per_epoch() const { return sampler_.batches_per_epoch(); }
  [[nodiscard]] const D& dataset() const { return dataset_; }
  [[nodiscard]] const Settings& settings() const { return sampler_.settings(); }

 private:
  D dataset_;
  Sampler sampler_;
  Batch batch_;
};

}  // namespace mora::inline MORA_ABI
