// SPDX-License-Identifier: MIT
#include "uuid_memorization/base.hpp"

#include <ostream>
#include <utility>

#include "experiment/cached_weights.hpp"
#include "mora/adapters/full.hpp"
#include "mora/models/llama/llama.hpp"
#include "mora/optim/adamw.hpp"
#include "mora/optim/schedule.hpp"
#include "mora/train/callbacks/progress.hpp"
#include "mora/train/sampler.hpp"
#include "mora/train/train.hpp"

namespace uuid_memorization {

namespace {

/// Half of each batch are pairs of a set, the other half fresh keys with a function of each.
class BaseBatches {
 public:
  explicit BaseBatches(const BaseSettings& settings)
      : settings_(settings),
        pairs_(settings.pairs, settings.seed),
        sampler_(settings.pairs, {.batch_size = settings.batch / 2, .seed = settings.seed}),
        fresh_(~settings.seed) {}

  const mora::Batch& next() {
    batch_.clear();
    for (const Index i : sampler_.current()) pairs_.add_to(i, batch_);
    sampler_.advance();
    while (batch_.sequences() < settings_.batch) {
      const Uuid key = Uuid::draw(fresh_);
      const Token task = batch_.sequences() % 2 == 0 ? separator::copy : separator::swapped;
      add_pair(key, task, value_of(key, task), batch_);
    }
    return batch_;
  }

 private:
  BaseSettings settings_;
  PairSet pairs_;
  mora::Sampler sampler_;
  mora::SplitMix64 fresh_;
  mora::Batch batch_;
};

/// Fresh keys with a function of each.
PairRecall recall_of_function(const mora::Llama<float>& model, Token task, std::uint64_t seed) {
  constexpr Index keys = 64;
  const PairSet fresh(keys, seed);
  PairRecallCount count;
  for (Index i = 0; i < keys; ++i) {
    const Uuid value = value_of(fresh[i].key, task);
    mora::Batch batch;
    add_pair(fresh[i].key, task, value, batch);
    count.add(model.logits(batch).bottomRows(Index{Uuid::digits}), value);
  }
  return count.result();
}

}  // namespace

std::string BaseSettings::name() const {
  return mora::detail::concat("base-w", width, "-i", inner, "-l", layers, "-h", heads, "-steps",
                              steps, "-batch", batch, "-pairs", pairs, "-rate", learning_rate,
                              "-seed", seed, "-v1");
}

Base train_base(const BaseSettings& settings, std::ostream& log) {
  log << "training the base: " << settings.name() << std::endl;
  mora::SplitMix64 generator(settings.seed);
  mora::Llama<float> model(settings.config(), generator, 0.05);
  const mora::Targets everything{
      .modules = {"embed_tokens", "input_layernorm", "post_attention_layernorm", "norm", "lm_head"},
      .all_linear = true};
  model.attach("base", mora::FullSettings{}, everything);
  mora::AdamW<float> optimizer({.learning_rate = settings.learning_rate});
  BaseBatches batches(settings);
  mora::train(model, optimizer,
              mora::CosineSchedule{.steps = settings.steps, .warm_up = settings.steps / 20},
              batches, {.steps = settings.steps, .clip_norm = 1.0}, mora::Progress(log));
  model.merge();
  return {settings, model.weights()};
}

Base cached_base(const BaseSettings& settings, const std::filesystem::path& folder,
                 std::ostream& log) {
  const std::string name = settings.name();
  return {settings, experiment::cached_weights(
                        folder / (name + ".bin"), "mora uuid_memorization " + name,
                        settings.config(), log, [&] { return train_base(settings, log).weights; })};
}

BaseCheck check(const Base& base) {
  const mora::Llama<float> model(base.settings.config(), base.weights);
  const PairSet own(base.settings.pairs, base.settings.seed);
  return {.own = recall_of(model, own),
          .exchanged = recall_of(model, own.exchanged()),
          .copy = recall_of_function(model, separator::copy, base.settings.seed + 1),
          .swapped = recall_of_function(model, separator::swapped, base.settings.seed + 2),
          .unknown = recall_of(model, PairSet(64, base.settings.seed + 3))};
}

}  // namespace uuid_memorization
