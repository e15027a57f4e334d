// SPDX-License-Identifier: MIT
// A decoder's memory: nothing is allocated once warmed up, and an allocation that fails leaves the
// model as it was.
#include <mora/mora.hpp>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "support/allocations.hpp"
#include "support/failing_allocations.hpp"
#include "support/llama_misuse.hpp"

namespace mora_tests {
namespace {

using Model = Llama<float>;

/// OpenMP's other threads begin and end when they like, and with them their working memory; one
/// that gets its first head late makes room for its tiles then.
void on_one_thread() {
#if defined(_OPENMP)
  omp_set_num_threads(1);
#endif
}

template <class F, class Check>
long fail_each(const F& call, const Check& check, Keeps keeps = Keeps::nothing) {
  return fail_each_allocation(
      [&] {
        on_one_thread();
        call();
      },
      check, keeps);
}

/// Allocations of one call, after two others.
template <class F>
[[nodiscard]] long allocations_of(const F& call) {
  call();
  call();
  const long before = allocation_count();
  Eigen::internal::set_is_malloc_allowed(false);
  call();
  Eigen::internal::set_is_malloc_allowed(true);
  return allocation_count() - before;
}

constexpr Kind every_kind[] = {Kind::lora, Kind::rotation, Kind::sharing, Kind::full};

Model adapted_model(Kind kind, bool tied = false, double dropout = 0.0) {
  Model model = random_model<float>(small_config(tied));
  attach(model, "a", kind, {.all_linear = true}, dropout);
  attach(model, "a", Kind::full, {.modules = {"model.norm", "embed_tokens"}});
  if (!tied) attach(model, "a", kind, {.modules = {"lm_head"}}, dropout);
  disturb(model);
  return model;
}

TEST(LlamaMemory, IsNotAskedForInATrainingStep) {
  on_one_thread();
  const Batch batch = random_batch();
  const Batch smaller = random_batch({4, 2});
  for (const Kind kind : every_kind) {
    for (const bool tied : {false, true}) {
      for (const bool recompute : {false, true}) {
        for (const double dropout : {0.0, 0.2}) {
          if (kind == Kind::full && dropout > 0.0) continue;
          SCOPED_TRACE(testing::Message() << int(kind) << tied << recompute << dropout);
          Model model = adapted_model(kind, tied, dropout);
          model.set_recompute(recompute);
          mora::AdamW<float> optimizer({.learning_rate = 1e-4});
          EXPECT_EQ(allocations_of([&] {
                      mora::zero_gradients(model);
                      (void)model.accumulate_gradients(batch, 0.1);
                      (void)model.accumulate_gradients(batch, 0.1);
                      optimizer.step(model);
                    }),
                    0);
          EXPECT_EQ(allocations_of([&] { (void)model.accumulate_gradients(batch, 0.1); }), 0);
          const Batch grouped = grouped_batch();
          EXPECT_EQ(allocations_of([&] { (void)model.accumulate_gradients(grouped, 0.1); }), 0);
          if (tied || recompute) continue;
          const Batch larger = grouped_batch(small_config().vocab_size, 60);  // of more groups
          EXPECT_EQ(allocations_of([&] {
                      (void)model.accumulate_gradients(larger, 0.1);
                      (void)model.accumulate_gradients(grouped, 0.1);
                    }),
                    0);
        }
      }
    }
  }
}

TEST(LlamaMemory, IsNotAskedForByTheNextToken) {
  on_one_thread();
  for (const Kind kind : every_kind) {
    for (const bool merged : {false, true}) {
      Model model = adapted_model(kind);
      if (merged) model.merge();
      auto cache = model.cache();
      cache.reserve(64);
      mora::RowVector<float> logits;
      model.next_logits(Tokens{1, 2, 3}, cache, logits);
      const Tokens next = {4};
      EXPECT_EQ(allocations_of([&] { model.next_logits(next, cache, logits); }), 0);
      EXPECT_EQ(cache.length(), 6);
      cache.truncate(0);
      EXPECT_EQ(allocations_of([&] { model.next_logits(next, cache, logits); }), 0);
      mora::TokenSampler<float> sampler({.temperature = 1.0, .top_p = 0.9});
      Random random(1);
      (void)sampler.choose({logits.data(), 13}, random.generator());
      const long before = allocation_count();
      (void)sampler.choose({logits.data(), 13}, random.generator());
      EXPECT_EQ(allocation_count() - before, 0);
    }
  }
}

TEST(LlamaMemory, ThatRunsOutLeavesAttachUndone) {
  const std::string name = "a name that is longer than strings keep in place";
  for (const Kind kind : every_kind) {
    Model model = adapted_model(kind);
    const Bits before = bits_of(model);
    const auto check = [&] { EXPECT_EQ(bits_of(model), before); };
    EXPECT_GT(fail_each([&] { attach(model, name, kind, {.modules = {"q_proj"}}); }, check), 3);
    EXPECT_EQ(model.active(), name);
    const Bits attached = bits_of(model);
    EXPECT_GT(fail_each([&] { attach(model, name, kind, {.modules = {"k_proj"}}); },
                        [&] { EXPECT_EQ(bits_of(model), attached); }),
              3);
    model.activate("a");
    const Bits other = bits_of(model);
    fail_each([&] { model.activate(name); }, [&] { EXPECT_EQ(bits_of(model), other); },
              Keeps::memory);
    EXPECT_EQ(model.active(), name);
    model.detach(name);
    model.activate("a");
    EXPECT_EQ(bits_of(model), before);
  }
}

TEST(LlamaMemory, ThatRunsOutLeavesNoHalfMadeModel) {
  const LlamaConfig config = small_config();
  const auto weights = random_weights<float>(config);
  EXPECT_GT(fail_each([&] { const Model model(config, weights); }, [] {}), 3);
  const Model model = adapted_model(Kind::lora);
  EXPECT_GT(fail_each([&] { const Model copy = model; }, [] {}), 3);
}

TEST(LlamaMemory, ThatRunsOutLeavesTheModelUnmerged) {
  for (const Kind kind : every_kind) {
    Model model = adapted_model(kind);
    const Bits before = bits_of(model);
    Model expected = model;
    expected.merge();
    EXPECT_GT(fail_each([&] { model.merge(); },
                        [&] {
                          EXPECT_FALSE(model.merged());
                          EXPECT_EQ(bits_of(model), before);
                        }),
              3);
    EXPECT_EQ(bits_of(model), bits_of(expected));
    EXPECT_EQ(fail_each([&] { model.unmerge(); }, [] {}), 0);
    EXPECT_EQ(bits_of(model), before);
  }
}

TEST(LlamaMemory, ThatRunsOutAddsNoPartOfAGradient) {
  const Batch batch = random_batch();
  for (const Kind kind : every_kind) {
    for (const bool recompute : {false, true}) {
      SCOPED_TRACE(testing::Message() << int(kind) << recompute);
      Model model = adapted_model(kind, false, kind == Kind::full ? 0.0 : 0.2);
      model.set_recompute(recompute);
      for (const bool first : {true, false}) {
        Model expected = model;
        (void)expected.accumulate_gradients(batch, 0.5);
        if (!first) model.set_recompute(recompute);  // gives its memory back
        const Gradients<float> before = gradients_of(model);
        const auto passes = model.dropout().passes;
        EXPECT_GT(fail_each([&] { (void)model.accumulate_gradients(batch, 0.5); },
                            [&] {
                              for (const auto& [name, gradient] : gradients_of(model)) {
                                if (first) {  // or empty
                                  EXPECT_TRUE((gradient.array() == 0.0f).all()) << name;
                                } else {
                                  EXPECT_TRUE(same_bits(gradient, before.at(name))) << name;
                                }
                              }
                              EXPECT_EQ(model.dropout().passes, passes);
                            },
                            Keeps::memory),
                  3);
        EXPECT_EQ(bits_of(model), bits_of(expected));
      }
    }
  }
}

// Where threads take groups, and a step packs its weights.
TEST(LlamaMemory, ThatRunsOutAddsNoPartOfAGradientOfGroups) {
  on_one_thread();
  const Batch batch = grouped_batch();
  for (const Kind kind : {Kind::lora, Kind::rotation, Kind::sharing}) {
    SCOPED_TRACE(int(kind));
    Model model = adapted_model(kind);
    Model expected = model;
    (void)expected.accumulate_gradients(batch, 0.5);
    EXPECT_GT(fail_each([&] { (void)model.accumulate_gradients(batch, 0.5); },
                        [&] {
                          for (const auto& [name, gradient] : gradients_of(model)) {
                            EXPECT_TRUE((gradient.array() == 0.0f).all()) << name;  // or empty
                          }
                        },
                        Keeps::memory),
              3);
    EXPECT_EQ(bits_of(model), bits_of(expected));
  }
}

TEST(LlamaMemory, ThatRunsOutLeavesTheCacheAsItWas) {
  const Model model = adapted_model(Kind::rotation);
  auto cache = model.cache();
  mora::RowVector<float> expected;
  model.next_logits(Tokens{1, 2, 3}, cache, expected);
  auto twin = cache;
  mora::RowVector<float> logits;
  for (const Tokens& next : {Tokens{4, 5}, Tokens{6, 7, 8, 9, 10}, Tokens{11}}) {
    model.next_logits(next, twin, expected);
    const Index length = cache.length();
    auto cold = cache;  // a copy has no working memory
    fail_each(
        [&] {
          mora::RowVector<float> other(5);  // another model's
          model.next_logits(next, cold, other);
          logits.swap(other);
        },
        [&] { EXPECT_EQ(cold.length(), length); }, Keeps::memory);
    EXPECT_TRUE(same_bits(logits, expected));
    cache = cold;
    EXPECT_EQ(cache.length(), twin.length());
  }
  const Bits before = bits_of(model);
  const Batch batch = random_batch();
  EXPECT_GT(
      fail_each([&] { (void)model.logits(batch); }, [&] { EXPECT_EQ(bits_of(model), before); }), 3);
  EXPECT_GT(fail_each([&] { (void)model.loss(batch); }, [&] { EXPECT_EQ(bits_of(model), before); }),
            3);
}

TEST(LlamaMemory, IsAssignedInFullOrNotAtAll) {
  const Model source = adapted_model(Kind::rotation);
  Model target = adapted_model(Kind::lora, true);
  const Bits before = bits_of(target);
  EXPECT_GT(fail_each([&] { target = source; }, [&] { EXPECT_EQ(bits_of(target), before); }), 3);
  EXPECT_EQ(bits_of(target), bits_of(source));

  auto cache = source.cache();
  auto other = source.cache();
  mora::RowVector<float> logits;
  source.next_logits(Tokens{1, 2, 3}, cache, logits);
  source.next_logits(Tokens{4, 5, 6, 7, 8}, other, logits);
  EXPECT_GT(fail_each([&] { cache = other; },
                      [&] {
                        auto copy = cache;
                        source.next_logits(Tokens{4}, copy, logits);
                        EXPECT_EQ(copy.length(), 4);
                      }),
            1);
  EXPECT_EQ(cache.length(), 5);
}

}  // namespace
}  // namespace mora_tests
