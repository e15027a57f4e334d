// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include "mora/core/elementwise.hpp"
#include "mora/core/loss_sum.hpp"
#include "mora/core/parallel.hpp"
#include "mora/models/batch.hpp"
#include "mora/models/layers/swiglu.hpp"

namespace mora::inline MORA_ABI::detail {

/// losses[i] = log sum exp(logits[i]) - logits[i, target i], and the logits become the gradient
/// `weight` (softmax - one at the target) when `weight` is not null.
template <class T>
void cross_entropy(MutableMap<T> logits, const Token* targets, const T* weight, double* losses) {
  const Index size = logits.cols();
  for_each_row(logits.rows(), size, [&](Index i) {
    T* const data = logits.data() + i * logits.outerStride();
    RowArray<T> row(data, size);
    const T target = data[targets[i]];
    const T largest = row.template maxCoeff<Eigen::PropagateNaN>();
    row = (row - largest).exp();
    const T sum = sum_of<T>(size, [=](Index j) { return data[j]; });
    losses[i] = std::log(static_cast<double>(sum)) +
                (static_cast<double>(largest) - static_cast<double>(target));
    if (!weight) return;
    row *= *weight / sum;
    data[targets[i]] -= *weight;
  });
}

}  // namespace mora::inline MORA_ABI::detail
