// SPDX-License-Identifier: MIT
#pragma once

#include <mora/mora.hpp>

// What train() takes besides callbacks.
struct Batch {
  mora::Index target_count() const { return 1; }
};
struct Model {
  using Batch = ::Batch;
  template <class F>
  void visit_parameters(F&&) {}
  mora::LossSum accumulate_gradients(const Batch&, double) { return {}; }
  mora::LossSum loss(const Batch&) const { return {}; }
};
struct Source {
  Batch batch;
  const Batch& next() { return batch; }
};
