// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include "support/compare.hpp"
#include "support/frozen_memory.hpp"
#include "support/layers.hpp"

namespace mora_tests {

/// Enough that nothing holds by chance in one token.
inline constexpr Index tokens = 5;

/// What a law gets: a layer with its bias (empty where it has none) and random numbers.
template <class T>
struct Setting {
  AnyLayer<T>& layer;
  const RowVector<T>& bias;
  Random& random;

  [[nodiscard]] Matrix<T> input(Index rows = tokens) const {
    return random.matrix<T>(rows, layer.in());
  }
  [[nodiscard]] Matrix<T> output_gradient(Index rows = tokens) const {
    return random.matrix<T>(rows, layer.out());
  }
};

/// The fixture of the suites of laws, a test for every kind of layer.
class LayerLaws : public testing::TestWithParam<LayerKind> {
 protected:
  enum class Parameters { fresh, random };

  /// Calls `law(setting)` for both scalars, every awkward shape, every memory of the frozen weight,
  /// with a bias and without, until one fails.
  template <class F>
  static void for_each_layer(Parameters parameters, const F& law) {
    for (const Shape& shape : awkward_shapes) {
      for (const Memory memory : every_memory) {
        for (const bool with_bias : {false, true}) {
          with_layer<float>(parameters, shape, memory, with_bias, law);
          with_layer<double>(parameters, shape, memory, with_bias, law);
        }
      }
    }
  }

  /// Calls `law(setting)` for one layer. The weight has zeros of both signs where it has room.
  template <class T, class F>
  static void with_layer(Parameters parameters, const Shape& shape, Memory memory, bool with_bias,
                         const F& law) {
    if (HasFailure()) return;
    SCOPED_TRACE(shape);
    SCOPED_TRACE(memory);
    SCOPED_TRACE(with_bias ? "with a bias" : "no bias");
    SCOPED_TRACE(sizeof(T) == 4 ? "float" : "double");
    Random random(static_cast<std::uint64_t>(shape.in * 1000 + shape.out));
    Matrix<T> weight = random.matrix<T>(shape.out, shape.in);
    if (weight.size() > 4) {
      weight(0, 0) = T(-0.0);
      weight(shape.out - 1, shape.in - 1) = T(0.0);
    }
    const auto bias = random.vector<T>(with_bias ? shape.out : 0);
    const FrozenMemory<T> frozen(memory, weight);
    const auto layer = std::get<MakeLayer<T>>(GetParam().make)(frozen.layer(bias), shape, random);
    if (!layer) return;
    if (parameters == Parameters::random) {
      for (auto* p : layer->parameters()) {
        p->value += random.matrix<T>(p->value.rows(), p->value.cols(), 0.5);
      }
    }
    law(Setting<T>{*layer, bias, random});
  }
};

}  // namespace mora_tests
