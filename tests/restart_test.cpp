// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <map>
#include <mora/analysis/singular_values.hpp>
#include <mora/mora.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/compare.hpp"
#include "support/llama.hpp"
#include "support/misuse.hpp"
#include "support/not_finite.hpp"
#include "support/random.hpp"
#include "support/throws.hpp"

/// \file
/// Folding adapters into the frozen weight and beginning new ones: ReLoRA and ReMoRA.

namespace mora_tests {
namespace {

using mora::AnyAdapter;
using mora::FrozenLinear;
using mora::Matrix;
using mora::MoraAdapter;
using mora::NumericError;
using mora::ShapeError;
using mora::StateError;

TEST(Restart, OfALayerKeepsWhatItComputesAndWhatOthersShare) {
  Random random(1);
  const FrozenLinear<double> shared(random.matrix<double>(7, 9), random.vector<double>(7));
  const Matrix<double> before = shared.weight();
  mora::MoraLinear<double> layer(shared, {.rank = 2});
  for (int round = 0; round < 3; ++round) {
    mora::fill_normal(layer.adapter().matrix().value, 0.5, random.generator());
    const auto x = random.matrix<double>(4, 9);
    const Matrix<double> y = layer.forward(x);
    layer.restart(MoraAdapter<double>(layer.base(), {.rank = 2}));
    EXPECT_TRUE(near(layer.forward(x), y));
    EXPECT_TRUE((layer.adapter().matrix().value.array() == 0.0).all());
    EXPECT_FALSE(layer.merged());
  }
  EXPECT_TRUE(same_bits(shared.weight(), before));
  EXPECT_FALSE(layer.update().array().any());
}

TEST(Restart, OfALayerEndsWhatAFormerForwardPassKept) {
  using Layer = mora::MoraLinear<double, mora::RandomSharing>;
  Random random(2);
  Layer layer(random.matrix<double>(7, 9), {.rank = 2, .op = {.seed = 1}});
  const auto x = random.matrix<double>(4, 9);
  const auto dy = random.matrix<double>(4, 7);
  Layer::Saved saved;
  (void)layer.forward(x, saved);
  layer.restart(Layer::AdapterType(layer.base(), {.rank = 2, .op = {.seed = 2}}));
  EXPECT_TRUE(throws<StateError>({"restarted"}, [&] { (void)layer.backward(dy, saved); }));
  EXPECT_EQ(layer.adapter().matrix().gradient.size(), 0);
  (void)layer.forward(x, saved);
  (void)layer.backward(dy, saved);
}

TEST(Restart, OfALayerThatCannotBeChangesNothing) {
  auto layer = make_layer<mora::MoraLinear<double>>(6, 5);
  const auto refused = [&]<class E>(std::type_identity<E>, auto words, auto fresh) {
    const Bits bits = bits_of(layer);
    EXPECT_TRUE(throws<E>(words, [&] { layer.restart(std::move(fresh)); }));
    EXPECT_EQ(bits_of(layer), bits);
  };
  using Words = std::initializer_list<std::string_view>;
  refused(std::type_identity<ShapeError>{}, Words{"in_features", "6", "7"},
          MoraAdapter<double>(7, 5, {.rank = 2}));
  layer.adapter().matrix().value(0, 0) = nan<double>;
  refused(std::type_identity<NumericError>{}, Words{"merged weight"},
          MoraAdapter<double>(6, 5, {.rank = 2}));
  const Matrix<double> weight = layer.base().weight();
  const Index side = layer.adapter().side();
  layer.adapter().matrix().value.setOnes(side + 1, side);
  EXPECT_TRUE(throws<ShapeError>(Words{"M, rows", "found"},
                                 [&] { layer.restart(MoraAdapter<double>(6, 5, {.rank = 2})); }));
  EXPECT_TRUE(same_bits(layer.base().weight(), weight));
  layer.adapter().matrix().value.setZero(side, side);
  layer.merge();
  refused(std::type_identity<StateError>{}, Words{"restart", "merged"},
          MoraAdapter<double>(6, 5, {.rank = 2}));
}

/// The ranks of what has been learnt after each of some restarts, where every M is random.
template <class Op, class Next>
[[nodiscard]] std::vector<Index> ranks_by_restart(int restarts, const Next& next) {
  Random random(2);
  const Matrix<double> start = random.matrix<double>(96, 96);
  mora::MoraLinear<double, Op> layer(FrozenLinear<double>(Matrix<double>(start)),
                                     {.rank = 3, .op = next(0)});
  std::vector<Index> ranks;
  for (int restart = 1; restart <= restarts; ++restart) {
    EXPECT_EQ(layer.adapter().side(), 24);
    mora::fill_normal(layer.adapter().matrix().value, 1.0, random.generator());
    layer.restart(MoraAdapter<double, Op>(layer.base(), {.rank = 3, .op = next(restart)}));
    const Matrix<double> learnt = layer.base().weight() - start;
    ranks.push_back(mora::spectrum(learnt).numerical_rank(1e-10));
  }
  return ranks;
}

TEST(Restart, WithFreshGroupsReachesFullRank) {
  const auto seeded = [](int restart) {
    return mora::RandomSharing{.seed = static_cast<std::uint64_t>(restart) + 10};
  };
  EXPECT_EQ(ranks_by_restart<mora::RandomSharing>(5, seeded),
            (std::vector<Index>{24, 47, 70, 93, 96}));
}

TEST(Restart, WithOneGroupingStaysAtItsRank) {
  const auto same = [](int) { return mora::Sharing{}; };
  EXPECT_EQ(ranks_by_restart<mora::Sharing>(3, same), (std::vector<Index>{24, 24, 24}));
}

// Two types of adapters in one module: through a model.
TEST(Restart, WithThePublishedPairOfGroupingsStopsBelowTwiceTheSide) {
  Random random(3);
  mora::LlamaConfig config = small_config();
  config.hidden_size = 96;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 4;
  config.head_dim = 24;
  auto model = random_model(config);
  const std::string name = "model.layers.0.self_attn.q_proj";
  model.attach("a", mora::MoraSettings<mora::Sharing>{.rank = 3}, {.modules = {name}});
  const std::size_t place = model.tensors().place_of(name);
  const Matrix<double> start = model.weights()[place].weight();
  std::vector<Index> ranks;
  for (int restart = 1; restart <= 6; ++restart) {
    model.visit_parameters(
        [&](std::string_view, auto& p) { mora::fill_normal(p.value, 1.0, random.generator()); });
    model.restart([&](const std::string& module, const FrozenLinear<double>& weight) {
      EXPECT_EQ(module, name);
      if (restart % 2 == 0) {
        return AnyAdapter<double>(MoraAdapter<double, mora::Sharing>(weight, {.rank = 3}));
      }
      return AnyAdapter<double>(MoraAdapter<double, mora::AdjacentSharing>(weight, {.rank = 3}));
    });
    const Matrix<double> learnt = model.weights()[place].weight() - start;
    ranks.push_back(mora::spectrum(learnt).numerical_rank(1e-10));
  }
  EXPECT_EQ(ranks, (std::vector<Index>{24, 42, 42, 42, 42, 42}));
}

class RestartModel : public testing::Test {
 protected:
  RestartModel() : model_(random_model()) {
    Random random(4);
    model_.attach("a", mora::LoraSettings{.rank = 2}, {.all_linear = true}, random.generator());
    model_.attach("a", mora::FullSettings{}, {.modules = {"norm", "embed_tokens"}});
    model_.visit_parameters(
        [&](std::string_view, auto& p) { mora::fill_normal(p.value, 0.2, random.generator()); });
  }
  static AnyAdapter<double> fresh(const std::string&, const FrozenLinear<double>& weight) {
    mora::SplitMix64 generator(5);
    return AnyAdapter<double>(mora::LoraAdapter<double>(weight, {.rank = 2}, generator));
  }
  [[nodiscard]] std::vector<std::pair<std::string, Matrix<double>>> parameters() const {
    std::vector<std::pair<std::string, Matrix<double>>> all;
    model_.visit_parameters(
        [&](std::string_view name, const auto& p) { all.emplace_back(name, p.value); });
    return all;
  }
  Llama<double> model_;
  Batch batch_ = random_batch();
};

TEST_F(RestartModel, KeepsTheLossAndWhatTrainsAsACopy) {
  const auto before = parameters();
  const double loss = model_.loss(batch_).mean();
  const auto shared = model_.weights();
  const Matrix<double> first = shared[1].weight();
  model_.restart(fresh);
  EXPECT_TRUE(near<double>(model_.loss(batch_).mean(), loss, loss));
  EXPECT_TRUE(same_bits(shared[1].weight(), first));
  const auto after = parameters();
  ASSERT_EQ(after.size(), before.size());
  for (std::size_t i = 0; i < after.size(); ++i) {
    EXPECT_EQ(after[i].first, before[i].first);
    if (after[i].first.ends_with(".weight")) {
      EXPECT_TRUE(same_bits(after[i].second, before[i].second));
    } else if (after[i].first.ends_with(".B")) {
      EXPECT_FALSE(after[i].second.array().any());
    }
  }
  EXPECT_GT(model_.accumulate_gradients(batch_, 1.0).sum, 0.0);
}

// In many groups, which train on copies of the adapters.
TEST(RestartedModel, TrainsAsOneThatWasMadeWithTheNewAdapters) {
  Random random(8);
  const Batch batch = grouped_batch(small_config().vocab_size);
  const auto groups = [](std::uint64_t seed) {
    return mora::MoraSettings<mora::RandomSharing>{.rank = 2, .op = {.seed = seed}};
  };
  const auto fill = [](auto& model, std::uint64_t seed) {
    Random numbers(seed);
    model.visit_parameters(
        [&](std::string_view, auto& p) { mora::fill_normal(p.value, 0.1, numbers.generator()); });
  };
  const auto gradients = [&](auto& model) {
    mora::zero_gradients(model);
    (void)model.accumulate_gradients(batch, 0.5);
    std::vector<Matrix<double>> all;
    model.visit_parameters([&](std::string_view, const auto& p) { all.push_back(p.gradient); });
    return all;
  };
  auto model = random_model();
  model.attach("other", mora::LoraSettings{.rank = 1}, {.all_linear = true}, random.generator());
  mora::SplitMix64 generator(1);
  model.attach("a", groups(1), {.all_linear = true}, generator, 0.25);
  fill(model, 9);
  (void)gradients(model);
  const auto dropout = model.dropout();
  model.restart([&](const std::string&, const FrozenLinear<double>& weight) {
    return AnyAdapter<double>(MoraAdapter<double, mora::RandomSharing>(weight, groups(2)));
  });
  fill(model, 10);
  Llama<double> fresh(model.config(), model.weights());
  fresh.attach("a", groups(2), {.all_linear = true}, generator, 0.25);
  fill(fresh, 10);
  fresh.set_dropout(dropout);
  const auto found = gradients(model);
  const auto expected = gradients(fresh);
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(same_bits(found[i], expected[i]));
  EXPECT_EQ(model.names(), (std::vector<std::string>{"a", "other"}));
}

TEST_F(RestartModel, ChangesAllOfItOrNothing) {
  const auto check = [&](const auto& expect_refusal) {
    const auto before = parameters();
    const auto weights = model_.weights();
    expect_refusal();
    const auto after = parameters();
    for (std::size_t i = 0; i < after.size(); ++i) {
      EXPECT_TRUE(same_bits(after[i].second, before[i].second));
    }
    for (std::size_t i = 0; i < weights.size(); ++i) {
      EXPECT_EQ(model_.weights()[i].weight().data(), weights[i].weight().data());
    }
  };
  check([&] {
    EXPECT_TRUE(throws<ShapeError>({"down_proj"}, [&] {
      model_.restart([&](const std::string& name, const FrozenLinear<double>& weight) {
        const bool wrong = name.ends_with("layers.1.mlp.down_proj");
        mora::SplitMix64 generator(5);
        return AnyAdapter<double>(mora::LoraAdapter<double>(
            weight.in_features() + wrong, weight.out_features(), {.rank = 2}, generator));
      });
    }));
  });
  check([&] {
    EXPECT_TRUE(throws<mora::ArgumentError>({"q_proj", "additive"}, [&] {
      model_.restart([&](const std::string&, const FrozenLinear<double>& weight) {
        return AnyAdapter<double>(mora::FullAdapter<double>(weight));
      });
    }));
  });
  model_.visit_parameters([&](std::string_view name, auto& p) {
    if (name == "model.layers.1.mlp.down_proj.A") p.value(0, 0) = infinity<double>;
  });
  check([&] {
    EXPECT_TRUE(throws<NumericError>({"layers.1.mlp.down_proj"}, [&] { model_.restart(fresh); }));
  });
  model_.deactivate();
  EXPECT_TRUE(throws<StateError>({"restart", "switched on"}, [&] { model_.restart(fresh); }));
}

TEST(PruneState, KeepsTheLargestNumbersOfEachMoment) {
  Random random(6);
  auto layer = make_layer<mora::LoraLinear<double>>(20, 10);
  mora::AdamW<double> optimizer;
  layer.visit_parameters([&](std::string_view, auto& p) {
    p.gradient = random.matrix<double>(p.value.rows(), p.value.cols());
  });
  optimizer.step(layer);
  mora::AdamW<double> before = optimizer;
  EXPECT_EQ(optimizer.prune_state("A", 0.9), 1u);
  EXPECT_EQ(optimizer.prune_state("nothing", 0.9), 0u);
  const auto states = [](const mora::AdamW<double>& from) {
    std::map<std::string, mora::AdamW<double>::State> all;
    from.visit_state([&](std::string_view name, const auto& state) { all.emplace(name, state); });
    return all;
  };
  const auto old = states(before);
  const auto pruned = states(optimizer);
  EXPECT_TRUE(same_bits(pruned.at("B").moments[0], old.at("B").moments[0]));
  EXPECT_EQ(pruned.at("A").steps, 1);
  // The same entries of both, those of the largest mean squares.
  const Matrix<double>& square = old.at("A").moments[1];
  double least_kept = infinity<double>;
  double most_lost = 0.0;
  Index kept = 0;
  for (Index i = 0; i < square.size(); ++i) {
    const double size = square.data()[i];
    const bool stays = pruned.at("A").moments[1].data()[i] != 0.0;
    kept += stays;
    (stays ? least_kept : most_lost) =
        stays ? std::min(least_kept, size) : std::max(most_lost, size);
    for (std::size_t moment = 0; moment < 2; ++moment) {
      EXPECT_EQ(pruned.at("A").moments[moment].data()[i],
                stays ? old.at("A").moments[moment].data()[i] : 0.0);
    }
  }
  EXPECT_EQ(kept, 4);
  EXPECT_GE(least_kept, most_lost);
  for (const double share : {-0.1, 1.1, nan<double>}) {
    EXPECT_TRUE(
        throws<mora::ArgumentError>({"share"}, [&] { (void)optimizer.prune_state("A", share); }));
  }
  optimizer.prune_state("A", 0.0);
  EXPECT_TRUE(same_bits(states(optimizer).at("A").moments[0], pruned.at("A").moments[0]));
  optimizer.prune_state("A", 1.0);
  EXPECT_FALSE(states(optimizer).at("A").moments[0].array().any());
}

// After a restart of LoRA B is zero, and A's gradient with it.
TEST(PruneState, LeavesNoMeanToBeDividedByEpsilonAlone) {
  Random random(7);
  auto layer = make_layer<mora::LoraLinear<double>>(40, 30);
  mora::AdamW<double> optimizer({.learning_rate = 1e-3});
  for (int step = 0; step < 50; ++step) {
    layer.visit_parameters([&](std::string_view, auto& p) {
      p.gradient = random.matrix<double>(p.value.rows(), p.value.cols());
    });
    optimizer.step(layer);
  }
  optimizer.prune_state("A", 0.99);
  const Matrix<double> before = layer.adapter().a().value;
  layer.visit_parameters([](std::string_view, auto& p) { p.gradient.setZero(); });
  optimizer.step(layer);
  EXPECT_LE((layer.adapter().a().value - before).cwiseAbs().maxCoeff(), 1e-2);
}

TEST(RestartEvery, CallsAfterItsPeriodAndNotAtTheEnd) {
  std::vector<Index> numbers;
  mora::RestartEvery restarts(3, [&](Index number) { numbers.push_back(number); });
  const auto run = [&](Index from, Index steps) {
    numbers.clear();
    for (Index step = from + 1; step <= steps; ++step) {
      restarts.on_step({.state = {.step = step}, .steps = steps});
    }
    return numbers;
  };
  EXPECT_EQ(run(0, 10), (std::vector<Index>{1, 2, 3}));
  EXPECT_EQ(run(0, 9), (std::vector<Index>{1, 2}));
  EXPECT_EQ(run(4, 10), (std::vector<Index>{2, 3}));
  EXPECT_TRUE(throws<mora::ArgumentError>({"period", "0"},
                                          [] { mora::RestartEvery never(0, [](Index) {}); }));
}

}  // namespace
}  // namespace mora_tests
