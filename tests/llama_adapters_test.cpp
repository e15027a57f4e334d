// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>
#include <set>

#include "support/llama.hpp"
#include "support/llama_misuse.hpp"
#include "support/not_finite.hpp"

/// \file
/// Adapters on a decoder: what they are put on, several sets of them, copies, merging.

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::Matrix;
using mora::NumericError;
using mora::StateError;
using Model = Llama<double>;
using Names = std::vector<std::string>;

constexpr Kind every_kind[] = {Kind::lora, Kind::rotation, Kind::sharing, Kind::dora, Kind::hira,
                               Kind::miss, Kind::lokr,     Kind::asylora, Kind::full};

Names parameter_names(const Model& model) {
  Names names;
  model.visit_parameters([&](std::string_view name, const auto&) { names.emplace_back(name); });
  return names;
}
Names names_with(Kind kind, const Targets& targets, const LlamaConfig& config = small_config()) {
  Model model = random_model(config);
  attach(model, "a", kind, targets);
  return parameter_names(model);
}

/// The parameter of that name.
mora::Parameter<double>& parameter(Model& model, std::string_view wanted) {
  mora::Parameter<double>* found = nullptr;
  model.visit_parameters([&](std::string_view name, mora::Parameter<double>& p) {
    if (name == wanted) found = &p;
  });
  if (!found) throw std::logic_error("no parameter " + std::string(wanted));
  return *found;
}

TEST(Targets, AreSuffixesAfterADot) {
  EXPECT_EQ(names_with(Kind::rotation, {.modules = {"q_proj"}}),
            (Names{"model.layers.0.self_attn.q_proj.M", "model.layers.1.self_attn.q_proj.M"}));
  EXPECT_EQ(names_with(Kind::rotation, {.modules = {"layers.1.self_attn.q_proj"}}),
            Names{"model.layers.1.self_attn.q_proj.M"});
  EXPECT_EQ(names_with(Kind::rotation, {.modules = {"model.layers.1.self_attn.q_proj"}}),
            Names{"model.layers.1.self_attn.q_proj.M"});
  EXPECT_EQ(names_with(Kind::full, {.modules = {"model.norm", "lm_head"}}),
            (Names{"model.norm.weight", "lm_head.weight"}));
  for (const char* part : {"proj", "_proj", "attn.q_proj", ".q_proj", "layers.0", "q_proj.weight",
                           "q_proj ", "", "model", "Q_PROJ"}) {
    EXPECT_TRUE(throws<ArgumentError>({"no module matches", "model.embed_tokens", "q_proj"}, [&] {
      (void)names_with(Kind::rotation, {.modules = {part}});
    })) << part;
  }
}

TEST(Targets, AreAllLinearLayersButTheHead) {
  const Names names = names_with(Kind::rotation, {.all_linear = true});
  EXPECT_EQ(names.size(), 14u);
  for (const std::string& name : names) EXPECT_NE(name.find("_proj.M"), std::string::npos) << name;
  EXPECT_EQ(names_with(Kind::rotation, {.modules = {"lm_head"}, .all_linear = true}).size(), 15u);
}

TEST(Targets, LeaveOutWhatIsExcluded) {
  EXPECT_EQ(names_with(Kind::rotation,
                       {.modules = {"q_proj", "k_proj"}, .exclude = {"layers.0.self_attn.q_proj"}}),
            (Names{"model.layers.0.self_attn.k_proj.M", "model.layers.1.self_attn.q_proj.M",
                   "model.layers.1.self_attn.k_proj.M"}));
  EXPECT_EQ(names_with(Kind::rotation, {.all_linear = true, .exclude = {"mlp.up_proj"}}).size(),
            12u);
  EXPECT_EQ(names_with(Kind::rotation, {.all_linear = true, .exclude = {"proj"}}).size(), 14u);
  EXPECT_THROW(names_with(Kind::rotation, {.modules = {"q_proj"}, .exclude = {"q_proj"}}),
               ArgumentError);
}

TEST(Targets, AreOnlyInTheLayersThatAreNamed) {
  EXPECT_EQ(names_with(Kind::rotation, {.modules = {"up_proj"}, .layers = {1}}),
            Names{"model.layers.1.mlp.up_proj.M"});
  EXPECT_EQ(names_with(Kind::rotation, {.all_linear = true, .layers = {0}}).size(), 7u);
  EXPECT_THROW(names_with(Kind::rotation, {.modules = {"up_proj"}, .layers = {2}}), ArgumentError);
  EXPECT_THROW(names_with(Kind::full, {.modules = {"model.norm"}, .layers = {0}}), ArgumentError);
}

TEST(LlamaAdapters, HaveUniqueNamesInAnOrderThatStays) {
  for (const bool tied : {false, true}) {
    Model model = random_model(small_config(tied));
    attach(model, "a", Kind::lora, {.modules = {"down_proj", "q_proj"}});
    attach(model, "a", Kind::rotation, {.modules = {"k_proj"}});
    attach(model, "a", Kind::full, {.modules = {"v_proj", "model.norm", "embed_tokens"}});
    const Names names = parameter_names(model);
    EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), names.size());
    EXPECT_EQ(names,
              (Names{"model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.A",
                     "model.layers.0.self_attn.q_proj.B", "model.layers.0.self_attn.k_proj.M",
                     "model.layers.0.self_attn.v_proj.weight", "model.layers.0.mlp.down_proj.A",
                     "model.layers.0.mlp.down_proj.B", "model.layers.1.self_attn.q_proj.A",
                     "model.layers.1.self_attn.q_proj.B", "model.layers.1.self_attn.k_proj.M",
                     "model.layers.1.self_attn.v_proj.weight", "model.layers.1.mlp.down_proj.A",
                     "model.layers.1.mlp.down_proj.B", "model.norm.weight"}));
    (void)model.accumulate_gradients(random_batch(), 1.0);
    EXPECT_EQ(parameter_names(model), names);
    EXPECT_EQ(parameter_names(Model(model)), names);
    Names again;
    model.visit_parameters([&](std::string_view name, auto&) { again.emplace_back(name); });
    EXPECT_EQ(again, names);
  }
}

TEST(LlamaAdapters, ChangeNoBitBeforeTheyAreTrained) {
  for (const bool tied : {false, true}) {
    const Model plain = random_model(small_config(tied));
    const Batch batch = random_batch();
    const Matrix<double> logits = plain.logits(batch);
    for (const Kind kind : every_kind) {
      Model model = plain;
      attach(model, "a", kind, {.all_linear = true});
      if (!tied) attach(model, "a", kind, {.modules = {"lm_head"}});
      EXPECT_TRUE(same_bits(model.logits(batch), logits));
      EXPECT_EQ(model.loss(batch).sum, plain.loss(batch).sum);
      ASSERT_TRUE(model.merge());
      EXPECT_TRUE(same_bits(model.logits(batch), logits));
    }
    Model model = plain;
    attach(model, "a", Kind::full, all_tensors(model.config()));
    EXPECT_TRUE(same_bits(model.logits(batch), logits));
  }
}

TEST(LlamaAdapters, AreSwitchedOnOneSetAtATime) {
  Model model = random_model();
  const Batch batch = random_batch();
  const Matrix<double> plain = model.logits(batch);
  EXPECT_TRUE(model.active().empty());
  EXPECT_TRUE(model.names().empty());
  attach(model, "one", Kind::lora, {.all_linear = true});
  disturb(model, 0.3, 1);
  const Matrix<double> one = model.logits(batch);
  attach(model, "two", Kind::sharing, {.modules = {"q_proj"}});
  EXPECT_EQ(model.active(), "two");
  EXPECT_TRUE(same_bits(model.logits(batch), plain));
  disturb(model, 0.3, 2);
  const Matrix<double> two = model.logits(batch);
  EXPECT_FALSE(near(one, plain));
  EXPECT_FALSE(near(two, plain));
  EXPECT_FALSE(near(two, one));
  EXPECT_EQ(model.names(), (Names{"one", "two"}));
  model.activate("one");
  EXPECT_TRUE(same_bits(model.logits(batch), one));
  (void)model.accumulate_gradients(batch, 1.0);
  EXPECT_EQ(parameter_names(model).size(), 28u);
  model.activate("two");
  EXPECT_EQ(parameter_names(model).size(), 2u);
  for (const auto& [name, gradient] : gradients_of(model)) EXPECT_EQ(gradient.size(), 0) << name;
  EXPECT_TRUE(same_bits(model.logits(batch), two));
  model.deactivate();
  EXPECT_TRUE(model.active().empty());
  EXPECT_TRUE(same_bits(model.logits(batch), plain));
  EXPECT_TRUE(parameter_names(model).empty());
  EXPECT_FALSE(model.merge());
  EXPECT_TRUE(throws<StateError>({"accumulate_gradients", "no adapter is switched on"},
                                 [&] { (void)model.accumulate_gradients(batch, 1.0); }));
  model.activate("one");
  model.detach("two");
  EXPECT_EQ(model.active(), "one");
  EXPECT_TRUE(same_bits(model.logits(batch), one));
  model.detach(model.active());
  EXPECT_TRUE(model.active().empty());
  EXPECT_TRUE(same_bits(model.logits(batch), plain));
}

TEST(LlamaAdapters, AreFoundByName) {
  Model model = random_model();
  attach(model, "one", Kind::lora, {.modules = {"q_proj"}, .layers = {1}});
  attach(model, "two", Kind::rotation, {.modules = {"q_proj"}});
  const auto* const adapter = model.adapter("one", "model.layers.1.self_attn.q_proj");
  ASSERT_NE(adapter, nullptr);
  ASSERT_NE(adapter->get_if<mora::LoraAdapter<double>>(), nullptr);
  EXPECT_EQ(adapter->get_if<mora::LoraAdapter<double>>()->settings().rank, 2);
  EXPECT_EQ(adapter->get_if<mora::MoraAdapter<double>>(), nullptr);
  EXPECT_EQ(model.adapter("one", "model.layers.0.self_attn.q_proj"), nullptr);
  EXPECT_NE(model.adapter("two", "model.layers.0.self_attn.q_proj"), nullptr);
  EXPECT_TRUE(throws<ArgumentError>({"'three'"}, [&] { (void)model.adapter("three", "lm_head"); }));
  EXPECT_TRUE(
      throws<ArgumentError>({"'layers.0'"}, [&] { (void)model.adapter("one", "layers.0"); }));
}

TEST(LlamaAdapters, TrainNormsAndEmbeddingsAsCopies) {
  Model model = random_model();
  const auto weights = model.weights();
  const Names names = {"model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
                       "model.layers.0.post_attention_layernorm.weight", "model.norm.weight"};
  attach(model, "a", Kind::full,
         {.modules = {"embed_tokens", "model.layers.0.input_layernorm",
                      "layers.0.post_attention_layernorm", "model.norm"}});
  ASSERT_EQ(parameter_names(model), names);
  const Batch batch = random_batch();
  const Matrix<double> plain = model.logits(batch);
  for (const std::string& name : names) {
    Model changed = model;
    auto& p = parameter(changed, name);
    p.value.array() += 0.25;
    EXPECT_FALSE(near(changed.logits(batch), plain)) << name;
  }
  for (std::size_t i = 0; i < weights.size(); ++i) {
    EXPECT_EQ(model.weights()[i].weight().data(), weights[i].weight().data());
  }
}

TEST(LlamaAdapters, HaveATiedHeadFollowTheEmbedding) {
  const auto config = small_config(true);
  const Batch batch = random_batch();
  Model model = random_model(config);
  attach(model, "a", Kind::full, {.modules = {"embed_tokens"}});
  auto weights = random_weights<double>(config);
  disturb(model);
  weights[0] = Matrix<double>(parameter(model, "model.embed_tokens.weight").value);
  const Model expected(config, weights);
  EXPECT_TRUE(same_bits(model.logits(batch), expected.logits(batch)));
  EXPECT_EQ(model.loss(batch).sum, expected.loss(batch).sum);
  ASSERT_TRUE(model.merge());
  EXPECT_TRUE(same_bits(model.logits(batch), expected.logits(batch)));
}

TEST(LlamaAdapters, AreRefusedOnTheHeadOfATiedModel) {
  for (const Kind kind : every_kind) {
    Model model = random_model(small_config(true));
    for (const Names& modules : {Names{"lm_head"}, Names{"q_proj", "lm_head"}}) {
      EXPECT_TRUE(refuses<ArgumentError>(model,
                                         {"lm_head", "tie_word_embeddings", "model.embed_tokens"},
                                         [&] { attach(model, "a", kind, {.modules = modules}); }));
    }
    attach(model, "a", kind, {.modules = {"lm_head", "q_proj"}, .exclude = {"lm_head"}});
    attach(model, "b", kind, {.all_linear = true});
  }
}

TEST(LlamaAdapters, AreRefusedWhereTheyDoNotFit) {
  Model model = random_model();
  attach(model, "a", Kind::lora, {.modules = {"q_proj"}, .layers = {0}});
  for (const Kind kind : every_kind) {
    EXPECT_TRUE(refuses<ArgumentError>(model, {"'a'", "model.layers.0.self_attn.q_proj", "already"},
                                       [&] { attach(model, "a", kind, {.all_linear = true}); }));
    const bool full = kind == Kind::full;
    for (const double dropout : {-0.1, 1.0, 1.5, nan<double>}) {
      EXPECT_TRUE(refuses<ArgumentError>(model, {"dropout", "0 <= dropout < 1"}, [&] {
        attach(model, "b", kind, {.all_linear = true}, dropout);
      }));
    }
    if (full) continue;
    for (const char* module : {"model.norm", "embed_tokens", "input_layernorm"}) {
      EXPECT_TRUE(refuses<ArgumentError>(model, {module, "no linear layer", "FullSettings"}, [&] {
        attach(model, "b", kind, {.modules = {module, "q_proj"}});
      }));
    }
  }
  for (const char* module : {"q_proj", "model.norm"}) {
    EXPECT_TRUE(refuses<ArgumentError>(model, {"dropout", module}, [&] {
      attach(model, "b", Kind::full, {.modules = {module}}, 0.1);
    }));
  }
  EXPECT_TRUE(refuses<ArgumentError>(model, {"rank"}, [&] {
    model.attach("b", mora::MoraSettings<>{.rank = 0}, {.all_linear = true});
  }));
  EXPECT_TRUE(refuses<ArgumentError>(model, {"'b'"}, [&] { model.activate("b"); }));
  EXPECT_TRUE(refuses<ArgumentError>(model, {"'b'"}, [&] { model.detach("b"); }));
}

TEST(LlamaAdapters, WithGradientsOfAnotherShapeAreRefused) {
  for (const Kind kind : every_kind) {
    Model model = random_model();
    attach(model, "a", kind, {.modules = {"o_proj"}, .layers = {1}});
    model.visit_parameters([&](std::string_view, auto& p) { p.gradient.setOnes(1, 1); });
    EXPECT_TRUE(
        refuses<mora::ShapeError>(model, {"gradient of ", "layers.1.self_attn.o_proj", "found 1x1"},
                                  [&] { (void)model.accumulate_gradients(random_batch(), 1.0); }));
  }
}

// An empty name would mean that all are off.
TEST(LlamaAdapters, AreRefusedWithoutAName) {
  Model model = random_model();
  EXPECT_TRUE(refuses<ArgumentError>(model, {"name", "empty"},
                                     [&] { attach(model, "", Kind::lora, {.all_linear = true}); }));
}

// A LLaMA has none that it could replace.
TEST(LlamaAdapters, WithABiasAreRefused) {
  Model model = random_model();
  const Index width = model.config().hidden_size;
  const auto refused = [&](const char* module, Index rows) {
    const mora::FrozenLinear<double> biased(Matrix<double>(Matrix<double>::Ones(rows, width)),
                                            mora::RowVector<double>::Ones(rows));
    EXPECT_TRUE(refuses<mora::ShapeError>(model, {module, "bias", "expected 0", "found "}, [&] {
      model.attach("a", {{module, mora::AnyAdapter<double>(mora::FullAdapter<double>(biased))}});
    }));
  };
  refused("model.layers.1.self_attn.o_proj", width);
  refused("model.norm", 1);
}

TEST(LlamaAdapters, OfAnotherShapeAreRefused) {
  for (const Kind kind : every_kind) {
    Model model = random_model();
    attach(model, "a", kind, {.modules = {"o_proj"}, .layers = {1}});
    model.visit_parameters(
        [&](std::string_view, auto& p) { p.value.setOnes(p.value.rows() + 1, p.value.cols()); });
    const Batch batch = random_batch();
    const auto refused = [&](const auto& call) {
      EXPECT_TRUE(
          throws<mora::ShapeError>({"model.layers.1.self_attn.o_proj", "expected", "found"}, call));
    };
    refused([&] { (void)model.logits(batch); });
    refused([&] { (void)model.accumulate_gradients(batch, 1.0); });
    refused([&] { model.merge(); });
  }
  Model model = random_model();
  attach(model, "a", Kind::full, {.modules = {"model.norm"}});
  parameter(model, "model.norm.weight").value.setOnes(1, 9);
  EXPECT_TRUE(throws<mora::ShapeError>({"model.norm", "expected 1 x 10", "found 1 x 9"},
                                       [&] { (void)model.logits(random_batch()); }));
}

TEST(LlamaModel, HasIndependentCopiesOverSharedWeights) {
  Model model = random_model();
  attach(model, "a", Kind::rotation, {.all_linear = true});
  disturb(model);
  const Batch batch = random_batch();
  const Bits before = bits_of(model);
  Model copy = model;
  EXPECT_EQ(bits_of(copy), before);
  for (std::size_t i = 0; i < model.weights().size(); ++i) {
    EXPECT_EQ(copy.weights()[i].weight().data(), model.weights()[i].weight().data());
  }
  disturb(copy);
  (void)copy.accumulate_gradients(batch, 1.0);
  EXPECT_NE(bits_of(copy), before);
  EXPECT_EQ(bits_of(model), before);
  copy = model;
  EXPECT_EQ(bits_of(copy), before);
  ASSERT_TRUE(copy.merge());
  const Model merged_copy = copy;
  EXPECT_TRUE(merged_copy.merged());
  EXPECT_EQ(bits_of(merged_copy), bits_of(copy));
  EXPECT_EQ(bits_of(model), before);
}

TEST(LlamaModel, ThatWasMovedFromIsRefused) {
  Model model = random_model();
  attach(model, "a", Kind::rotation, {.all_linear = true});
  const Batch batch = random_batch();
  Model moved = std::move(model);
  (void)moved.accumulate_gradients(batch, 1.0);
  mora::LlamaCache<double> cache = moved.cache();
  mora::RowVector<double> logits;
  const auto refused = [](const auto& call) {
    EXPECT_TRUE(throws<StateError>({"moved from"}, call));
  };
  refused([&] { (void)model.logits(batch); });
  refused([&] { (void)model.loss(batch); });
  refused([&] { model.next_logits(Tokens{1}, cache, logits); });
  EXPECT_THROW((void)model.accumulate_gradients(batch, 1.0), StateError);
  EXPECT_THROW(attach(model, "b", Kind::lora, {.all_linear = true}), mora::Error);
  EXPECT_FALSE(model.merge());
  model = moved;
  EXPECT_EQ(bits_of(model), bits_of(moved));
}

class LlamaMerging : public testing::TestWithParam<Kind> {
 protected:
  static Model adapted(bool tied = false) {
    Model model = random_model(small_config(tied));
    attach(model, "a", GetParam(), {.all_linear = true});
    attach(model, "a", Kind::full, {.modules = {"model.norm", "input_layernorm", "embed_tokens"}});
    if (!tied) attach(model, "a", GetParam(), {.modules = {"lm_head"}});
    disturb(model);
    return model;
  }
};
std::string name_of(const testing::TestParamInfo<Kind>& kind) {
  constexpr const char* names[] = {"Lora", "Rotation", "Sharing", "Dora", "Hira",
                                   "Miss", "Lokr",     "AsyLora", "Full"};
  return names[static_cast<int>(kind.param)];
}
INSTANTIATE_TEST_SUITE_P(, LlamaMerging, testing::ValuesIn(every_kind), name_of);

TEST_P(LlamaMerging, GivesTheLogitsOfBoth) {
  for (const bool tied : {false, true}) {
    Model model = adapted(tied);
    const Batch batch = random_batch();
    const Matrix<double> logits = model.logits(batch);
    const double loss = model.loss(batch).sum;
    const auto frozen = model.weights();
    std::vector<Matrix<double>> numbers;
    for (const auto& weight : frozen) numbers.emplace_back(weight.weight());
    const Bits before = bits_of(model);
    ASSERT_TRUE(model.merge());
    EXPECT_TRUE(model.merged());
    EXPECT_TRUE(near(model.logits(batch), logits));
    EXPECT_TRUE(near<double>(model.loss(batch).sum, loss, loss));
    const Bits merged = bits_of(model);
    EXPECT_FALSE(model.merge());
    EXPECT_EQ(bits_of(model), merged);
    ASSERT_TRUE(model.unmerge());
    EXPECT_FALSE(model.merged());
    EXPECT_FALSE(model.unmerge());
    EXPECT_EQ(bits_of(model), before);
    for (std::size_t i = 0; i < frozen.size(); ++i) {
      EXPECT_EQ(model.weights()[i].weight().data(), frozen[i].weight().data());
      EXPECT_TRUE(same_bits(frozen[i].weight(), numbers[i]));
    }
  }
}

TEST_P(LlamaMerging, LeavesModelsOverTheSameWeightsAlone) {
  Model model = adapted();
  const Model other(model.config(), model.weights());
  const Bits before = bits_of(other);
  ASSERT_TRUE(model.merge());
  EXPECT_EQ(bits_of(other), before);
}

TEST_P(LlamaMerging, ForbidsWhatWouldNotFit) {
  Model model = adapted();
  attach(model, "b", Kind::sharing, {.modules = {"q_proj"}});
  model.activate("a");
  ASSERT_TRUE(model.merge());
  const auto refused = [&](const char* call, const auto& f) {
    EXPECT_TRUE(refuses<StateError>(model, {call, "merged"}, f));
  };
  refused("attach", [&] { attach(model, "c", Kind::lora, {.all_linear = true}); });
  refused("attach", [&] { attach(model, "b", Kind::lora, {.modules = {"k_proj"}}); });
  refused("detach", [&] { model.detach("a"); });
  refused("detach", [&] { model.detach("b"); });
  refused("activate", [&] { model.activate("b"); });
  refused("deactivate", [&] { model.deactivate(); });
  refused("visit_parameters", [&] { disturb(model); });
  refused("accumulate_gradients", [&] { (void)model.accumulate_gradients(random_batch(), 1.0); });
}

TEST_P(LlamaMerging, IsAllOrNothingWhenANumberIsNotFinite) {
  const Names names = parameter_names(adapted());
  for (const double bad : {nan<double>, infinity<double>}) {
    for (const std::string& name :
         {names.front(), names[names.size() / 2], names.back(), std::string("model.norm.weight"),
          std::string("model.layers.1.input_layernorm.weight")}) {
      Model model = adapted();
      parameter(model, name).value(0, 0) = bad;
      const std::string module = name.substr(0, name.rfind('.'));
      EXPECT_TRUE(refuses<NumericError>(model, {module + ":", "merge"}, [&] { model.merge(); }))
          << name;
      EXPECT_FALSE(model.merged());
    }
  }
}

}  // namespace
}  // namespace mora_tests
