// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "capacity/memorise_report.hpp"

namespace capacity {

/// What the measurements of one budget say, in sentences made of their numbers.
class MemoryConclusion {
 public:
  MemoryConclusion(const Memorise& memorise, Index rank)
      : rank_(rank), seeds_(memorise.grid().seeds) {
    for (const MemorySummary& s : summaries(memorise, rank)) {
      const std::string& method = s.where.method;
      if (std::find(order_.begin(), order_.end(), method) == order_.end()) {
        order_.push_back(method);
        if (s.first.budget != 0) ranking_.push_back(method);
      }
      largest_tried_ = std::max(largest_tried_, s.where.pairs);
      smallest_tried_ = std::min(smallest_tried_, s.where.pairs);
      if (s.memorised()) memorised_[method] = std::max(memorised_[method], s.where.pairs);
      last_[method] = s;  // sizes come in ascending order
      const auto best = best_.find(method);
      if (best == best_.end() || s.bits_per_parameter.mean > best->second.bits_per_parameter.mean) {
        best_[method] = s;
      }
    }
    std::stable_sort(ranking_.begin(), ranking_.end(),
                     [this](const auto& a, const auto& b) { return bits(a).mean > bits(b).mean; });
  }

  void print(std::ostream& out) const {
    if (order_.empty()) return;
    print_paragraph(out, "UUID pairs at the budget of r = " + std::to_string(rank_) + ". " +
                             about_ranking() + about_sets());
  }

 private:
  [[nodiscard]] const Sample& bits(const std::string& method) const {
    return best_.at(method).bits_per_parameter;
  }
  [[nodiscard]] std::string figure(const std::string& method) const {
    const Index pairs = best_.at(method).where.pairs;
    return with_spread("%.3f", bits(method)) + " with " + std::to_string(pairs) + " pairs" +
           (pairs == largest_tried_ ? ", the largest set tried" : "");
  }

  /// Whether two means differ by less than two standard errors of their difference.
  [[nodiscard]] bool close(const Sample& a, const Sample& b) const {
    const double variance = std::pow(a.deviation, 2) + std::pow(b.deviation, 2);
    return std::abs(a.mean - b.mean) <= 2.0 * std::sqrt(variance / seeds_);
  }
  /// Whether larger sets may give more: the largest gave as much as any.
  [[nodiscard]] bool no_peak_yet(const std::string& method) const {
    const MemorySummary& last = last_.at(method);
    return last.where.pairs == largest_tried_ && close(last.bits_per_parameter, bits(method));
  }

  [[nodiscard]] std::string about_ranking() const {
    if (ranking_.empty()) return "";
    const std::string& top = ranking_.front();
    std::string as_good;
    std::string rising;
    const auto append = [](std::string& list, const std::string& method) {
      list += (list.empty() ? "" : ", ") + method;
    };
    for (const std::string& method : ranking_) {
      if (method != top && close(bits(method), bits(top))) append(as_good, method);
      if (no_peak_yet(method)) append(rising, method);
    }
    std::string text = "Most bits remembered per trainable parameter: " + top + ", " + figure(top);
    if (!as_good.empty()) text += "; within two standard errors of it: " + as_good;
    text += ". Fewest: " + ranking_.back() + ", " + figure(ranking_.back()) + ". ";
    const auto lora = std::find(ranking_.begin(), ranking_.end(), "lora");
    if (lora != ranking_.end()) {
      text += "LoRA: " + figure("lora") + ", place " + std::to_string(lora - ranking_.begin() + 1) +
              " of " + std::to_string(ranking_.size()) + ". ";
    }
    if (!rising.empty()) {
      text +=
          "Not past their peak, as the largest set that was tried gave as much as any, so that no "
          "ratio to these is known: " +
          rising + ". ";
    }
    return text;
  }

  [[nodiscard]] std::string about_sets() const {
    std::string text = "Largest set memorised (" + number("%g", 100.0 * memorised_accuracy) +
                       " % of the characters after this training), of sets from " +
                       std::to_string(smallest_tried_) + " to " + std::to_string(largest_tried_) +
                       " pairs:";
    for (const std::string& method : order_) {
      const auto found = memorised_.find(method);
      text += (method == order_.front() ? " " : ", ") + method + " " +
              (found == memorised_.end() ? "none" : std::to_string(found->second));
    }
    return text + ".";
  }

  Index rank_;
  double seeds_;
  Index largest_tried_ = 0;
  Index smallest_tried_ = std::numeric_limits<Index>::max();
  std::vector<std::string> order_;
  std::vector<std::string> ranking_;  ///< Those with a budget, best first.
  std::map<std::string, MemorySummary> best_;
  std::map<std::string, MemorySummary> last_;  ///< With the largest set that was tried.
  std::map<std::string, Index> memorised_;
};

inline void conclude(const Memorise& memorise, std::ostream& out) {
  for (const MemoryBudget& budget : memorise.grid().budgets) {
    MemoryConclusion(memorise, budget.rank).print(out);
  }
}

}  // namespace capacity
