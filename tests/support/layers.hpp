// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <tuple>

#include "support/any_layer.hpp"
#include "support/random.hpp"
#include "support/shapes.hpp"

namespace mora_tests {

/// Makes a fresh layer around a frozen one; null where the layer cannot have the shape.
template <class T>
using MakeLayer =
    std::function<std::unique_ptr<AnyLayer<T>>(mora::FrozenLinear<T> base, const Shape&, Random&)>;

/// A way to make layers with its name.
struct LayerKind {
  std::string name;
  std::tuple<MakeLayer<float>, MakeLayer<double>> make;
};
inline std::ostream& operator<<(std::ostream& stream, const LayerKind& kind) {
  return stream << kind.name;
}

/// The layers that the law suites run over. A new one joins them by a line in layers.cpp, a new
/// operator by one in operators.hpp.
[[nodiscard]] std::vector<LayerKind> layer_kinds();

}  // namespace mora_tests
