// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <limits>
#include <numbers>

#include "mora/core/matrix.hpp"

namespace mora::inline MORA_ABI {

/// The factor of the learning rates for a step, counted from 0: any function of a step. Those below
/// are values without state, so that a run resumes with nothing but its step number. Their
/// `validate()` throws ArgumentError naming the setting that is out of range, and so does asking
/// for a factor, for a step below 0 too.
template <class S>
concept Schedule = requires(const S& schedule, Index step) {
  { schedule(step) } -> std::convertible_to<double>;
};

namespace detail {

/// step / warm_up, from 0 at the first step on, which thereby changes nothing.
[[nodiscard]] inline double ramp(Index step, Index warm_up) {
  return static_cast<double>(step) / static_cast<double>(warm_up);
}

/// How much of the run after its warm-up is done, in [0, 1].
[[nodiscard]] inline double progress(Index step, Index warm_up, Index steps) {
  const double done = static_cast<double>(step - warm_up);
  return std::min(1.0, done / static_cast<double>(std::max<Index>(1, steps - warm_up)));
}

/// From 1 to `minimum` along half a cosine.
[[nodiscard]] inline double half_cosine(double progress, double minimum) {
  return minimum + (1.0 - minimum) * 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

inline void require_warm_up(Index warm_up, Index steps) {
  require_at_least<Index>("steps", 1, steps);
  require_between<Index>("warm_up", warm_up, 0, steps);
}

template <class S>
void require_usable(const S& schedule, Index step) {
  schedule.validate();
  require_at_least<Index>("step", 0, step);
}

}  // namespace detail

/// 1 after a linear warm-up: transformers' get_constant_schedule_with_warmup.
struct ConstantSchedule {
  Index warm_up = 0;  ///< >= 0.

  void validate() const { detail::require_at_least<Index>("warm_up", 0, warm_up); }
  [[nodiscard]] double operator()(Index step) const {
    detail::require_usable(*this, step);
    return step < warm_up ? detail::ramp(step, warm_up) : 1.0;
  }
};

/// A linear warm-up, then linearly to 0: transformers' get_linear_schedule_with_warmup.
struct LinearSchedule {
  Index steps = 1;    ///< >= 1, of the whole run; 0 from there on.
  Index warm_up = 0;  ///< 0 ... steps.

  void validate() const { detail::require_warm_up(warm_up, steps); }
  [[nodiscard]] double operator()(Index step) const {
    detail::require_usable(*this, step);
    if (step < warm_up) return detail::ramp(step, warm_up);
    const double left = static_cast<double>(std::max<Index>(0, steps - step));
    return left / static_cast<double>(std::max<Index>(1, steps - warm_up));
  }
};

/// A linear warm-up, then along half a cosine to a minimum, which holds from the end of the run on:
/// transformers' get_cosine_schedule_with_warmup and get_cosine_with_min_lr_schedule_with_warmup.
struct CosineSchedule {
  Index steps = 1;       ///< >= 1, of the whole run.
  Index warm_up = 0;     ///< 0 ... steps.
  double minimum = 0.0;  ///< 0 ... 1.

  void validate() const {
    detail::require_warm_up(warm_up, steps);
    detail::require_between("minimum", minimum, 0.0, 1.0);
  }
  [[nodiscard]] double operator()(Index step) const {
    detail::require_usable(*this, step);
    if (step < warm_up) return detail::ramp(step, warm_up);
    return detail::half_cosine(detail::progress(step, warm_up, steps), minimum);
  }
};

/// The jagged schedule of ReLoRA (Lialin et al. 2023, arXiv 2307.05695, section 3), for adapters
/// that are merged and restarted every `restart_every` steps: CosineSchedule over the whole run,
/// and after each restart a line from 0 that meets the cosine at its end.
struct JaggedSchedule {
  Index steps = 1;            ///< >= 1, of the whole run.
  Index warm_up = 0;          ///< 0 ... restart_every: the first restart comes after it.
  Index restart_every = 1;    ///< >= 1.
  Index restart_warm_up = 0;  ///< 0 ... restart_every - 1.
  double minimum = 0.1;       ///< 0 ... 1.

  void validate() const {
    detail::require_warm_up(warm_up, steps);
    detail::require_at_least<Index>("restart_every", 1, restart_every);
    detail::require_between<Index>("warm_up", warm_up, 0, restart_every);
    detail::require_range<Index>("restart_warm_up", restart_warm_up, 0, restart_every);
    detail::require_between("minimum", minimum, 0.0, 1.0);
  }
  [[nodiscard]] double operator()(Index step) const {
    detail::require_usable(*this, step);
    const CosineSchedule cosine{.steps = steps, .warm_up = warm_up, .minimum = minimum};
    const Index since = step % restart_every;
    if (step < restart_every || since >= restart_warm_up) return cosine(step);
    const Index left = restart_warm_up - since;
    const Index last = std::numeric_limits<Index>::max() - left;
    return detail::ramp(since, restart_warm_up) * cosine(std::min(step, last) + left);
  }
};

}  // namespace mora::inline MORA_ABI
