// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "support/llama_misuse.hpp"
#include "support/threads.hpp"

/// \file
/// One decoder read by many threads, and the same bits on any number of them.

namespace mora_tests {
namespace {

using mora::Matrix;
using Model = Llama<float>;

Model adapted_model() {
  Model model = random_model<float>();
  attach(model, "a", Kind::rotation, {.all_linear = true});
  attach(model, "a", Kind::full, {.modules = {"model.norm"}});
  disturb(model);
  return model;
}

/// What every const function says.
Bits answers_of(const Model& model) {
  const Batch batch = random_batch();
  Bits bits = bits_of(model.logits(batch));
  const mora::LossSum loss = model.loss(batch);
  bits.bytes += std::to_string(loss.sum) + "/" + std::to_string(loss.count);
  auto cache = model.cache();
  mora::RowVector<float> logits;
  model.next_logits(Tokens{1, 2, 3}, cache, logits);
  model.next_logits(Tokens{4}, cache, logits);
  bits.bytes += bits_of(logits).bytes;
  Random random(1);
  const mora::GenerationSettings settings{.max_new_tokens = 10,
                                          .sampling = {.temperature = 1.0, .top_p = 0.9}};
  for (const Token token :
       mora::generate<float>(model, Tokens{5, 6}, settings, random.generator())) {
    bits.bytes += " " + std::to_string(token);
  }
  bits.bytes += std::to_string(mora::parameter_count(model)) + model.active();
  return bits;
}

TEST(LlamaThreads, InferOnOneModel) {
  Model model = adapted_model();
  for (const bool merged : {false, true}) {
    if (merged) model.merge();
    const Model& shared = model;
    const Bits expected = answers_of(shared);
    std::vector<Bits> found(thread_count);
    on_eight_threads([&](std::size_t i) {
      found[i] = answers_of(shared);
      const Model copy = shared;
      EXPECT_EQ(answers_of(copy), found[i]);
    });
    for (const Bits& each : found) EXPECT_EQ(each, expected);
  }
}

/// Some steps of training.
void train(Model& model, std::uint64_t seed) {
  const Batch batch = random_batch({5, 7, 3}, 13, seed);
  mora::AdamW<float> optimizer({.learning_rate = 1e-2});
  for (int step = 0; step < 3; ++step) {
    mora::zero_gradients(model);
    (void)model.accumulate_gradients(batch, 0.1);
    optimizer.step(model);
  }
  model.merge();
}

TEST(LlamaThreads, TrainEightModelsOverTheSameWeights) {
  std::vector<Model> serial(thread_count, adapted_model());
  std::vector<Model> parallel = serial;
  for (std::size_t i = 0; i < thread_count; ++i) train(serial[i], i);
  on_eight_threads([&](std::size_t i) { train(parallel[i], i); });
  for (std::size_t i = 0; i < thread_count; ++i) {
    EXPECT_EQ(bits_of(parallel[i]), bits_of(serial[i]));
    EXPECT_EQ(parallel[i].weights()[0].weight().data(), serial[0].weights()[0].weight().data());
  }
}

#if defined(_OPENMP)
/// Wide enough that products, norms and tiles of attention are shared out.
Model wide_model(Kind kind, double dropout) {
  LlamaConfig config = small_config();
  config.vocab_size = 500;
  config.hidden_size = 96;
  config.intermediate_size = 160;
  config.head_dim = 24;
  config.max_position_embeddings = 200;
  Model model = random_model<float>(config);
  attach(model, "a", kind, {.modules = {"lm_head"}, .all_linear = true}, dropout);
  attach(model, "a", Kind::full, {.modules = {"model.norm", "input_layernorm", "embed_tokens"}});
  disturb(model, 0.05);
  return model;
}

TEST(LlamaThreads, ComputeTheSameBitsInAnyNumber) {
  const int threads = omp_get_max_threads();
  for (const auto& [kind, dropout] : {std::pair(Kind::lora, 0.0),
                                      {Kind::lora, 0.2},
                                      {Kind::rotation, 0.0},
                                      {Kind::rotation, 0.2},
                                      {Kind::sharing, 0.0},
                                      {Kind::sharing, 0.2},
                                      {Kind::full, 0.0}}) {
    for (const bool recompute : {false, true}) {
      std::vector<Bits> results;
      for (const int number : {1, 2, 3, 4}) {
        omp_set_num_threads(number);
        Model model = wide_model(kind, dropout);
        model.set_recompute(recompute);
        (void)model.accumulate_gradients(grouped_batch(500), 0.01);  // a thread takes sequences
        const Batch batch = random_batch({50, 200, 1, 17}, 500);     // threads share products
        Bits bits = bits_of(model.logits(batch));
        bits.bytes += bits_of(Matrix<double>::Constant(1, 1, model.loss(batch).sum)).bytes;
        const double loss = model.accumulate_gradients(batch, 0.01).sum;
        bits.bytes += bits_of(Matrix<double>::Constant(1, 1, loss)).bytes;
        for (const auto& [name, gradient] : gradients_of(model)) {
          bits.bytes += bits_of(gradient).bytes;
        }
        auto cache = model.cache();
        mora::RowVector<float> logits;
        model.next_logits(std::span<const Token>(batch.tokens).first(40), cache, logits);
        bits.bytes += bits_of(logits).bytes;
        results.push_back(bits);
      }
      for (const Bits& bits : results) EXPECT_EQ(bits, results.front());
    }
  }
  omp_set_num_threads(threads);
}
#endif

}  // namespace
}  // namespace mora_tests
