// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string_view>

#include "mora/optim/optimizer.hpp"

namespace mora::inline MORA_ABI {

/// Settings of SGD.
struct SgdSettings {
  double learning_rate = 1e-2;  ///< >= 0.
  double momentum = 0.0;        ///< [0, 1).
  double weight_decay = 0.0;    ///< >= 0, added to the gradient.

  /// Throws ArgumentError naming the setting that is out of range.
  void validate() const {
    constexpr double unbounded = std::numeric_limits<double>::infinity();
    detail::require_range("learning_rate", learning_rate, 0.0, unbounded);
    detail::require_range("momentum", momentum, 0.0, 1.0);
    detail::require_range("weight_decay", weight_decay, 0.0, unbounded);
  }
};

/// Gradient descent with momentum, as PyTorch computes it (no dampening, no Nesterov):
///   v = momentum v + (g + decay w);  w -= lr v,
/// with the learning rate lr times the step's factor.
template <Real T>
class SgdRule {
 public:
  using Scalar = T;
  using Settings = SgdSettings;
  static constexpr std::array<std::string_view, 1> moments{"velocity"};

  SgdRule(const Settings& settings, double factor, std::int64_t)
      : momentum_(static_cast<T>(settings.momentum)),
        decay_(detail::coefficient<T>("weight_decay", settings.weight_decay)),
        rate_(detail::coefficient<T>("learning_rate * factor", settings.learning_rate * factor)) {}

  /// Whether g^2 is finite, as for AdamW: a sum of such gradients is, over any momentum. (So is a
  /// weight, and what decays of it, that is far from the largest number, unless a learning rate or
  /// decay is near it.)
  [[nodiscard]] static bool accepts(const detail::ConstNumbers<T>& g) {
    return detail::all_finite(g.square());
  }
  void update(detail::Numbers<T>& w, const detail::ConstNumbers<T>& g,
              std::array<detail::Numbers<T>, 1>& state) const {
    auto& [velocity] = state;
    velocity = momentum_ * velocity + (g + decay_ * w);
    w -= rate_ * velocity;
  }

 private:
  T momentum_, decay_, rate_;
};

/// `Sgd<float> optimizer({.learning_rate = 1e-2, .momentum = 0.9});`
template <Real T>
using Sgd = Optimizer<SgdRule<T>>;

}  // namespace mora::inline MORA_ABI
