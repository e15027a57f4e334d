// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <initializer_list>
#include <mora/adapters/linear.hpp>
#include <ostream>
#include <string>
#include <string_view>

#include "support/compare.hpp"
#include "support/random.hpp"
#include "support/throws.hpp"

/// \file
/// What the tests of wrong use have in common: layers whose every number matters, the bits of a
/// layer, and whether a call is refused by the right exception with nothing changed.

namespace mora_tests {

template <class T>
[[nodiscard]] mora::Matrix<T> random_numbers(Index rows, Index cols, std::uint64_t seed = 1) {
  return Random(seed).matrix<T>(rows, cols);
}

/// A layer with a bias and random parameters.
template <class Layer>
[[nodiscard]] Layer make_layer(Index in, Index out, Index rank = 2, std::uint64_t seed = 1) {
  using T = typename Layer::Scalar;
  Random random(seed);
  typename Layer::Settings settings;
  if constexpr (requires { settings.rank; }) settings.rank = rank;
  Layer layer({random.matrix<T>(out, in), random.vector<T>(out)}, settings, random.generator());
  layer.visit_parameters(
      [&](std::string_view, auto& p) { mora::fill_normal(p.value, 0.1, random.generator()); });
  return layer;
}

/// Bytes that are compared, and not printed when they differ.
struct Bits {
  std::string bytes;
  bool operator==(const Bits&) const = default;
  friend std::ostream& operator<<(std::ostream& stream, const Bits& bits) {
    return stream << bits.bytes.size() << " bytes, hash " << std::hash<std::string>()(bits.bytes);
  }
};

template <class Derived>
[[nodiscard]] Bits bits_of(const Eigen::DenseBase<Derived>& x) {
  const mora::Matrix<typename Derived::Scalar> copy = x;
  return {std::to_string(copy.rows()) + "x" + std::to_string(copy.cols()) + ":" +
          std::string(reinterpret_cast<const char*>(copy.data()),
                      static_cast<std::size_t>(copy.size()) * sizeof(typename Derived::Scalar))};
}

/// Everything that a caller can see of a layer: weight, bias, parameters, gradients, and whether it
/// is merged, with its output.
template <class A>
[[nodiscard]] Bits bits_of(const mora::AdaptedLinear<A>& layer) {
  using T = typename A::Scalar;
  Bits bits = bits_of(layer.base().weight());
  bits.bytes += bits_of(layer.base().bias()).bytes;
  layer.visit_parameters([&](std::string_view name, const auto& p) {
    bits.bytes.append(name).append(bits_of(p.value).bytes).append(bits_of(p.gradient).bytes);
  });
  bits.bytes += layer.merged() ? "merged" : "not merged";
  bits.bytes += bits_of(layer.forward(random_numbers<T>(3, layer.in_features()))).bytes;
  return bits;
}

/// Whether `call` throws as in `throws`, and no bit of the layer has changed.
template <class E, class Layer>
[[nodiscard]] testing::AssertionResult refuses(const Layer& layer,
                                               std::initializer_list<std::string_view> parts,
                                               const Call& call) {
  const Bits before = bits_of(layer);
  testing::AssertionResult result = throws<E>(parts, call);
  if (result && bits_of(layer) != before) {
    return testing::AssertionFailure() << "throws as it should, but has changed the layer";
  }
  return result;
}

/// A layer whose forward pass, training step, merge and unmerge fit together.
template <class Layer>
void expect_works(Layer layer, Index tokens = 3) {
  using T = typename Layer::Scalar;
  using mora::Matrix;
  const auto x = random_numbers<T>(tokens, layer.in_features(), 7);
  const auto dy = random_numbers<T>(tokens, layer.out_features(), 8);
  typename Layer::Saved saved;
  const Matrix<T> y = layer.forward(x, saved);
  const Matrix<T> dx = layer.backward(dy, saved);
  ASSERT_EQ(y.rows(), tokens);
  // y without the bias is linear in x, hence <dy, y> = <dx, x>.
  const Matrix<T> bias = layer.forward(Matrix<T>::Zero(tokens, layer.in_features()));
  const double magnitude = 1.0 + double((y - bias).norm() * dy.norm());
  EXPECT_TRUE(near<T>(double((y - bias).cwiseProduct(dy).sum()), double(dx.cwiseProduct(x).sum()),
                      magnitude));
  ASSERT_TRUE(layer.merge());
  EXPECT_TRUE(near(layer.forward(x), y));
  ASSERT_TRUE(layer.unmerge());
  EXPECT_TRUE(same_bits(layer.forward(x), y));
}

}  // namespace mora_tests
