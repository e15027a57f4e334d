// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "mora/core/random.hpp"

namespace mora::inline MORA_ABI {

struct SamplerSettings {
  Index batch_size = 1;    ///< >= 1. More than there are examples: all of them are one batch.
  bool shuffle = true;     ///< Else in their order, as for evaluation.
  bool drop_last = false;  ///< Leaves out the last batch of an epoch where it is smaller.
  std::uint64_t seed = 0;  ///< Of the shuffling.

  void validate() const {
    if (batch_size < 1) {
      throw ArgumentError(detail::concat("batch_size: expected at least 1, found ", batch_size));
    }
  }
};

/// Where a run stands in its data: with the settings and the number of examples, all that decides
/// what comes next.
struct DataPosition {
  std::int64_t epoch = 0;  ///< Whole passes over the data.
  Index example = 0;       ///< Examples of this pass that are done.

  bool operator==(const DataPosition&) const = default;
};

/// The order of examples: every epoch is a permutation, drawn from the seed and the number of the
/// epoch alone, so that a run goes on from a DataPosition as if it had never stopped. The same on
/// every platform.
class Sampler {
 public:
  using Settings = SamplerSettings;

  /// Throws ArgumentError for no examples, and where every batch would be left out.
  Sampler(Index examples, const Settings& settings) : settings_(settings) {
    settings_.validate();
    const Index most = static_cast<Index>(order_.max_size());
    if (examples < 1 || examples > most) {
      throw ArgumentError(detail::concat("examples: expected 1 to ", most, ", found ", examples));
    }
    if (settings_.drop_last && settings_.batch_size > examples) {
      throw ArgumentError(detail::concat("batch_size: expected at most the ", examples,
                                         " examples where the last batch is dropped, found ",
                                         settings_.batch_size));
    }
    order_.resize(static_cast<std::size_t>(examples));
    arrange(0);
  }

  /// The examples of the batch at position().
  [[nodiscard]] std::span<const Index> current() const {
    if (order_.empty()) throw StateError("sampler: it was moved from");
    return std::span(order_).subspan(static_cast<std::size_t>(position_.example),
                                     static_cast<std::size_t>(batch_size()));
  }

  /// On to the next batch; after the last one of an epoch to the first of the next.
  void advance() {
    DataPosition next = position_;
    next.example += batch_size();
    seek(next);
  }

  [[nodiscard]] DataPosition position() const { return position_; }

  /// To where position() was. The position behind the last batch is the start of the next epoch.
  /// Throws ArgumentError for what is no position.
  void seek(DataPosition to) {
    constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max() - 1;
    if (to.epoch < 0 || to.epoch > most) {
      throw ArgumentError(detail::concat("epoch: expected 0 to ", most, ", found ", to.epoch));
    }
    if (to.example < 0 || to.example > examples()) {
      throw ArgumentError(
          detail::concat("example: expected 0 to ", examples(), ", found ", to.example));
    }
    if (to.example % settings_.batch_size != 0 && to.example != examples()) {
      throw ArgumentError(detail::concat("example: expected a multiple of batch_size = ",
                                         settings_.batch_size, ", found ", to.example));
    }
    const Index left = examples() - to.example;
    if (left == 0 || (settings_.drop_last && left < settings_.batch_size)) to = {to.epoch + 1, 0};
    if (to.epoch != position_.epoch) arrange(to.epoch);
    position_ = to;
  }

  [[nodiscard]] Index examples() const { return std::ssize(order_); }
  [[nodiscard]] Index batches_per_epoch() const {
    const Index whole = examples() / settings_.batch_size;
    const bool rest = examples() % settings_.batch_size != 0;
    return whole + (rest && !settings_.drop_last ? 1 : 0);
  }
  [[nodiscard]] const Settings& settings() const { return settings_; }

 private:
  [[nodiscard]] Index batch_size() const {
    return std::min(settings_.batch_size, examples() - position_.example);
  }

  /// Both numbers go through the generator's mixing: neighbouring seeds or epochs have nothing in
  /// common.
  void arrange(std::int64_t epoch) {
    std::iota(order_.begin(), order_.end(), Index{0});
    if (!settings_.shuffle) return;
    const std::uint64_t of_run = SplitMix64(settings_.seed)();
    SplitMix64 generator(SplitMix64(of_run ^ static_cast<std::uint64_t>(epoch))());
    mora::shuffle(order_, generator);
  }

  Settings settings_;
  DataPosition position_;
  std::vector<Index> order_;
};

}  // namespace mora::inline MORA_ABI
