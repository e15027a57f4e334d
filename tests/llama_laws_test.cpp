// SPDX-License-Identifier: MIT
#include <cmath>
#include <mora/mora.hpp>

#include "support/llama.hpp"
#include "support/not_finite.hpp"
#include "support/throws.hpp"

/// \file
/// What forward passes of a decoder have in common: in one batch or one by one, with a cache or
/// without, and as attention is written down in the paper.

namespace mora_tests {
namespace {

using mora::Matrix;
using mora::RowVector;

template <class T>
class LlamaLaws : public testing::Test {};
using ScalarTypes = testing::Types<float, double>;
TYPED_TEST_SUITE(LlamaLaws, ScalarTypes);

template <class T>
Llama<T> adapted_model(bool tied = false) {
  Llama<T> model = random_model<T>(small_config(tied));
  attach(model, "a", Kind::rotation, {.all_linear = true});
  attach(model, "a", Kind::full, {.modules = {"model.norm", "embed_tokens"}});
  disturb(model);
  return model;
}

TYPED_TEST(LlamaLaws, SequencesOfABatchAreThoseOneByOne) {
  using T = TypeParam;
  for (const bool tied : {false, true}) {
    const Llama<T> model = adapted_model<T>(tied);
    const Batch batch = random_batch();
    const Matrix<T> logits = model.logits(batch);
    ASSERT_EQ(logits.rows(), batch.positions());
    ASSERT_EQ(logits.cols(), model.config().vocab_size);
    mora::LossSum sum;
    for (Index s = 0; s < batch.sequences(); ++s) {
      const Batch one = sequence_of(batch, s);
      EXPECT_TRUE(
          near(logits.middleRows(batch.starts[static_cast<std::size_t>(s)], one.positions()),
               model.logits(one)));
      sum += model.loss(one);
    }
    EXPECT_EQ(model.loss(batch).count, sum.count);
    EXPECT_TRUE(near<T>(model.loss(batch).sum, sum.sum, sum.sum));
  }
}

TYPED_TEST(LlamaLaws, TheLossIsThatOfTheLogits) {
  using T = TypeParam;
  const Llama<T> model = adapted_model<T>();
  const Batch batch = random_batch();
  const Matrix<double> logits = model.logits(batch).template cast<double>();
  double sum = 0.0;
  for (Index i = 0; i < batch.positions(); ++i) {
    const Token target = batch.targets[static_cast<std::size_t>(i)];
    if (target == mora::ignored) continue;
    sum += std::log(logits.row(i).array().exp().sum()) - logits(i, target);
  }
  EXPECT_TRUE(near<T>(model.loss(batch).sum, sum, sum));
}

// The last token of a text is not seen by those before it.
TYPED_TEST(LlamaLaws, NoPositionSeesTheNext) {
  using T = TypeParam;
  const Llama<T> model = adapted_model<T>();
  Batch batch = random_batch({9});
  const Matrix<T> before = model.logits(batch);
  batch.tokens[5] = (batch.tokens[5] + 1) % 13;
  const Matrix<T> after = model.logits(batch);
  EXPECT_TRUE(same_bits(after.topRows(5), before.topRows(5)));
  for (Index i = 5; i < 9; ++i) EXPECT_FALSE(near(after.row(i), before.row(i))) << i;
}

TYPED_TEST(LlamaLaws, ACacheGivesWhatTheWholeSequenceGives) {
  using T = TypeParam;
  for (const bool merged : {false, true}) {
    Llama<T> model = adapted_model<T>();
    if (merged) model.merge();
    const Batch batch = random_batch({20});
    const Matrix<T> logits = model.logits(batch);
    const std::span<const Token> tokens(batch.tokens);
    for (const std::vector<std::size_t>& pieces :
         {std::vector<std::size_t>{20}, std::vector<std::size_t>(20, 1),
          std::vector<std::size_t>{3, 1, 1, 7, 2, 6}}) {
      mora::LlamaCache<T> cache = model.cache();
      RowVector<T> next;
      std::size_t at = 0;
      for (const std::size_t size : pieces) {
        model.next_logits(tokens.subspan(at, size), cache, next);
        at += size;
        EXPECT_EQ(cache.length(), Index(at));
        EXPECT_TRUE(near(next, logits.row(Index(at) - 1), {.magnitude = logits.norm()}));
      }
      // Other tokens from the fifth on, and back.
      const mora::LlamaCache<T> copy = cache;
      cache.truncate(4);
      EXPECT_EQ(cache.length(), 4);
      model.next_logits(Tokens{1, 2, 3}, cache, next);
      cache.truncate(4);
      model.next_logits(tokens.subspan(4, 9), cache, next);
      EXPECT_TRUE(near(next, logits.row(12), {.magnitude = logits.norm()}));
      EXPECT_EQ(copy.length(), 20);
    }
  }
}

// 300 tokens are three tiles of attention.
TYPED_TEST(LlamaLaws, ACacheGivesTheSameOverSeveralTiles) {
  using T = TypeParam;
  LlamaConfig config = small_config();
  config.max_position_embeddings = 300;
  const Llama<T> model = random_model<T>(config);
  const Batch batch = random_batch({300});
  const Matrix<T> logits = model.logits(batch);
  const std::span<const Token> tokens(batch.tokens);
  mora::LlamaCache<T> cache = model.cache();
  RowVector<T> next;
  for (const std::size_t end : {150, 151, 290, 300}) {
    const auto past = static_cast<std::size_t>(cache.length());
    model.next_logits(tokens.subspan(past, end - past), cache, next);
    EXPECT_TRUE(near(next, logits.row(Index(end) - 1), {.magnitude = logits.norm()}));
  }
}

TYPED_TEST(LlamaLaws, GreedyGenerationTakesTheLikeliestToken) {
  using T = TypeParam;
  const Llama<T> model = adapted_model<T>();
  const Tokens prompt = {4, 0, 7};
  mora::SplitMix64 generator(1);
  const Tokens text = mora::generate<T>(model, prompt, {.max_new_tokens = 20}, generator);
  ASSERT_EQ(text.size(), 20u);
  Tokens all = prompt;
  for (const Token token : text) {
    Batch batch;
    batch.add_next_tokens(all);
    Index likeliest = 0;
    model.logits(batch).bottomRows(1).row(0).maxCoeff(&likeliest);
    EXPECT_EQ(token, likeliest);
    all.push_back(token);
  }
  EXPECT_EQ(generator(), mora::SplitMix64(1)());  // Nothing was drawn.
}

TYPED_TEST(LlamaLaws, GenerationStops) {
  using T = TypeParam;
  const Llama<T> model = adapted_model<T>();
  mora::SplitMix64 generator(1);
  const auto generated = [&](const Tokens& prompt, const mora::GenerationSettings& settings) {
    return mora::generate<T>(model, prompt, settings, generator);
  };
  const Tokens prompt = {4, 0, 7};
  const Tokens text = generated(prompt, {.max_new_tokens = 10});
  const Tokens stopped = generated(prompt, {.max_new_tokens = 10, .stop = {text[4]}});
  ASSERT_LE(stopped.size(), 5u);
  EXPECT_EQ(stopped.back(), text[4]);
  EXPECT_EQ(stopped, Tokens(text.begin(), text.begin() + std::ssize(stopped)));
  EXPECT_TRUE(generated(prompt, {.max_new_tokens = 0}).empty());
  EXPECT_EQ(generated(prompt, {.max_new_tokens = 1000}).size(), 64u - prompt.size());
  EXPECT_TRUE(generated(Tokens(64, 1), {.max_new_tokens = 5}).empty());
  EXPECT_TRUE(throws<mora::ArgumentError>({"stop token", "found -1"}, [&] {
    (void)generated(prompt, {.stop = {text[4], -1}});
  }));
}

TEST(LlamaScalars, FloatIsNearDouble) {
  for (const bool tied : {false, true}) {
    const Batch batch = random_batch();
    Llama<double> wide = random_model<double>(small_config(tied));
    Llama<float> narrow = random_model<float>(small_config(tied));
    attach(wide, "a", Kind::full, all_tensors(wide.config()));
    attach(narrow, "a", Kind::full, all_tensors(narrow.config()));
    EXPECT_TRUE(near(narrow.logits(batch), wide.logits(batch)));
    EXPECT_TRUE(near<float>(narrow.loss(batch).sum, wide.loss(batch).sum, wide.loss(batch).sum));
    const auto expected = gradients_of(wide, batch);
    for (const auto& [name, gradient] : gradients_of(narrow, batch)) {
      EXPECT_TRUE(near(gradient, expected.at(name))) << name;
    }
  }
}

/// Attention of one head as it is written down: softmax over the keys up to the query's own.
struct NaiveAttention {
  Matrix<double> probabilities;
  Matrix<double> out;
  NaiveAttention(const Matrix<double>& q, const Matrix<double>& k, const Matrix<double>& v,
                 double scale) {
    const Index past = k.rows() - q.rows();
    probabilities = scale * q * k.transpose();
    for (Index i = 0; i < q.rows(); ++i) {
      for (Index j = past + i + 1; j < k.rows(); ++j) {
        probabilities(i, j) = -infinity<double>;
      }
      probabilities.row(i) = (probabilities.row(i).array() - probabilities.row(i).maxCoeff()).exp();
      probabilities.row(i) /= probabilities.row(i).sum();
    }
    out = probabilities * v;
  }
};

/// A head of several: columns of a matrix that is NaN beside them.
template <class T>
class Head {
 public:
  explicit Head(const Matrix<T>& numbers)
      : all_(Matrix<T>::Constant(numbers.rows(), numbers.cols() + 7, nan<T>)),
        cols_(numbers.cols()) {
    all_.middleCols(3, cols_) = numbers;
  }
  [[nodiscard]] mora::MutableMap<T> map() {
    return mora::detail::columns_of(mora::detail::map_of(all_), 3, cols_);
  }
  [[nodiscard]] mora::ConstMap<T> map() const {
    return mora::detail::columns_of(mora::detail::map_of(all_), 3, cols_);
  }
  [[nodiscard]] bool is_alone() const {
    return all_.leftCols(3).array().isNaN().all() && all_.rightCols(4).array().isNaN().all();
  }

 private:
  Matrix<T> all_;
  Index cols_;
};

template <class T>
void expect_attention(Index width, Index past, Index length) {
  SCOPED_TRACE(testing::Message() << width << " numbers, " << length << " after " << past);
  Random random(1);
  const double scale = 1.4 / std::sqrt(double(width));
  // Scores far apart, so that the running maximum moves.
  const Matrix<T> q = random.matrix<T>(length, width, 4.0);
  const Matrix<T> k = random.matrix<T>(past + length, width, 4.0);
  const Matrix<T> v = random.matrix<T>(past + length, width);
  const NaiveAttention naive(q.template cast<double>(), k.template cast<double>(),
                             v.template cast<double>(), scale);
  const Head<T> q_head(q);
  const Head<T> k_head(k);
  const Head<T> v_head(v);
  Head<T> out(Matrix<T>::Constant(length, width, nan<T>));
  std::vector<T> log_sum(static_cast<std::size_t>(3 * length));
  mora::detail::attention_forward<T>(q_head.map(), k_head.map(), v_head.map(), T(scale), out.map(),
                                     log_sum.data(), 3);
  const Within within{.relative = attention_tolerance<T>};
  EXPECT_TRUE(near(out.map(), naive.out, within));
  EXPECT_TRUE(out.is_alone());
  if (past > 0) return;
  const Matrix<T> dout = random.matrix<T>(length, width);
  const Matrix<double> p = naive.probabilities;
  const Matrix<double> d = dout.template cast<double>();
  Matrix<double> ds = d * v.template cast<double>().transpose();
  for (Index i = 0; i < length; ++i) ds.row(i).array() -= d.row(i).dot(naive.out.row(i));
  ds = p.cwiseProduct(ds);
  // They are added to.
  const Matrix<T> ones = Matrix<T>::Ones(length, width);
  Head<T> dq(ones);
  Head<T> dk(ones);
  Head<T> dv(ones);
  const Head<T> dout_head(dout);
  mora::detail::attention_add_backward<T>(q_head.map(), k_head.map(), v_head.map(), T(scale),
                                          mora::detail::as_const(out.map()), log_sum.data(), 3,
                                          dout_head.map(), dq.map(), dk.map(), dv.map());
  const Matrix<double> start = Matrix<double>::Ones(length, width);
  EXPECT_TRUE(near(dq.map(), start + scale * ds * k.template cast<double>(), within));
  EXPECT_TRUE(near(dk.map(), start + scale * ds.transpose() * q.template cast<double>(), within));
  EXPECT_TRUE(near(dv.map(), start + p.transpose() * d, within));
  EXPECT_TRUE(dq.is_alone() && dk.is_alone() && dv.is_alone());
}

TYPED_TEST(LlamaLaws, AttentionByTilesIsAttention) {
  for (const auto& [past, length] : std::vector<std::pair<Index, Index>>{
           {0, 1}, {0, 2}, {0, 127}, {0, 128}, {0, 129}, {0, 300}, {1, 1}, {130, 1}, {200, 150}}) {
    expect_attention<TypeParam>(4, past, length);
  }
}

// Less than a vector, vectors, panels, and rests behind them.
TYPED_TEST(LlamaLaws, AttentionOfHeadsOfAnySizeIsAttention) {
  for (const Index width : {2, 6, 8, 12, 16, 20, 24, 40, 64}) {
    for (const auto& [past, length] : std::vector<std::pair<Index, Index>>{
             {0, 5}, {0, 13}, {0, 49}, {0, 131}, {1, 2}, {3, 7}, {127, 5}}) {
      expect_attention<TypeParam>(width, past, length);
    }
  }
}

TEST(AttentionTile, CutsEvenly) {
  for (const Index most : {48, 128}) {
    for (Index length = 1; length < 1000; ++length) {
      const Index tile = mora::detail::attention_tile(length, most);
      ASSERT_GE(tile, 1) << length;
      ASSERT_LE(tile, most) << length;
      ASSERT_EQ((length + tile - 1) / tile, (length + most - 1) / most) << length;
    }
  }
  EXPECT_EQ(mora::detail::attention_tile(300, 128), 100);
}

// A vocabulary beyond one tile of logits, with few positions and with many.
TEST(LlamaHead, TilesOfLogitsAddUp) {
  LlamaConfig config = small_config();
  config.vocab_size = Index{1} << 17;  // 64 rows a tile
  config.hidden_size = 2;
  config.num_attention_heads = config.num_key_value_heads = 1;
  config.num_hidden_layers = 1;
  config.max_position_embeddings = 150;
  for (const bool tied : {false, true}) {
    config.tie_word_embeddings = tied;
    Llama<double> model = random_model(config);
    attach(model, "a", Kind::full, {.modules = {"model.norm", tied ? "embed_tokens" : "lm_head"}});
    const Batch batch = random_batch({150}, 1000);
    Gradients<double> sum;
    double loss = 0.0;
    for (const Index first : {0, 50, 100}) {
      Batch part = batch;
      for (Index i = 0; i < 150; ++i) {
        if (i < first || i >= first + 50) part.targets[static_cast<std::size_t>(i)] = mora::ignored;
      }
      loss += model.accumulate_gradients(part, 1.0).sum;
    }
    sum = gradients_of(model);
    EXPECT_TRUE(near<double>(model.loss(batch).sum, loss, loss));
    expect_near(gradients_of(model, batch), sum);
  }
}

TYPED_TEST(LlamaLaws, WorkOnOneTokenAndOnNone) {
  using T = TypeParam;
  Llama<T> model = adapted_model<T>();
  const Batch one = random_batch({1});
  EXPECT_EQ(model.logits(one).rows(), 1);
  EXPECT_EQ(model.loss(one).count, 0);
  Batch with_target = one;
  with_target.targets = {4};
  EXPECT_EQ(model.loss(with_target).count, 1);
  EXPECT_TRUE(std::isfinite(model.accumulate_gradients(with_target, 1.0).mean()));
  const Batch none;
  EXPECT_EQ(model.logits(none).rows(), 0);
  EXPECT_EQ(model.logits(none).cols(), 13);
  EXPECT_EQ(model.loss(none).count, 0);
  EXPECT_EQ(model.loss(none).sum, 0.0);
  EXPECT_EQ(model.accumulate_gradients(none, 1.0).count, 0);
}

// The smallest of everything.
TYPED_TEST(LlamaLaws, WorkAtSizeOne) {
  using T = TypeParam;
  LlamaConfig config;
  config.vocab_size = config.hidden_size = config.intermediate_size = 1;
  config.num_hidden_layers = config.num_attention_heads = 1;
  config.head_dim = 2;
  config.max_position_embeddings = 2;
  for (const bool tied : {false, true}) {
    config.tie_word_embeddings = tied;
    Llama<T> model = random_model<T>(config);
    attach(model, "a", Kind::full, all_tensors(config));
    const Batch batch = random_batch({2, 1}, 1);
    EXPECT_EQ(model.accumulate_gradients(batch, 1.0).sum, 0.0);  // It is certain.
    for (const auto& [name, gradient] : gradients_of(model)) {
      EXPECT_TRUE((gradient.array().abs() < T(1e-6)).all()) << name;
    }
  }
}

}  // namespace
}  // namespace mora_tests
