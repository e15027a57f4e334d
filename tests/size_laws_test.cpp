// SPDX-License-Identifier: MIT
#include "support/layer_laws.hpp"

/// \file
/// That a layer computes the same whatever the number of tokens, and on large weights.

namespace mora_tests {
namespace {

TEST_P(LayerLaws, NoTokensAreFine) {
  for_each_layer(Parameters::random, []<class T>(const Setting<T>& s) {
    const Matrix<T> y = s.layer.train(Matrix<T>(0, s.layer.in()));
    EXPECT_TRUE(equal(y, Matrix<T>(0, s.layer.out())));
    EXPECT_TRUE(equal(s.layer.backward(y), Matrix<T>(0, s.layer.in())));
    for (const auto* p : s.layer.parameters()) {
      EXPECT_TRUE(equal(p->gradient, Matrix<T>::Zero(p->value.rows(), p->value.cols())));
    }
  });
}

TEST_P(LayerLaws, TokensDoNotDependOnEachOther) {
  for_each_layer(Parameters::random, []<class T>(const Setting<T>& s) {
    const Matrix<T> x = s.input();
    const Matrix<T> g = s.output_gradient();
    const Matrix<T> y = s.layer.train(x);
    const Matrix<T> dx = s.layer.backward(g);
    for (Index i = 0; i < tokens; ++i) {
      EXPECT_TRUE(
          near(s.layer.train(x.row(i)), y.row(i), {.magnitude = double(y.cwiseAbs().maxCoeff())}));
      EXPECT_TRUE(near(s.layer.backward(g.row(i)), dx.row(i),
                       {.magnitude = double(dx.cwiseAbs().maxCoeff())}));
    }
  });
}

// More than the layers treat at once: 8192 blocks.
TEST_P(LayerLaws, ManyTokensAreTheirPieces) {
  const auto law = []<class T>(const Setting<T>& s) {
    constexpr Index many = 8192 + 100;
    constexpr Index piece = 691;
    const Matrix<T> x = s.input(many);
    const Matrix<T> g = s.output_gradient(many);
    const auto whole = s.layer.copy();
    const Matrix<T> y = whole->train(x);
    const Matrix<T> dx = whole->backward(g);
    for (Index first = 0; first < many; first += piece) {
      const Index count = std::min(piece, many - first);
      EXPECT_TRUE(near(s.layer.train(x.middleRows(first, count)), y.middleRows(first, count)));
      EXPECT_TRUE(near(s.layer.backward(g.middleRows(first, count)), dx.middleRows(first, count)));
    }
    EXPECT_TRUE(near(s.layer.forward(x), y));
    for (std::size_t i = 0; i < whole->parameters().size(); ++i) {
      EXPECT_TRUE(near(whole->parameters()[i]->gradient, s.layer.parameters()[i]->gradient));
    }
  };
  for (const Shape& shape : {Shape{7, 5, 2}, Shape{3, 2, 5}}) {
    with_layer<float>(Parameters::random, shape, Memory::map_with_gaps, true, law);
    with_layer<double>(Parameters::random, shape, Memory::map_with_gaps, true, law);
  }
}

// More numbers than are merged at once: 65,536 of them, or one row.
TEST_P(LayerLaws, LargeWeightsMergeLikeSmallOnes) {
  const auto law = []<class T>(const Setting<T>& s) {
    const Matrix<T> x = s.input();
    const Matrix<T> y = s.layer.forward(x);
    const Matrix<T> w = s.layer.base().weight();
    const Matrix<T> update = s.layer.update();
    const Matrix<T> by_update = x * update.transpose();
    const Matrix<T> of_zero = s.layer.forward(Matrix<T>::Zero(1, s.layer.in()));
    const Matrix<T> by_weight = (x * w.transpose()).rowwise() + of_zero.row(0);
    EXPECT_TRUE(near(y, by_weight + by_update));
    Matrix<T> target = w;
    s.layer.merge_into(target);
    EXPECT_TRUE(near(target, w + update));
    EXPECT_TRUE(s.layer.merge());
    EXPECT_TRUE(near(s.layer.forward(x), y));
  };
  for (const Shape& shape : {Shape{257, 300, 2}, Shape{300, 257, 2}, Shape{66000, 3, 1}}) {
    with_layer<float>(Parameters::random, shape, Memory::map_with_gaps, true, law);
    with_layer<double>(Parameters::random, shape, Memory::misaligned_map, false, law);
  }
}

#if defined(_OPENMP)
TEST_P(LayerLaws, EveryNumberOfThreadsGivesTheSameBits) {
  const int usual = omp_get_max_threads();
  const auto law = [&]<class T>(const Setting<T>& s) {
    const Matrix<T> x = s.input(300);
    const Matrix<T> g = s.output_gradient(300);
    std::vector<Matrix<T>> with_one;
    for (const int threads : {1, 2, 3, 4}) {
      omp_set_num_threads(threads);
      const auto layer = s.layer.copy();
      std::vector<Matrix<T>> found = {layer->train(x), layer->backward(g), layer->update()};
      for (const auto* p : layer->parameters()) found.push_back(p->gradient);
      EXPECT_TRUE(layer->merge());
      found.push_back(layer->forward(x));
      if (threads == 1) with_one = found;
      for (std::size_t i = 0; i < found.size(); ++i) {
        EXPECT_TRUE(same_bits(found[i], with_one[i])) << threads << " threads";
      }
    }
  };
  with_layer<float>(Parameters::random, {300, 257, 2}, Memory::map_with_gaps, true, law);
  with_layer<double>(Parameters::random, {257, 300, 2}, Memory::map_with_gaps, true, law);
  omp_set_num_threads(usual);
}
#endif

}  // namespace
}  // namespace mora_tests
