// SPDX-License-Identifier: MIT
#pragma once

#include <ranges>
#include <string>
#include <string_view>
#include <utility>

#include "mora/train/concepts.hpp"
#include "mora/train/settings.hpp"

namespace mora::inline MORA_ABI {

/// The loss over all targets of the batches: `evaluate(model, batches).mean()`. Throws
/// ArgumentError when there are none.
template <TrainableModel M, BatchRange<typename M::Batch> R>
[[nodiscard]] LossSum evaluate(const M& model, R&& batches) {
  LossSum loss;
  Index number = 0;
  for (const typename M::Batch& batch : batches) {
    ++number;
    if (batch.target_count() > 0) loss += model.loss(batch);
  }
  if (loss.count == 0) {
    throw ArgumentError(detail::concat("evaluation: no targets in ", number, " batches"));
  }
  return loss;
}

/// An evaluator of the training loop, by a name and a range of batches that stays the caller's.
template <class R>
class EvaluateOn {
 public:
  EvaluateOn(std::string name, R& batches) : name_(std::move(name)), batches_(&batches) {}

  [[nodiscard]] std::string_view name() const { return name_; }
  /// Throws ArgumentError where there are no targets: before the run, not after hours of it. What
  /// can be read once only is not looked at.
  void on_begin(const TrainSettings& /*settings*/) const {
    if constexpr (std::ranges::forward_range<R>) {
      Index number = 0;
      for (const auto& batch : *batches_) {
        ++number;
        if (batch.target_count() > 0) return;
      }
      throw ArgumentError(
          detail::concat("evaluation \"", name_, "\": no targets in ", number, " batches"));
    }
  }
  template <TrainableModel M>
  [[nodiscard]] LossSum evaluate(const M& model) const {
    return mora::evaluate(model, *batches_);
  }

 private:
  std::string name_;
  R* batches_;
};

}  // namespace mora::inline MORA_ABI
