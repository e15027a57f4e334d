// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "mora/optim/each_parameter.hpp"

namespace mora::inline MORA_ABI {

/// Settings of AdamW; the defaults are PyTorch's, but for the weight decay, which is 0 here as
/// usual for adapters (PyTorch: 0.01).
struct AdamWSettings {
  double learning_rate = 1e-3;  ///< >= 0.
  double beta1 = 0.9;           ///< [0, 1).
  double beta2 = 0.999;         ///< [0, 1).
  double epsilon = 1e-8;        ///< >= 0.
  double weight_decay = 0.0;    ///< >= 0.

  void validate() const {
    constexpr double unbounded = std::numeric_limits<double>::infinity();
    detail::require_range("learning_rate", learning_rate, 0.0, unbounded);
    detail::require_range("beta1", beta1, 0.0, 1.0);
    detail::require_range("beta2", beta2, 0.0, 1.0);
    detail::require_range("epsilon", epsilon, 0.0, unbounded);
    detail::require_range("weight_decay", weight_decay, 0.0, unbounded);
  }
};

/// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101, Algorithm 2), as PyTorch computes it:
///   w -= lr decay w;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
///   w -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + epsilon).
/// The moments are kept by the parameters' names; each counts its own steps.
template <Real T>
class AdamW {
 public:
  explicit AdamW(const AdamWSettings& settings = {}) { set(settings); }

  [[nodiscard]] const AdamWSettings& settings() const { return settings_; }
  /// For schedules. Throws ArgumentError for a setting out of its range.
  void set(const AdamWSettings& settings) {
    settings.validate();
    settings_ = settings;
  }
  void set_learning_rate(double rate) {
    AdamWSettings changed = settings_;
    changed.learning_rate = rate;
    set(changed);
  }

  /// One step for every parameter of the module that has a gradient. Throws NumericError for a
  /// gradient that is not finite, naming the parameter; nothing has changed then.
  template <Module M>
  void step(M& module) {
    detail::step_each(states_, module, [&](State& state, Parameter<T>& p) {
      ++state.steps;
      const double correction1 = 1.0 - std::pow(settings_.beta1, double(state.steps));
      const double correction2 = 1.0 - std::pow(settings_.beta2, double(state.steps));
      const T b1 = static_cast<T>(settings_.beta1);
      const T b2 = static_cast<T>(settings_.beta2);
      const T decay = static_cast<T>(1.0 - settings_.learning_rate * settings_.weight_decay);
      const T rate = static_cast<T>(settings_.learning_rate / correction1);
      const T root = static_cast<T>(std::sqrt(correction2));
      const T epsilon = static_cast<T>(settings_.epsilon);
      const auto g = p.gradient.array();
      state.mean.array() = b1 * state.mean.array() + (T(1) - b1) * g;
      state.square.array() = b2 * state.square.array() + (T(1) - b2) * g.square();
      p.value.array() = decay * p.value.array() -
                        rate * state.mean.array() / (state.square.array().sqrt() / root + epsilon);
    });
  }

 private:
  struct State {
    State(Index rows, Index cols)
        : mean(Matrix<T>::Zero(rows, cols)), square(Matrix<T>::Zero(rows, cols)) {}
    [[nodiscard]] const Matrix<T>& first() const { return mean; }
    Matrix<T> mean;
    Matrix<T> square;
    std::int64_t steps = 0;
  };
  AdamWSettings settings_;
  detail::StateByName<State> states_;
};

}  // namespace mora::inline MORA_ABI
