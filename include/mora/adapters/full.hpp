// SPDX-License-Identifier: MIT
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/adapters/concepts.hpp"
#include "mora/core/parameter.hpp"
#include "mora/core/product.hpp"

namespace mora::inline MORA_ABI {

/// Settings of full fine-tuning: none.
struct FullSettings {
  void validate() const {}
};

/// Full fine-tuning (FFT), the baseline of the papers: the weight, and the bias if there is one,
/// are copies that train. dW = dy^T x, db = sum of dy, dx = dy W; the backward pass needs x. Cost a
/// token: in out multiply-adds in place of the frozen layer's, and backward as many each for dW and
/// dx.
template <Real T>
class FullAdapter {
 public:
  using Scalar = T;
  using Settings = FullSettings;
  struct Saved {};
  static constexpr bool saves_input = true;
  static constexpr bool additive = false;

  /// Copies of the weight and of the bias. Throws StateError for a handle that was moved from.
  explicit FullAdapter(const FrozenLinear<T>& base, const Settings& = {}) {
    weight_.value = base.read_weight();
    bias_.value = base.bias();
  }
  FullAdapter(const FullAdapter&) = default;
  FullAdapter(FullAdapter&&) = default;
  FullAdapter& operator=(const FullAdapter& other) { return *this = FullAdapter(other); }
  FullAdapter& operator=(FullAdapter&&) = default;
  ~FullAdapter() = default;

  [[nodiscard]] Index in_features() const { return weight_.value.cols(); }
  [[nodiscard]] Index out_features() const { return weight_.value.rows(); }
  /// W [out, in] itself, with its gradient.
  [[nodiscard]] const Parameter<T>& weight() const { return weight_; }
  [[nodiscard]] Parameter<T>& weight() { return weight_; }
  /// [1, out], or empty.
  [[nodiscard]] const Parameter<T>& bias() const { return bias_; }
  [[nodiscard]] Parameter<T>& bias() { return bias_; }

  template <class F>
  void visit_parameters(F&& f) {
    f(std::string_view("weight"), weight_);
    if (has_bias()) f(std::string_view("bias"), bias_);
  }
  template <class F>
  void visit_parameters(F&& f) const {
    f(std::string_view("weight"), weight_);
    if (has_bias()) f(std::string_view("bias"), bias_);
  }

  [[nodiscard]] std::vector<std::string> warnings() const { return {}; }
  void require_shapes() const {
    if (!has_bias()) return;
    detail::require_size("bias, rows", Index{1}, bias_.value.rows());
    detail::require_size("bias, length (out_features)", out_features(), bias_.value.cols());
  }
  /// A bias where the frozen layer has one, and none where it has none.
  void require_base(const FrozenLinear<T>& base) const {
    detail::require_size("bias, length (as the frozen layer has)", base.bias().size(),
                         bias_.value.size());
  }

  void add_forward(const FrozenLinear<T>&, const ConstMap<T>& x, MutableMap<T> y, Saved*) const {
    if (has_bias()) y.rowwise() += bias_.value.row(0);
    detail::add_product<detail::Operand::plain, detail::Operand::transposed, T>(
        y, T(1), x, detail::map_of(weight_.value));
  }

  void add_backward(const FrozenLinear<T>&, const ConstMap<T>& x, const ConstMap<T>& dy,
                    const Saved&, MutableMap<T>* dx) {
    MutableMap<T> dw = detail::gradient_of(weight_);
    if (has_bias()) (void)detail::gradient_of(bias_);
    if (dx) {
      detail::add_product<detail::Operand::plain, detail::Operand::plain, T>(
          *dx, T(1), dy, detail::map_of(std::as_const(weight_.value)));
    }
    detail::add_product<detail::Operand::transposed, detail::Operand::plain, T>(dw, T(1), dy, x);
    if (has_bias() && dy.rows() != 0) bias_.gradient += dy.colwise().sum();
  }

  struct MergePlan {};
  [[nodiscard]] MergePlan plan_merge() const { return {}; }
  void merge_rows(const MergePlan&, Index first, MutableMap<T> rows) const {
    rows = weight_.value.middleRows(first, rows.rows());
  }
  [[nodiscard]] double update_bound() const { return std::numeric_limits<double>::infinity(); }
  /// The bias that trains, in place of the frozen layer's.
  [[nodiscard]] RowVector<T> merged_bias(const RowVector<T>&) const {
    return has_bias() ? RowVector<T>(bias_.value.row(0)) : RowVector<T>();
  }

 private:
  [[nodiscard]] bool has_bias() const { return bias_.value.size() != 0; }

  Parameter<T> weight_;
  Parameter<T> bias_;
};

template <class T>
struct AdapterTraits<T, FullSettings> {
  using Type = FullAdapter<T>;
};

}  // namespace mora::inline MORA_ABI
