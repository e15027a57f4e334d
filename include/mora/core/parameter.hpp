// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "mora/core/matrix.hpp"

namespace mora::inline MORA_ABI {

/// A trainable matrix and the gradient that backward passes add to. The gradient is empty (0x0)
/// until the first backward pass, so that layers which only infer do not pay for it.
template <Real T>
struct Parameter {
  Matrix<T> value;
  Matrix<T> gradient;

  Parameter() = default;
  Parameter(Matrix<T> v, Matrix<T> g) : value(std::move(v)), gradient(std::move(g)) {}
  // A copy first: Eigen's own assignment leaves memory that is freed already when it has none.
  // What has parameters does the same, so that an assignment that throws has changed nothing.
  Parameter(const Parameter&) = default;
  Parameter(Parameter&&) = default;
  Parameter& operator=(const Parameter& other) { return *this = Parameter(other); }
  Parameter& operator=(Parameter&&) = default;
  ~Parameter() = default;
};

/// Something with trainable parameters: an adapter, a layer, a network. It has
/// `visit_parameters(f)`, const and not, which calls `f(name, parameter)` for each, in an order
/// that never changes; the names are unique within the module.
template <class M>
concept Module = requires(M& m) {
  m.visit_parameters([](std::string_view, auto&) {});
};

namespace detail {

/// "prefix.name", on the stack where it is of usual length: names are made anew in every step.
class JoinedName {
 public:
  JoinedName(std::string_view prefix, std::string_view name)
      : size_(prefix.size() + 1 + name.size()) {
    if (size_ > sizeof small_) large_.resize(size_);
    char* at = size_ > sizeof small_ ? large_.data() : small_;
    at = std::copy(prefix.begin(), prefix.end(), at);
    *at++ = '.';
    std::copy(name.begin(), name.end(), at);
  }
  [[nodiscard]] std::string_view view() const {
    return {size_ > sizeof small_ ? large_.data() : small_, size_};
  }

 private:
  std::size_t size_;
  char small_[128];
  std::string large_;
};

}  // namespace detail

/// Visits a part of a larger module: names become "prefix.name". A name lives until `f` returns.
template <class M, class F>
void visit_parameters(std::string_view prefix, M& part, F&& f) {
  part.visit_parameters([&](std::string_view name, auto& parameter) {
    f(detail::JoinedName(prefix, name).view(), parameter);
  });
}

/// The number of trainable scalars.
template <class M>
[[nodiscard]] Index parameter_count(const M& module) {
  Index count = 0;
  module.visit_parameters(
      [&](std::string_view, const auto& parameter) { count += parameter.value.size(); });
  return count;
}

/// Sets every gradient to zero; call it before the backward passes of a new step.
template <class M>
void zero_gradients(M& module) {
  module.visit_parameters([](std::string_view, auto& parameter) { parameter.gradient.setZero(); });
}

namespace detail {

/// Throws ShapeError unless `found`, the `what` of the parameter `name`, has the shape of
/// `expected`.
template <class T>
void require_same_shape(const char* what, std::string_view name, const Matrix<T>& expected,
                        const Matrix<T>& found) {
  if (expected.rows() != found.rows() || expected.cols() != found.cols()) {
    throw ShapeError(concat(what, " of ", name, ": expected ", expected.rows(), "x",
                            expected.cols(), ", found ", found.rows(), "x", found.cols()));
  }
}

/// Throws ShapeError for a gradient, if there is one, of another shape than its parameter.
template <class T>
void require_gradient(std::string_view name, const Parameter<T>& parameter) {
  if (parameter.gradient.size() == 0) return;
  require_same_shape("gradient", name, parameter.value, parameter.gradient);
}

/// The gradient, zero at its first use.
template <class T>
[[nodiscard]] MutableMap<T> gradient_of(Parameter<T>& parameter) {
  if (parameter.gradient.size() == 0) {
    parameter.gradient.setZero(parameter.value.rows(), parameter.value.cols());
  }
  return map_of(parameter.gradient);
}

}  // namespace detail
}  // namespace mora::inline MORA_ABI
