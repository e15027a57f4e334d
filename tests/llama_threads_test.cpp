// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <mora/mora.hpp>
#include <stdexcept>
#include <vector>

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

// A row alone may have other bits.
TEST(FewRows, FollowOneAnotherAndLeaveNoneAlone) {
  for (Index rows = 0; rows < 300; ++rows) {
    SCOPED_TRACE(rows);
    Index next = 0;
    mora::detail::for_each_few_rows(rows, [&](Index first, Index count) {
      EXPECT_EQ(first, next);
      EXPECT_GE(count, std::min<Index>(2, rows));
      EXPECT_LE(count, 8 * mora::detail::block_rows + 1);
      next += count;
    });
    EXPECT_EQ(next, rows);
  }
}

// Whichever thread a turn is on, and also after one that failed.
TEST(LlamaThreads, TakeTheTurnsOfALaneInTheirOrder) {
  constexpr Index lanes = 3;
  constexpr Index items = 200;
  for (const Index failing : {Index{-1}, Index{4}, Index{100}}) {
    mora::detail::Turns<lanes> turns;
    std::array<std::vector<Index>, lanes> order;
    const auto run = [&] {
      mora::detail::parallel_pieces(items, 1, [&](Index item, Index) {
        turns.take(item % lanes, item / lanes, [&] {
          if (item == failing) throw std::runtime_error("a turn that fails");
          order[static_cast<std::size_t>(item % lanes)].push_back(item);
        });
      });
    };
    if (failing < 0) {
      run();
    } else {
      EXPECT_THROW(run(), std::runtime_error);
    }
    Index taken = 0;
    for (const auto& lane : order) {
      EXPECT_TRUE(std::is_sorted(lane.begin(), lane.end()));
      taken += std::ssize(lane);
    }
    EXPECT_EQ(taken, failing < 0 ? items : items - 1);
  }
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
        // A thread takes groups of sequences: more than there are lanes, so that some wait.
        (void)model.accumulate_gradients(grouped_batch(500, 100), 0.01);
        const Batch batch = random_batch({50, 200, 1, 17}, 500);  // threads share products
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
