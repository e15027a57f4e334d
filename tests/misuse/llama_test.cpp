// SPDX-License-Identifier: MIT
// Wrong sizes, weights, tokens and settings of a decoder.
#include "support/llama_misuse.hpp"
#include "support/not_finite.hpp"

#include <array>
#include <cmath>
#include <limits>

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::Matrix;
using mora::NumericError;
using mora::ShapeError;
using FloatModel = Llama<float>;

/// Whether the small configuration with a change is refused with a text that has these parts.
template <class F>
testing::AssertionResult refuses_config(std::initializer_list<std::string_view> parts,
                                        const F& change) {
  LlamaConfig config = small_config();
  change(config);
  if (auto result = throws<ArgumentError>(parts, [&] { config.validate(); }); !result) {
    return result;
  }
  return throws<ArgumentError>(parts, [&] { LlamaTensors tensors(config); });
}

TEST(LlamaConfig, RefusesSizesThatCannotBe) {
  const std::pair<const char*, Index LlamaConfig::*> sizes[] = {
      {"vocab_size", &LlamaConfig::vocab_size},
      {"hidden_size", &LlamaConfig::hidden_size},
      {"intermediate_size", &LlamaConfig::intermediate_size},
      {"num_hidden_layers", &LlamaConfig::num_hidden_layers},
      {"num_attention_heads", &LlamaConfig::num_attention_heads},
      {"num_key_value_heads", &LlamaConfig::num_key_value_heads},
      {"head_dim", &LlamaConfig::head_dim},
      {"max_position_embeddings", &LlamaConfig::max_position_embeddings}};
  for (const auto& [name, size] : sizes) {
    const bool has_default =
        size == &LlamaConfig::num_key_value_heads || size == &LlamaConfig::head_dim;
    for (const Index wrong :
         {Index{0}, Index{-1}, Index{-1024}, (Index{1} << 30) + 2,
          std::numeric_limits<Index>::max(), std::numeric_limits<Index>::min()}) {
      if (wrong == 0 && has_default) continue;
      EXPECT_TRUE(
          refuses_config({name, "expected", "found " + std::to_string(wrong)},
                         [&, member = size](LlamaConfig& config) { config.*member = wrong; }))
          << wrong;
    }
  }
}

TEST(LlamaConfig, RefusesSizesThatDoNotFitEachOther) {
  for (const Index wrong : {3, 5, 8}) {
    EXPECT_TRUE(refuses_config({"num_key_value_heads", "divisor", "4", std::to_string(wrong)},
                               [&](LlamaConfig& c) { c.num_key_value_heads = wrong; }));
  }
  for (const Index odd : {1, 3, 7}) {
    EXPECT_TRUE(refuses_config({"head_dim", "even", "found " + std::to_string(odd)},
                               [&](LlamaConfig& c) { c.head_dim = odd; }));
  }
  // hidden_size / num_attention_heads is not whole, or odd.
  EXPECT_TRUE(refuses_config({"hidden_size", "multiple", "4", "found 10"},
                             [](LlamaConfig& c) { c.head_dim = 0; }));
  EXPECT_TRUE(refuses_config({"head_dim", "even", "found 3"}, [](LlamaConfig& c) {
    c.head_dim = 0;
    c.hidden_size = 12;
  }));
}

// Sizes that are fine one by one.
TEST(LlamaConfig, RefusesSizesWhoseProductsAreTooLarge) {
  EXPECT_TRUE(refuses_config({"head_dim"}, [](LlamaConfig& c) {
    c.hidden_size = c.num_attention_heads = c.head_dim = Index{1} << 30;
  }));
  EXPECT_TRUE(refuses_config({"head_dim", "num_attention_heads"}, [](LlamaConfig& c) {
    c.num_attention_heads = c.num_key_value_heads = Index{1} << 20;
    c.head_dim = Index{1} << 20;
  }));
}

// The table of tensors is made before any weight is.
TEST(LlamaConfig, RefusesMoreLayersThanATableShouldHave) {
  for (const Index layers : {10'001, 100'000'000}) {
    EXPECT_TRUE(refuses_config({"num_hidden_layers: expected 1 to 10000, found 10"},
                               [&](LlamaConfig& c) { c.num_hidden_layers = layers; }));
  }
}

TEST(LlamaConfig, RefusesNumbersThatMakeNoNormsOrAngles) {
  for (const double wrong : {nan<double>, infinity<double>, -infinity<double>, -1e-6}) {
    EXPECT_TRUE(refuses_config({"rms_norm_eps"}, [&](LlamaConfig& c) { c.rms_norm_eps = wrong; }));
  }
  for (const double wrong : {nan<double>, infinity<double>, -infinity<double>, -1.0, 0.0}) {
    EXPECT_TRUE(refuses_config({"rope_theta"}, [&](LlamaConfig& c) { c.rope_theta = wrong; }));
  }
}

TEST(LlamaConfig, HasTheDefaultsOfHuggingFace) {
  const LlamaConfig config;
  config.validate();
  EXPECT_EQ(config.key_value_heads(), 32);
  EXPECT_EQ(config.head_size(), 128);
  Index numbers = 0;
  const LlamaTensors tensors(config);
  for (const auto& tensor : tensors.all()) numbers += tensor.rows * tensor.cols;
  EXPECT_EQ(numbers, 6738415616);  // LLaMA-2 7B
}

TEST(LlamaTensors, AreInTheOrderOfTheirPlaces) {
  for (const bool tied : {false, true}) {
    const LlamaTensors tensors(small_config(tied));
    EXPECT_EQ(tensors.size(), 1u + 2u * 9u + 1u + (tied ? 0u : 1u));
    EXPECT_EQ(tensors[LlamaTensors::embedding()].name, "model.embed_tokens.weight");
    EXPECT_EQ(tensors[LlamaTensors::at(1, mora::LlamaSlot::up)].module(),
              "model.layers.1.mlp.up_proj");
    EXPECT_EQ(tensors[tensors.norm()].name, "model.norm.weight");
    EXPECT_EQ(tensors[tensors.head()].name, tied ? "model.embed_tokens.weight" : "lm_head.weight");
  }
}

TEST(LlamaModel, RefusesWeightsOfAnotherShape) {
  const LlamaConfig config = small_config();
  const auto weights = random_weights<float>(config);
  const LlamaTensors tensors(config);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const Index rows = tensors[i].rows;
    const Index cols = tensors[i].cols;
    const auto shape = [](Index r, Index c) {
      return std::to_string(r) + " x " + std::to_string(c);
    };
    for (const auto& [r, c] :
         {std::pair(rows + 1, cols), std::pair(rows, cols + 1), std::pair(cols, rows)}) {
      if (r == rows && c == cols) continue;
      auto wrong = weights;
      wrong[i] = Matrix<float>(Matrix<float>::Ones(r, c));
      EXPECT_TRUE(throws<ShapeError>(
          {tensors[i].name, "expected " + shape(rows, cols), "found " + shape(r, c)},
          [&] { FloatModel(config, wrong); }));
    }
  }
  auto fewer = weights;
  fewer.pop_back();
  EXPECT_TRUE(throws<ShapeError>({"weights", "expected 21", "found 20"},
                                 [&] { FloatModel(config, fewer); }));
  EXPECT_TRUE(throws<ShapeError>({"weights", "expected 20", "found 21"},
                                 [&] { FloatModel(small_config(true), weights); }));
}

/// Every call that takes a batch.
template <class E>
void expect_refused(FloatModel& model, const Batch& batch,
                    std::initializer_list<std::string_view> parts) {
  EXPECT_TRUE(refuses<E>(model, parts, [&] { (void)model.logits(batch); }));
  EXPECT_TRUE(refuses<E>(model, parts, [&] { (void)model.loss(batch); }));
  EXPECT_TRUE(refuses<E>(model, parts, [&] { (void)model.accumulate_gradients(batch, 1.0); }));
}

FloatModel adapted_model() {
  FloatModel model = random_model<float>();
  attach(model, "a", Kind::lora, {.all_linear = true});
  disturb(model);
  (void)model.accumulate_gradients(random_batch(), 1.0);
  return model;
}

constexpr Token largest = std::numeric_limits<Token>::max();
constexpr Token smallest = std::numeric_limits<Token>::min();

TEST(LlamaModel, RefusesTokensOutsideTheVocabulary) {
  FloatModel model = adapted_model();
  for (const Token wrong : {13, -1, largest, smallest}) {
    Batch batch = random_batch();
    batch.tokens[7] = wrong;  // the third of the second sequence
    expect_refused<ArgumentError>(
        model, batch,
        {"token 2 of sequence 1", "position 7", "0 to 12", "found " + std::to_string(wrong)});
    auto cache = model.cache();
    mora::RowVector<float> logits;
    model.next_logits(Tokens{1, 2}, cache, logits);
    const mora::RowVector<float> before = logits;
    EXPECT_TRUE(refuses<ArgumentError>(model, {"token 1", "0 to 12"}, [&] {
      model.next_logits(Tokens{1, wrong, 3}, cache, logits);
    }));
    EXPECT_EQ(cache.length(), 2);
    EXPECT_TRUE(same_bits(logits, before));
    mora::SplitMix64 generator(1);
    EXPECT_TRUE(throws<ArgumentError>({"token 1", "0 to 12"}, [&] {
      (void)mora::generate<float>(model, Tokens{1, wrong}, {}, generator);
    }));
  }
}

TEST(LlamaModel, RefusesFactorsThatAreNotFinite) {
  FloatModel model = adapted_model();
  const Batch batch = random_batch();
  for (const double wrong : {nan<double>, infinity<double>, 1e300}) {
    EXPECT_TRUE(refuses<ArgumentError>(model, {"weight", "finite"},
                                       [&] { (void)model.accumulate_gradients(batch, wrong); }));
    mora::SplitMix64 generator(1);
    EXPECT_TRUE(throws<ArgumentError>({"deviation", "finite"},
                                      [&] { (void)FloatModel(small_config(), generator, wrong); }));
  }
}

TEST(LlamaModel, RefusesTargetsOutsideTheVocabulary) {
  FloatModel model = adapted_model();
  for (const Token wrong : {13, -2, -100, largest, smallest}) {
    Batch batch = random_batch();
    batch.targets[7] = wrong;
    expect_refused<ArgumentError>(
        model, batch,
        {"target 2 of sequence 1", "position 7", "-1 to 12", "found " + std::to_string(wrong)});
  }
}

TEST(LlamaModel, RefusesBatchesWhosePartsDoNotFit) {
  FloatModel model = adapted_model();
  Batch batch = random_batch();
  batch.targets.pop_back();
  expect_refused<ShapeError>(model, batch, {"targets", "expected 16", "found 15"});
  batch = random_batch();
  batch.starts.back() = 17;
  expect_refused<ShapeError>(model, batch, {"starts", "expected 16", "found 17"});
  batch = random_batch();
  batch.starts[2] = batch.starts[1];
  expect_refused<ShapeError>(model, batch, {"sequence 1"});
  batch.starts.clear();
  expect_refused<ShapeError>(model, batch, {"starts"});
}

TEST(LlamaModel, RefusesSequencesBeyondItsPositions) {
  FloatModel model = adapted_model();
  (void)model.logits(random_batch({64, 64}));
  expect_refused<ArgumentError>(model, random_batch({3, 65, 2}),
                                {"sequence 1", "max_position_embeddings = 64", "found 65"});
  auto cache = model.cache();
  mora::RowVector<float> logits;
  model.next_logits(Tokens(60, 1), cache, logits);
  for (const std::size_t more : {5, 100}) {
    EXPECT_TRUE(refuses<ArgumentError>(
        model, {"max_position_embeddings = 64", "found " + std::to_string(60 + more)},
        [&] { model.next_logits(Tokens(more, 1), cache, logits); }));
    EXPECT_EQ(cache.length(), 60);
  }
  model.next_logits(Tokens(4, 1), cache, logits);
  EXPECT_TRUE(throws<ShapeError>({"sequence 0"}, [&] { model.next_logits({}, cache, logits); }));
  mora::SplitMix64 generator(1);
  EXPECT_TRUE(throws<ArgumentError>({"prompt", "max_position_embeddings = 64", "found 65"}, [&] {
    (void)mora::generate<float>(model, Tokens(65, 1), {}, generator);
  }));
  EXPECT_TRUE(throws<ArgumentError>({"prompt", "at least one token"}, [&] {
    (void)mora::generate<float>(model, Tokens(), {}, generator);
  }));
}

// Its logits alone would be 16 TB.
TEST(LlamaModel, RefusesLongSequencesBeforeMemoryIsAskedFor) {
  LlamaConfig config = small_config(true);
  config.vocab_size = 1 << 20;
  config.hidden_size = 2;
  const FloatModel model = random_model<float>(config);
  Batch batch;
  batch.add_next_tokens(Tokens(1 << 22, 1));
  EXPECT_TRUE(
      throws<ArgumentError>({"max_position_embeddings"}, [&] { (void)model.logits(batch); }));
  batch.tokens[0] = -1;
  EXPECT_TRUE(throws<ArgumentError>({"token 0"}, [&] { (void)model.logits(batch); }));
}

TEST(LlamaModel, RefusesTheCacheOfAnotherModel) {
  const FloatModel model = random_model<float>();
  LlamaConfig config = small_config();
  config.num_hidden_layers = 1;
  mora::RowVector<float> logits;
  auto shallow = random_model<float>(config).cache();
  EXPECT_TRUE(throws<ShapeError>({"cache", "layers", "expected 2", "found 1"},
                                 [&] { model.next_logits(Tokens{1}, shallow, logits); }));
  config = small_config();
  config.num_key_value_heads = 1;
  auto narrow = random_model<float>(config).cache();
  EXPECT_TRUE(throws<ShapeError>({"cache", "expected 8", "found 4"},
                                 [&] { model.next_logits(Tokens{1}, narrow, logits); }));
}

TEST(SamplingSettings, AreChecked) {
  for (const double wrong : {-0.1, nan<double>, infinity<double>}) {
    EXPECT_TRUE(throws<ArgumentError>({"temperature"},
                                      [&] { mora::TokenSampler<float>({.temperature = wrong}); }));
  }
  for (const double wrong : {0.0, -0.5, 1.001, nan<double>, infinity<double>}) {
    EXPECT_TRUE(throws<ArgumentError>({"top_p", "0 < top_p <= 1"}, [&] {
      mora::TokenSampler<float>({.temperature = 1.0, .top_p = wrong});
    }));
    const mora::GenerationSettings settings{.sampling = {.top_p = wrong}};
    EXPECT_TRUE(throws<ArgumentError>({"top_p"}, [&] { settings.validate(); }));
  }
  EXPECT_TRUE(throws<ArgumentError>({"max_new_tokens", "found -1"}, [] {
    mora::GenerationSettings{.max_new_tokens = -1}.validate();
  }));
}

/// How often each of four tokens comes in so many draws.
std::array<int, 4> draws(const mora::SamplingSettings& settings, const std::array<float, 4>& logits,
                         int number = 20000) {
  mora::TokenSampler<float> sampler(settings);
  Random random(1);
  std::array<int, 4> counts{};
  for (int i = 0; i < number; ++i) {
    ++counts[static_cast<std::size_t>(sampler.choose(logits, random.generator()))];
  }
  return counts;
}

void expect_shares(const std::array<int, 4>& counts, const std::array<double, 4>& weights) {
  double total = 0.0;
  double number = 0.0;
  for (std::size_t i = 0; i < 4; ++i) {
    total += weights[i];
    number += counts[i];
  }
  for (std::size_t i = 0; i < 4; ++i) {
    const double p = weights[i] / total;
    // Five standard deviations.
    EXPECT_NEAR(counts[i], number * p, 5.0 * std::sqrt(number * p * (1.0 - p))) << i;
  }
}

TEST(TokenSampler, DrawsFromTheSoftmax) {
  const std::array<float, 4> logits = {1.0f, -0.5f, 2.0f, 0.0f};
  for (const double temperature : {0.5, 1.0, 3.0}) {
    std::array<double, 4> p{};
    for (std::size_t i = 0; i < 4; ++i) p[i] = std::exp(double(logits[i]) / temperature);
    expect_shares(draws({.temperature = temperature}, logits), p);
    // Probabilities are 0.63, 0.23, 0.09 and 0.05 in the order 2, 0, 3, 1 at temperature 1.
    if (temperature == 1.0) {
      expect_shares(draws({.temperature = 1.0, .top_p = 0.6}, logits), {0.0, 0.0, p[2], 0.0});
      expect_shares(draws({.temperature = 1.0, .top_p = 0.8}, logits), {p[0], 0.0, p[2], 0.0});
      expect_shares(draws({.temperature = 1.0, .top_p = 0.9}, logits), {p[0], 0.0, p[2], p[3]});
      expect_shares(draws({.temperature = 1.0, .top_p = 1e-9}, logits), {0.0, 0.0, 1.0, 0.0});
    }
  }
}

TEST(TokenSampler, TakesTheLikeliestWithoutTemperature) {
  mora::TokenSampler<float> sampler({});
  mora::SplitMix64 generator(1);
  EXPECT_EQ(sampler.choose(std::array{1.0f, 3.0f, 3.0f}, generator), 1);
  EXPECT_EQ(sampler.choose(std::array{-2.0f}, generator), 0);
  EXPECT_EQ(generator(), mora::SplitMix64(1)());
  expect_shares(draws({.temperature = 1e-300}, {1.0f, 0.0f, 0.9999f, 1.0f}), {1.0, 0.0, 0.0, 1.0});
}

/// Whose numbers are the largest.
struct Largest {
  using result_type = std::uint64_t;
  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return ~result_type{0}; }
  result_type operator()() { return max(); }
};

TEST(TokenSampler, NeverDrawsATokenWithoutProbability) {
  const float none = -infinity<float>;
  expect_shares(draws({.temperature = 1.0}, {none, 1.0f, none, 1.0f}), {0.0, 1.0, 0.0, 1.0});
  // Whatever the rounding of the last candidate.
  mora::TokenSampler<float> sampler({.temperature = 1.0});
  Largest generator;
  Random random(2);
  for (int i = 0; i < 20000; ++i) {
    mora::RowVector<float> logits = random.vector<float>(50);
    logits(0) = none;
    ASSERT_NE(sampler.choose({logits.data(), 50}, generator), 0) << i;
  }
}

TEST(TokenSampler, RefusesLogitsThatMakeNoProbabilities) {
  const float inf = infinity<float>;
  mora::SplitMix64 generator(1);
  for (const double temperature : {0.0, 1.0}) {
    mora::TokenSampler<float> sampler({.temperature = temperature});
    EXPECT_TRUE(throws<NumericError>({"logits", "NaN"}, [&] {
      (void)sampler.choose(std::array{1.0f, float(nan<double>), 2.0f}, generator);
    }));
    EXPECT_TRUE(throws<ArgumentError>({"logits", "at least one"},
                                      [&] { (void)sampler.choose({}, generator); }));
  }
  mora::TokenSampler<float> sampler({.temperature = 1.0});
  EXPECT_TRUE(throws<NumericError>({"logits", "inf"}, [&] {
    (void)sampler.choose(std::array{1.0f, inf}, generator);
  }));
  EXPECT_TRUE(throws<NumericError>({"logits", "-inf"}, [&] {
    (void)sampler.choose(std::array{-inf, -inf}, generator);
  }));
}

}  // namespace
}  // namespace mora_tests
