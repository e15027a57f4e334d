// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>

#include "mora/optim/optimizer.hpp"

namespace mora::inline MORA_ABI {

/// Settings of AdamW; the defaults are PyTorch's, but for the weight decay, which is 0 here as
/// usual for adapters (PyTorch: 0.01).
struct AdamWSettings {
  double learning_rate = 1e-3;  ///< >= 0.
  double beta1 = 0.9;           ///< [0, 1).
  double beta2 = 0.999;         ///< [0, 1).
  double epsilon = 1e-8;        ///< > 0, in the layer's scalar too: a zero gradient divides by it.
  double weight_decay = 0.0;    ///< >= 0.

  /// Throws ArgumentError naming the setting that is out of range.
  void validate() const {
    constexpr double unbounded = std::numeric_limits<double>::infinity();
    detail::require_range("learning_rate", learning_rate, 0.0, unbounded);
    detail::require_range("beta1", beta1, 0.0, 1.0);
    detail::require_range("beta2", beta2, 0.0, 1.0);
    if (!(epsilon > 0.0 && epsilon < unbounded)) {
      throw ArgumentError(detail::concat("epsilon: expected 0 < epsilon < inf, found ", epsilon));
    }
    detail::require_range("weight_decay", weight_decay, 0.0, unbounded);
  }
};

/// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101, Algorithm 2), as PyTorch computes it:
///   w -= lr decay w;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
///   w -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + epsilon),
/// with the learning rate lr times the step's factor, and t the number of the parameter's steps.
template <Real T>
class AdamWRule {
 public:
  using Scalar = T;
  using Settings = AdamWSettings;
  static constexpr std::array<std::string_view, 2> moments{"mean", "square"};

  // In double as far as PyTorch does: 1 - b2 would have 4 digits in float.
  AdamWRule(const Settings& settings, double factor, std::int64_t step)
      : keep_mean_(static_cast<T>(settings.beta1)),
        add_mean_(static_cast<T>(1.0 - settings.beta1)),
        keep_square_(static_cast<T>(settings.beta2)),
        add_square_(static_cast<T>(1.0 - settings.beta2)),
        rate_(detail::coefficient<T>(
            "learning_rate * factor / (1 - beta1^step)",
            settings.learning_rate * factor / (1.0 - std::pow(settings.beta1, double(step))))),
        keep_weight_(
            detail::coefficient<T>("1 - learning_rate * factor * weight_decay",
                                   1.0 - settings.learning_rate * factor * settings.weight_decay)),
        root_(static_cast<T>(std::sqrt(1.0 - std::pow(settings.beta2, double(step))))),
        epsilon_(detail::coefficient<T>("epsilon", settings.epsilon)) {
    if (epsilon_ == T(0)) {
      throw ArgumentError(detail::concat("epsilon: expected at least ",
                                         std::numeric_limits<T>::denorm_min(), ", found ",
                                         settings.epsilon));
    }
  }

  /// Whether g^2 is finite: then both moments stay so. (So does a weight that is far from the
  /// largest number, unless a learning rate or the inverse of epsilon is near it.)
  [[nodiscard]] static bool accepts(const detail::ConstNumbers<T>& g) {
    return detail::all_finite(g.square());
  }
  void update(detail::Numbers<T>& w, const detail::ConstNumbers<T>& g,
              std::array<detail::Numbers<T>, 2>& state) const {
    auto& [mean, square] = state;
    mean = keep_mean_ * mean + add_mean_ * g;
    square = keep_square_ * square + add_square_ * g.square();
    w = keep_weight_ * w - rate_ * mean / (square.sqrt() / root_ + epsilon_);
  }

 private:
  T keep_mean_, add_mean_, keep_square_, add_square_, rate_, keep_weight_, root_, epsilon_;
};

/// `AdamW<float> optimizer({.learning_rate = 1e-3});`, with groups
/// `AdamW<float> optimizer({.learning_rate = 1e-3}, {{"B", {.learning_rate = 1e-2}}});`
template <Real T>
using AdamW = Optimizer<AdamWRule<T>>;

}  // namespace mora::inline MORA_ABI
