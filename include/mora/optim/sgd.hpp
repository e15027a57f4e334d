// SPDX-License-Identifier: MIT
#pragma once

#include <limits>

#include "mora/optim/each_parameter.hpp"

namespace mora::inline MORA_ABI {

/// Settings of SGD.
struct SgdSettings {
  double learning_rate = 1e-2;  ///< >= 0.
  double momentum = 0.0;        ///< [0, 1).
  double weight_decay = 0.0;    ///< >= 0, added to the gradient.

  void validate() const {
    constexpr double unbounded = std::numeric_limits<double>::infinity();
    detail::require_range("learning_rate", learning_rate, 0.0, unbounded);
    detail::require_range("momentum", momentum, 0.0, 1.0);
    detail::require_range("weight_decay", weight_decay, 0.0, unbounded);
  }
};

/// Gradient descent with momentum, as PyTorch computes it (no dampening, no Nesterov):
///   g += decay w;  v = momentum v + g;  w -= lr v.
template <Real T>
class Sgd {
 public:
  explicit Sgd(const SgdSettings& settings = {}) { set(settings); }

  [[nodiscard]] const SgdSettings& settings() const { return settings_; }
  /// For schedules. Throws ArgumentError for a setting out of its range.
  void set(const SgdSettings& settings) {
    settings.validate();
    settings_ = settings;
  }
  void set_learning_rate(double rate) {
    SgdSettings changed = settings_;
    changed.learning_rate = rate;
    set(changed);
  }

  /// One step for every parameter of the module that has a gradient. Throws NumericError for a
  /// gradient that is not finite, naming the parameter; nothing has changed then.
  template <Module M>
  void step(M& module) {
    detail::step_each(states_, module, [&](State& state, Parameter<T>& p) {
      const T rate = static_cast<T>(settings_.learning_rate);
      const T decay = static_cast<T>(settings_.weight_decay);
      state.velocity =
          static_cast<T>(settings_.momentum) * state.velocity + p.gradient + decay * p.value;
      p.value -= rate * state.velocity;
    });
  }

 private:
  struct State {
    State(Index rows, Index cols) : velocity(Matrix<T>::Zero(rows, cols)) {}
    [[nodiscard]] const Matrix<T>& first() const { return velocity; }
    Matrix<T> velocity;
  };
  SgdSettings settings_;
  detail::StateByName<State> states_;
};

}  // namespace mora::inline MORA_ABI
