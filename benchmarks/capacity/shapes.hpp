// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <iterator>
#include <limits>
#include <list>
#include <string>
#include <vector>

#include "capacity/suite.hpp"
#include "mora/core/matrix.hpp"

namespace capacity {

using mora::Index;

/// What a method's update can be for one layer shape and budget.
struct ShapeRow {
  Index in = 0;
  Index out = 0;
  Index lora_rank = 0;  ///< r, which sets the budget; 0 for full training, which has none.
  std::string method;
  Index parameters = 0;
  Index budget = 0;
  Index side = 0;  ///< Of M; 0 for what has none.
  Index rank = 0;
  /// Whether the rank was computed, from singular values; else it is the most that the structure
  /// allows.
  bool computed = false;
  double effective_rank = std::numeric_limits<double>::quiet_NaN();
  double seconds = 0;

  [[nodiscard]] std::string shape() const { return std::to_string(in) + "x" + std::to_string(out); }
};

/// Rank and effective rank of an update whose trainable numbers are all drawn from a standard
/// normal distribution (seed 1). Benchmarks `capacity/shape:<in>x<out>/r:<r>/<method>`.
class Shapes {
 public:
  explicit Shapes(bool full) : full_(full) {}

  void add_methods(Suite& suite);

  /// What was measured, in the order of the methods.
  [[nodiscard]] std::vector<ShapeRow> rows() const {
    std::vector<ShapeRow> done;
    std::copy_if(all_.begin(), all_.end(), std::back_inserter(done),
                 [](const ShapeRow& row) { return row.parameters != 0; });
    return done;
  }

 private:
  template <class Method>
  void add(Suite& suite, const Method& method, ShapeRow& row);
  template <class Method>
  void measure(const Method& method, ShapeRow& row) const;
  template <class Method>
  [[nodiscard]] double cost(const Method& method, const ShapeRow& row) const;
  template <class Method>
  [[nodiscard]] bool compute(const Method& method, const ShapeRow& row) const;

  bool full_;
  std::list<ShapeRow> all_;  ///< A list, as benchmarks point to its rows.
};

}  // namespace capacity
