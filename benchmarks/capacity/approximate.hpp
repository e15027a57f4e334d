// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <list>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "capacity/suite.hpp"
#include "capacity/targets.hpp"

namespace capacity {

/// How close a method can come to a kind of target.
struct ApproximationRow {
  Target target;
  Index size = 0;
  Index lora_rank = 0;
  std::string method;
  Index parameters = 0;
  Index budget = 0;
  std::vector<double> errors;  ///< ||T - Delta W||_F / ||T||_F, one a seed (1, 2, ...).
  double seconds = 0;

  [[nodiscard]] Sample error() const { return sample_of(errors); }
};

/// The best approximation of given matrices, without training: the exact optimum of each method.
/// LoRA's is the truncated singular value decomposition (Eckart and Young 1936), MoRA's a
/// least-squares problem. Benchmarks `approximate/<target>/r:<r>/<method>`.
class Approximate {
 public:
  explicit Approximate(bool full)
      : size_(full ? 512 : 256), most_rank_(full ? 128 : 64), seeds_(full ? 5 : 3) {}

  void add_methods(Suite& suite);

  /// What was measured, in the order of the methods, then of the targets.
  [[nodiscard]] std::vector<ApproximationRow> rows() const {
    std::vector<ApproximationRow> done;
    std::copy_if(all_.begin(), all_.end(), std::back_inserter(done),
                 [](const ApproximationRow& row) { return !row.errors.empty(); });
    return done;
  }

 private:
  /// What all methods and ranks share.
  struct DrawnTarget {
    mora::Matrix<double> matrix;
    Eigen::VectorXd singular_values;
  };

  template <class Method>
  void add(Suite& suite, const Method& method, ApproximationRow& row);
  void plan_targets(Plan& plan, const Target& target);
  template <class Method>
  void measure(const Method& method, ApproximationRow& row) const;

  Index size_;
  Index most_rank_;
  int seeds_;
  std::map<std::pair<std::string, std::uint64_t>, DrawnTarget> targets_;  ///< By name and seed.
  std::list<ApproximationRow> all_;  ///< A list, as benchmarks point to its rows.
};

}  // namespace capacity
