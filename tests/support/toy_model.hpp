// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <mora/adapters/linear.hpp>
#include <mora/core/loss_sum.hpp>
#include <mora/operators/sharing.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "support/random.hpp"

namespace mora_tests {

/// Rows of inputs and of what they should give, a target each.
template <class T>
struct ToyBatch {
  mora::Matrix<T> x;
  mora::Matrix<T> y;
  [[nodiscard]] Index target_count() const { return y.rows(); }
};

/// The smallest model with more than one kind of adapter: y = W2 (W1 x), MoRA around W1 and LoRA
/// around W2, and half the squared error. Its parameters are first.M, second.A and second.B.
template <class T>
class ToyModel {
 public:
  using Batch = ToyBatch<T>;
  static constexpr Index inputs = 6;
  static constexpr Index hidden = 5;
  static constexpr Index outputs = 4;

  explicit ToyModel(Random& random)
      : first_(mora::FrozenLinear<T>(random.matrix<T>(hidden, inputs)), {.rank = 2}),
        second_(mora::FrozenLinear<T>(random.matrix<T>(outputs, hidden)), {.rank = 2},
                random.generator()) {}

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

  mora::LossSum accumulate_gradients(const Batch& batch, double weight) {
    mora::detail::resize(h_, batch.x.rows(), hidden);
    mora::detail::resize(dh_, batch.x.rows(), hidden);
    mora::detail::resize(error_, batch.x.rows(), outputs);
    first_.forward(batch.x, first_saved_, h_);
    second_.forward(h_, second_saved_, error_);
    error_ -= batch.y;
    const mora::LossSum loss{half_square(error_), batch.target_count()};
    error_ *= static_cast<T>(weight);
    second_.backward(error_, second_saved_, dh_);
    first_.backward_parameters(dh_, first_saved_);
    return loss;
  }
  [[nodiscard]] mora::LossSum loss(const Batch& batch) const {
    const mora::Matrix<T> error = second_.forward(first_.forward(batch.x)) - batch.y;
    return {half_square(error), batch.target_count()};
  }

 private:
  [[nodiscard]] static double half_square(const mora::Matrix<T>& error) {
    return 0.5 * static_cast<double>(error.squaredNorm());
  }

  mora::MoraLinear<T, mora::Sharing> first_;
  mora::LoraLinear<T> second_;
  typename decltype(first_)::Saved first_saved_;
  typename decltype(second_)::Saved second_saved_;
  mora::Matrix<T> h_, dh_, error_;
};

template <class T>
[[nodiscard]] ToyBatch<T> toy_batch(Random& random, Index rows) {
  return {random.matrix<T>(rows, ToyModel<T>::inputs),
          random.matrix<T>(rows, ToyModel<T>::outputs)};
}
/// One batch for each number of rows.
template <class T>
[[nodiscard]] std::vector<ToyBatch<T>> toy_batches(Random& random, const std::vector<Index>& rows) {
  std::vector<ToyBatch<T>> batches;
  for (const Index each : rows) batches.push_back(toy_batch<T>(random, each));
  return batches;
}

/// The batches in turn, again and again, in one buffer that every call overwrites.
template <class T>
class ToySource {
 public:
  explicit ToySource(std::vector<ToyBatch<T>> batches, std::size_t position = 0)
      : batches_(std::move(batches)), position_(position) {}
  [[nodiscard]] const ToyBatch<T>& next() {
    buffer_ = batches_[position_++ % batches_.size()];
    return buffer_;
  }
  [[nodiscard]] std::size_t position() const { return position_; }

 private:
  std::vector<ToyBatch<T>> batches_;
  std::size_t position_;
  ToyBatch<T> buffer_;
};

}  // namespace mora_tests
