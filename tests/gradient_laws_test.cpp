// SPDX-License-Identifier: MIT
#include "support/differences.hpp"
#include "support/layer_laws.hpp"

/// \file
/// What every layer's backward pass keeps. The loss is <Y, G> with a random G, so that dY = G.

namespace mora_tests {
namespace {

template <class T>
std::vector<Matrix<T>> gradients_of(AnyLayer<T>& layer) {
  std::vector<Matrix<T>> all;
  for (const auto* p : layer.parameters()) all.push_back(p->gradient);
  return all;
}
template <class T>
void zero_gradients_of(AnyLayer<T>& layer) {
  for (auto* p : layer.parameters()) p->gradient.setZero();
}

TEST_P(LayerLaws, GradientsAreFiniteDifferences) {
  const auto law = [](const Setting<double>& s) {
    Matrix<double> x = s.input();
    const Matrix<double> g = s.output_gradient();
    (void)s.layer.train(x);
    const Matrix<double> dx = s.layer.backward(g);
    const auto loss = [&] { return s.layer.forward(x).cwiseProduct(g).sum(); };
    EXPECT_TRUE(near(dx, differences(x, loss), {.relative = difference_tolerance}));
    for (auto* p : s.layer.parameters()) {
      // See dora_test for the others.
      if (s.layer.holds_norms() && p != s.layer.parameters().back()) continue;
      EXPECT_TRUE(
          near(p->gradient, differences(p->value, loss), {.relative = difference_tolerance}));
    }
  };
  for (const Shape& shape : awkward_shapes) {
    with_layer<double>(Parameters::random, shape, Memory::owned, true, law);
    with_layer<double>(Parameters::random, shape, Memory::map_with_gaps, false, law);
  }
}

TEST_P(LayerLaws, FloatAgreesWithDouble) {
  for (const Shape& shape : awkward_shapes) {
    const auto in_float = [&](const Setting<float>& single) {
      const auto law = [&](const Setting<double>& exact) {
        const Matrix<float> x = single.input();
        const Matrix<float> g = single.output_gradient();
        for (std::size_t i = 0; i < exact.layer.parameters().size(); ++i) {
          exact.layer.parameters()[i]->value =
              single.layer.parameters()[i]->value.template cast<double>();
        }
        EXPECT_TRUE(near(single.layer.train(x), exact.layer.train(x.cast<double>())));
        EXPECT_TRUE(near(single.layer.backward(g), exact.layer.backward(g.cast<double>())));
        for (std::size_t i = 0; i < exact.layer.parameters().size(); ++i) {
          EXPECT_TRUE(
              near(single.layer.parameters()[i]->gradient, exact.layer.parameters()[i]->gradient));
        }
      };
      with_layer<double>(Parameters::random, shape, Memory::owned, true, law);
    };
    with_layer<float>(Parameters::random, shape, Memory::owned, true, in_float);
  }
}

TEST_P(LayerLaws, InputGradientIsThatOfTheWeightPlusTheUpdate) {
  for_each_layer(Parameters::random, []<class T>(const Setting<T>& s) {
    const Matrix<T> g = s.output_gradient();
    (void)s.layer.train(s.input());
    EXPECT_TRUE(near(s.layer.backward(g), g * (s.layer.base().weight() + s.layer.update())));
  });
}

TEST_P(LayerLaws, GradientsAddUpOverBackwardPasses) {
  for_each_layer(Parameters::random, []<class T>(const Setting<T>& s) {
    std::vector<Matrix<T>> sums;
    for (const Index rows : {tokens, Index{1}, Index{2}}) {
      const auto alone = s.layer.copy();
      zero_gradients_of(*alone);
      const Matrix<T> x = s.input(rows);
      const Matrix<T> g = s.output_gradient(rows);
      for (auto* layer : {&s.layer, alone.get()}) {
        (void)layer->train(x);
        (void)layer->backward(g);
      }
      const auto parts = gradients_of(*alone);
      sums.resize(parts.size());
      for (std::size_t i = 0; i < parts.size(); ++i) {
        sums[i] = sums[i].size() == 0 ? parts[i] : Matrix<T>(sums[i] + parts[i]);
        const auto& p = *s.layer.parameters()[i];
        EXPECT_TRUE(near(p.gradient, sums[i]));
        EXPECT_EQ(p.gradient.rows(), p.value.rows());
        EXPECT_EQ(p.gradient.cols(), p.value.cols());
      }
    }
  });
}

TEST_P(LayerLaws, BackwardOfTheParametersAloneGivesTheSameGradients) {
  for_each_layer(Parameters::random, []<class T>(const Setting<T>& s) {
    const Matrix<T> x = s.input();
    const Matrix<T> g = s.output_gradient();
    (void)s.layer.train(x);
    const Matrix<T> dx = s.layer.backward(g);
    EXPECT_EQ(dx.rows(), tokens);
    EXPECT_EQ(dx.cols(), s.layer.in());
    const auto expected = gradients_of(s.layer);
    zero_gradients_of(s.layer);
    (void)s.layer.train(x);
    s.layer.backward_parameters(g);
    const auto found = gradients_of(s.layer);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_TRUE(same_bits(found[i], expected[i]));
    }
    Matrix<T> wide = Matrix<T>::Zero(tokens + 2, s.layer.in() + 3);
    (void)s.layer.train(x);
    s.layer.backward(g, wide.block(1, 2, tokens, s.layer.in()));
    EXPECT_TRUE(same_bits(wide.block(1, 2, tokens, s.layer.in()), dx));
  });
}

}  // namespace
}  // namespace mora_tests
