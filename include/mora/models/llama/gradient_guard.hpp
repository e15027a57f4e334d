// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "mora/core/parameter.hpp"

namespace mora::inline MORA_ABI::detail {

/// Copies of gradients, in memory that is kept.
template <Real T>
struct GradientCopies {
  struct Copy {
    Parameter<T>* parameter = nullptr;
    Matrix<T> numbers;
    bool zero = true;  // all of them are: no copy was needed
  };
  std::vector<Copy> all;
};

/// Puts gradients back as they were unless `release` was called: layers add to theirs one after
/// another, and any of them may run out of memory. Gradients that are zero, as at the start of a
/// step, cost a look at them; others, when several batches add up, a copy.
template <Real T>
class GradientGuard {
 public:
  /// `visit(f)` calls f(name, parameter). It makes the gradients that are empty.
  template <class Visit>
  GradientGuard(const Visit& visit, GradientCopies<T>& copies) : copies_(copies.all) {
    std::size_t i = 0;
    visit([&](std::string_view, Parameter<T>& parameter) {
      const MutableMap<T> gradient = gradient_of(parameter);
      if (i == copies_.size()) copies_.emplace_back();
      auto& copy = copies_[i++];
      copy.parameter = &parameter;
      copy.zero = (gradient.array() == T(0)).all();
      if (copy.zero) return;
      resize(copy.numbers, gradient.rows(), gradient.cols());
      copy.numbers = gradient;
    });
    count_ = i;
  }
  GradientGuard(const GradientGuard&) = delete;
  GradientGuard& operator=(const GradientGuard&) = delete;
  ~GradientGuard() {
    if (released_) return;
    for (std::size_t i = 0; i < count_; ++i) {
      Matrix<T>& gradient = copies_[i].parameter->gradient;
      if (copies_[i].zero) {
        gradient.setZero();
      } else {
        gradient = copies_[i].numbers;
      }
    }
  }
  void release() { released_ = true; }

 private:
  std::vector<typename GradientCopies<T>::Copy>& copies_;
  std::size_t count_ = 0;
  bool released_ = false;
};

}  // namespace mora::inline MORA_ABI::detail
