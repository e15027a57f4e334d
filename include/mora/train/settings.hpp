// SPDX-License-Identifier: MIT
#pragma once

#include <limits>

#include "mora/core/matrix.hpp"

namespace mora::inline MORA_ABI {

/// All that the training loop itself remembers. Whoever stores it, with the model, the optimizer's
/// state and the source of batches, can go on as if nothing had happened.
struct TrainState {
  Index step = 0;     ///< Steps done, skipped ones included.
  Index skipped = 0;  ///< Steps whose loss or gradient was not finite.
  Index targets = 0;  ///< That were trained on, those of skipped steps left out.

  bool operator==(const TrainState&) const = default;
};

/// Settings of the training loop.
struct TrainSettings {
  Index steps = 0;       ///< >= 0, of the whole run: where it begins does not change where it ends.
  Index accumulate = 1;  ///< >= 1, batches that make one step together.
  double clip_norm = 0.0;    ///< >= 0, of the gradients together; 0 does not clip.
  Index skips_allowed = 0;   ///< >= 0, steps that may be skipped; the next one stops the run.
  Index evaluate_every = 0;  ///< >= 0, steps; 0 evaluates after the last step alone.
  TrainState start{};        ///< Where the run begins: what a checkpoint has stored.

  /// Throws ArgumentError naming the setting that is out of range.
  void validate() const {
    detail::require_at_least<Index>("steps", 0, steps);
    detail::require_at_least<Index>("accumulate", 1, accumulate);
    detail::require_range("clip_norm", clip_norm, 0.0, std::numeric_limits<double>::infinity());
    detail::require_at_least<Index>("skips_allowed", 0, skips_allowed);
    detail::require_at_least<Index>("evaluate_every", 0, evaluate_every);
    detail::require_between<Index>("start.step", start.step, 0, steps);
    detail::require_between<Index>("start.skipped", start.skipped, 0, start.step);
    detail::require_at_least<Index>("start.targets", 0, start.targets);
  }
};

}  // namespace mora::inline MORA_ABI
