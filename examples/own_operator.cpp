// SPDX-License-Identifier: MIT
//
// An operator of one's own: sharing in which every input also gets a random sign, so that inputs of
// one group do not always add up. docs/adding-an-operator.md explains it.

#include <cstdint>
#include <iostream>
#include <random>
#include <span>
#include <vector>

#include "mora/mora.hpp"

/// C: z_g = sum of sign_i x_i over the inputs i of group g = i mod side.
class SignedSum {
 public:
  SignedSum(mora::Index in, mora::Index side) : side_(side) {
    mora::SplitMix64 generator(42);
    for (mora::Index i = 0; i < in; ++i) sign_.push_back(generator() % 2 == 0 ? 1 : -1);
  }
  [[nodiscard]] mora::Index in_features() const { return static_cast<mora::Index>(sign_.size()); }
  [[nodiscard]] mora::Index side() const { return side_; }
  [[nodiscard]] mora::Index blocks() const { return 1; }

  template <class T>
  void apply(std::span<const T> x, std::span<T> z) const {  // z = C x
    for (T& entry : z) entry = T(0);
    for (std::size_t i = 0; i < x.size(); ++i) z[i % z.size()] += static_cast<T>(sign_[i]) * x[i];
  }
  template <class T>
  void add_adjoint(std::span<const T> z, std::span<T> x) const {  // x += C^T z
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += static_cast<T>(sign_[i]) * z[i % z.size()];
  }

 private:
  mora::Index side_;
  std::vector<std::int8_t> sign_;
};

/// With the library's D for strided groups it is an operator.
using SignedSharing = mora::Pair<SignedSum, mora::GroupSpread<mora::StridedGroups>>;
static_assert(mora::MoraOperator<SignedSharing, float>);

int main() {
  std::mt19937_64 generator(5);
  mora::Matrix<double> weight(20, 30);
  mora::Matrix<double> x(4, 30);
  mora::fill_normal(weight, 0.1, generator);
  mora::fill_normal(x, 1.0, generator);

  mora::MoraLinear<double, SignedSharing> layer(weight, {.rank = 2});
  mora::fill_normal(layer.adapter().matrix().value, 0.1, generator);

  const mora::Matrix<double> y = layer.forward(x);
  layer.merge();  // works as for any operator: it is written over the two functions above
  const double difference = (layer.forward(x) - y).norm() / y.norm();
  std::cout << "merged and unmerged outputs differ by " << difference << '\n';
  return difference < 1e-12 ? 0 : 1;
}
