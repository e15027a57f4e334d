// SPDX-License-Identifier: MIT
#include "capacity/approximate.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>

#include "experiment/decompositions_once.hpp"
#include "experiment/methods.hpp"
#include "mora/analysis/nearest_mora.hpp"
#include "mora/analysis/singular_values.hpp"

namespace capacity {

void Approximate::add_methods(Suite& suite) {
  for_each_method([&]<class M>(const M& method) {
    if constexpr (!is_full<M>) {  // which reaches every target
      for (const Target& target : targets()) {
        for (Index rank = 1; rank <= most_rank_; rank *= 2) {
          ApproximationRow& row = all_.emplace_back();
          row.target = target;
          row.size = size_;
          row.lora_rank = rank;
          row.method = method.name;
          add(suite, method, row);
        }
      }
    }
  });
}

template <class Method>
void Approximate::add(Suite& suite, const Method& method, ApproximationRow& row) {
  const std::string name = "approximate/" + row.target.name() +
                           "/r:" + std::to_string(row.lora_rank) + "/" + method.name;
  const double cost = 0.01 * seeds_ * std::pow(double(size_) / 256.0, 3);
  suite.add(
      name,
      [=, this, &row](Plan& plan) {
        plan_targets(plan, row.target);
        plan.add(Stage::second, {name, cost, [=, this, &row] { measure(method, row); }});
      },
      [&row](benchmark::UserCounters& counters) {
        counters["parameters"] = double(row.parameters);
        counters["budget"] = double(row.budget);
        counters["relative_error"] = row.error().mean;
        counters["relative_error_sd"] = row.error().deviation;
        counters["seeds"] = double(row.errors.size());
        return row.seconds;
      });
}

void Approximate::plan_targets(Plan& plan, const Target& target) {
  for (int seed = 1; seed <= seeds_; ++seed) {
    const auto number = static_cast<std::uint64_t>(seed);
    DrawnTarget& drawn = targets_[{target.name(), number}];
    plan.add(Stage::first,
             {target.name() + "/seed:" + std::to_string(seed), 0.05, [=, this, &drawn] {
                drawn.matrix = target.draw(size_, number);
                drawn.singular_values = mora::spectrum(drawn.matrix).values;
              }});
  }
}

template <class Method>
void Approximate::measure(const Method& method, ApproximationRow& row) const {
  const auto start = std::chrono::steady_clock::now();
  row.budget = mora::lora_budget(size_, size_, row.lora_rank);
  row.errors.clear();
  for (int seed = 1; seed <= seeds_; ++seed) {
    const auto number = static_cast<std::uint64_t>(seed);
    const DrawnTarget& target = targets_.at({row.target.name(), number});
    if constexpr (is_lora<Method>) {
      row.parameters = row.budget;
      const Eigen::VectorXd& values = target.singular_values;
      const Index rest = std::max<Index>(0, size_ - row.lora_rank);
      row.errors.push_back(values.tail(rest).norm() / values.norm());
    } else {
      const auto nearest =
          mora::nearest_mora<double>(target.matrix, method.settings(row.lora_rank, number));
      row.parameters = mora::parameter_count(nearest.adapter);
      row.errors.push_back(nearest.relative_error);
    }
  }
  row.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace capacity
