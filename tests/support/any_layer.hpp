// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <mora/adapters/linear.hpp>
#include <string>
#include <utility>
#include <vector>

namespace mora_tests {

using mora::Index;
using mora::Matrix;
using mora::MatrixView;
using mora::RowVector;

/// A layer of any type behind virtual functions, so that a law is compiled once a scalar and not
/// once a layer. Its members are those of AdaptedLinear.
template <class T>
class AnyLayer {
 public:
  virtual ~AnyLayer() = default;
  [[nodiscard]] virtual std::unique_ptr<AnyLayer> copy() const = 0;
  [[nodiscard]] virtual mora::FrozenLinear<T> base() const = 0;
  [[nodiscard]] virtual bool additive() const = 0;
  /// Whether gradients count the lengths of rows as constant, for all parameters but the last.
  [[nodiscard]] virtual bool holds_norms() const = 0;
  [[nodiscard]] virtual std::vector<mora::Parameter<T>*> parameters() = 0;

  [[nodiscard]] virtual Matrix<T> forward(const MatrixView<T>& x) const = 0;
  virtual void forward(const MatrixView<T>& x, mora::MutableView<T> y) const = 0;
  /// The passes of training share one Saved.
  [[nodiscard]] virtual Matrix<T> train(const MatrixView<T>& x) = 0;
  virtual Matrix<T> backward(const MatrixView<T>& dy) = 0;
  virtual void backward(const MatrixView<T>& dy, mora::MutableView<T> dx) = 0;
  virtual void backward_parameters(const MatrixView<T>& dy) = 0;

  [[nodiscard]] virtual bool merged() const = 0;
  virtual bool merge() = 0;
  virtual bool unmerge() = 0;
  virtual void merge_into(mora::MutableView<T> weight) = 0;
  [[nodiscard]] virtual Matrix<T> update() const = 0;

  [[nodiscard]] Index in() const { return base().in_features(); }
  [[nodiscard]] Index out() const { return base().out_features(); }
};

template <class Layer>
class AnyLayerOf final : public AnyLayer<typename Layer::Scalar> {
 public:
  using T = typename Layer::Scalar;
  explicit AnyLayerOf(Layer layer) : layer_(std::move(layer)) {}

  std::unique_ptr<AnyLayer<T>> copy() const override { return std::make_unique<AnyLayerOf>(*this); }
  mora::FrozenLinear<T> base() const override { return layer_.base(); }
  bool additive() const override { return Layer::AdapterType::additive; }
  bool holds_norms() const override {
    return requires(const typename Layer::AdapterType& a) { a.magnitude(); };
  }
  std::vector<mora::Parameter<T>*> parameters() override {
    std::vector<mora::Parameter<T>*> all;
    layer_.visit_parameters([&](std::string_view, mora::Parameter<T>& p) { all.push_back(&p); });
    return all;
  }
  Matrix<T> forward(const MatrixView<T>& x) const override { return layer_.forward(x); }
  void forward(const MatrixView<T>& x, mora::MutableView<T> y) const override {
    layer_.forward(x, y);
  }
  Matrix<T> train(const MatrixView<T>& x) override { return layer_.forward(x, saved_); }
  Matrix<T> backward(const MatrixView<T>& dy) override { return layer_.backward(dy, saved_); }
  void backward(const MatrixView<T>& dy, mora::MutableView<T> dx) override {
    layer_.backward(dy, saved_, dx);
  }
  void backward_parameters(const MatrixView<T>& dy) override {
    layer_.backward_parameters(dy, saved_);
  }
  bool merged() const override { return layer_.merged(); }
  bool merge() override { return layer_.merge(); }
  bool unmerge() override { return layer_.unmerge(); }
  void merge_into(mora::MutableView<T> weight) override { layer_.merge_into(weight); }
  Matrix<T> update() const override { return layer_.update(); }

 private:
  Layer layer_;
  typename Layer::Saved saved_;
};

}  // namespace mora_tests
