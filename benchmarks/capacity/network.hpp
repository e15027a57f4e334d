// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include "capacity/memory_task.hpp"
#include "mora/adapters/frozen_linear.hpp"
#include "mora/core/parameter.hpp"

namespace capacity {

/// Two adapted layers with a ReLU between them, and a frozen head.
template <class Layer>
class Network {
 public:
  Network(Layer first, Layer second, mora::FrozenLinear<float> head)
      : first_(std::move(first)), second_(std::move(second)), head_(std::move(head)) {}

  [[nodiscard]] const Layer& first() const { return first_; }
  [[nodiscard]] const Layer& second() const { return second_; }

  template <class F>
  void visit_parameters(F&& f) {
    mora::visit_parameters("first", first_, f);
    mora::visit_parameters("second", second_, f);
  }
  template <class F>
  void visit_parameters(F&& f) const {
    mora::visit_parameters("first", first_, f);
    mora::visit_parameters("second", second_, f);
  }

  [[nodiscard]] Matrix infer(const Matrix& x) const {
    return head_.forward(second_.forward(first_.forward(x).cwiseMax(0.0f)));
  }

  /// Logits [tokens, 512]; keeps what backward needs.
  const Matrix& forward(const Matrix& x) {
    hidden_.resize(x.rows(), first_.out_features());
    output_.resize(x.rows(), second_.out_features());
    first_.forward(x, first_saved_, hidden_);
    hidden_ = hidden_.cwiseMax(0.0f);
    second_.forward(hidden_, second_saved_, output_);
    logits_.resize(x.rows(), head_.out_features());
    head_.forward(output_, logits_);
    return logits_;
  }

  /// Adds to the gradients, for the gradient by the logits.
  void backward(const Matrix& gradient) {
    head_.backward(gradient, output_);
    hidden_gradient_.resize(hidden_.rows(), hidden_.cols());
    second_.backward(output_, second_saved_, hidden_gradient_);
    hidden_gradient_ = (hidden_.array() > 0.0f).select(hidden_gradient_, 0.0f);
    first_.backward_parameters(hidden_gradient_, first_saved_);
  }

 private:
  Layer first_;
  Layer second_;
  mora::FrozenLinear<float> head_;
  typename Layer::Saved first_saved_;
  typename Layer::Saved second_saved_;
  Matrix hidden_;
  Matrix output_;  ///< Of the second layer; its gradient in the backward pass.
  Matrix logits_;
  Matrix hidden_gradient_;
};

}  // namespace capacity
