// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>
#include <tuple>

#include "support/llama_fixture.hpp"

/// \file
/// Whole decoders against Hugging Face's transformers and PEFT: see fixtures/README.md.

namespace mora_tests {
namespace {

using mora::Matrix;

double mean_weight(const Batch& batch) { return 1.0 / static_cast<double>(batch.target_count()); }

/// Logits, loss and the gradients of everything that is switched on.
void expect_agrees(Llama<double> model, const Batch& batch, const Fixture& fixture,
                   const std::string& gradient_prefix) {
  for (const auto& [prefix, allowed, allowed_gradient] :
       {std::tuple("", transformers_tolerance, transformers_gradient_tolerance),
        std::tuple("wide.", wide_transformers_tolerance, wide_transformers_tolerance)}) {
    SCOPED_TRACE(*prefix ? "its casts made casts to float64" : "as it is");
    const auto expected = [&, start = std::string(prefix)](const std::string& name) {
      return fixture.tensor(start + name);
    };
    EXPECT_TRUE(near(model.logits(batch), expected("logits"), {.relative = allowed}));
    const mora::LossSum loss = model.loss(batch);
    EXPECT_EQ(loss.count, batch.target_count());
    EXPECT_TRUE(
        near(Matrix<double>::Constant(1, 1, loss.mean()), expected("loss"), {.relative = allowed}));
    mora::zero_gradients(model);
    const mora::LossSum trained = model.accumulate_gradients(batch, mean_weight(batch));
    EXPECT_EQ(trained.count, loss.count);
    EXPECT_TRUE(near<double>(trained.sum, loss.sum, loss.sum));
    for (const auto& [name, gradient] : gradients_of(model)) {
      EXPECT_TRUE(near(gradient, expected("grad." + gradient_prefix + name),
                       {.relative = allowed_gradient}))
          << name;
    }
  }
}

class LlamaReference : public testing::TestWithParam<const char*> {
 protected:
  [[nodiscard]] Llama<double> trained_in_full() const {
    Llama<double> model = model_of(fixture_);
    attach(model, "full", Kind::full, all_tensors(model.config()));
    return model;
  }
  Fixture fixture_{std::string(GetParam()) + ".safetensors"};
};
INSTANTIATE_TEST_SUITE_P(, LlamaReference, testing::Values("llama_untied", "llama_tied"),
                         [](const auto& file) { return std::string(file.param); });

TEST_P(LlamaReference, HasTheSameLogitsLossAndGradients) {
  const Llama<double> model = trained_in_full();
  EXPECT_EQ(gradients_of(model).size(), model.tensors().size());
  expect_agrees(model, batch_of(fixture_), fixture_, "");
}

TEST_P(LlamaReference, HasTheSameGradientsWhenItComputesLayersAgain) {
  Llama<double> model = trained_in_full();
  model.set_recompute(true);
  expect_agrees(model, batch_of(fixture_), fixture_, "");
}

// At the first position of a sequence nothing turns, so that float32 tables make no difference.
TEST_P(LlamaReference, HasTheSameLogitsToTheLastDigitsWhereNothingTurns) {
  const Batch batch = batch_of(fixture_);
  const Matrix<double> logits = model_of(fixture_).logits(batch);
  const Matrix<double> expected = fixture_.tensor("wide.logits");
  for (Index sequence = 0; sequence < batch.sequences(); ++sequence) {
    const Index first = batch.starts[static_cast<std::size_t>(sequence)];
    EXPECT_TRUE(near(logits.row(first), expected.row(first))) << sequence;
  }
}

TEST_P(LlamaReference, HasTheSameLossesInTenStepsOfAdamW) {
  const Batch batch = batch_of(fixture_);
  for (const auto& [name, allowed] : {std::pair("adamw_losses", transformers_tolerance),
                                      std::pair("wide.adamw_losses", wide_training_tolerance)}) {
    Llama<double> model = trained_in_full();
    mora::AdamW<double> optimizer({.learning_rate = fixture_.number("adamw.lr"),
                                   .beta1 = fixture_.number("adamw.beta1"),
                                   .beta2 = fixture_.number("adamw.beta2"),
                                   .epsilon = fixture_.number("adamw.eps"),
                                   .weight_decay = fixture_.number("adamw.weight_decay")});
    const Matrix<double> expected = fixture_.tensor(name);
    ASSERT_EQ(expected.size(), 11);
    Matrix<double> losses(1, expected.size());
    for (Index step = 0; step + 1 < losses.size(); ++step) {
      mora::zero_gradients(model);
      losses(step) = model.accumulate_gradients(batch, mean_weight(batch)).mean();
      optimizer.step(model);
    }
    losses(losses.size() - 1) = model.loss(batch).mean();
    EXPECT_LT(losses(10), losses(0) / 2);
    EXPECT_TRUE(near(losses, expected, {.relative = allowed})) << name;
  }
}

TEST_P(LlamaReference, GeneratesTheSameTokens) {
  const auto prompt = integers_of<Token>(fixture_.tensor("prompt"));
  const auto expected = integers_of<Token>(fixture_.tensor("greedy"));
  mora::SplitMix64 unused(1);
  EXPECT_EQ(mora::generate<double>(model_of(fixture_), prompt,
                                   {.max_new_tokens = std::ssize(expected)}, unused),
            expected);
}

/// The model of llama_untied with the parameters of its adapters, which attach() attached.
template <class F>
void expect_adapters_agree(const std::string& file, const std::string& prefix,
                           const F& attach_all) {
  const Fixture base("llama_untied.safetensors");
  const Fixture fixture(file);
  Llama<double> model = model_of(base);
  attach_all(model, fixture);
  model.visit_parameters([&](std::string_view name, mora::Parameter<double>& p) {
    const Matrix<double> value = fixture.tensor(prefix + std::string(name));
    ASSERT_EQ(p.value.rows(), value.rows()) << name;
    ASSERT_EQ(p.value.cols(), value.cols()) << name;
    p.value = value;
  });
  const Batch batch = batch_of(base);
  expect_agrees(model, batch, fixture, prefix);
  ASSERT_TRUE(model.merge());
  EXPECT_TRUE(
      near(model.logits(batch), fixture.tensor("logits"), {.relative = transformers_tolerance}));
}

TEST(LlamaAdapterReference, AgreesWithPeftsLora) {
  expect_adapters_agree("llama_lora.safetensors", "lora.", [](auto& model, const Fixture& fixture) {
    ASSERT_EQ(fixture.text("target_modules"), "q_proj,v_proj,down_proj");
    mora::SplitMix64 generator(1);
    const mora::LoraSettings settings{.rank = fixture.integer("r"),
                                      .alpha = fixture.number("lora_alpha")};
    ASSERT_EQ(settings.scale(), fixture.number("scaling"));
    model.attach("lora", settings, {.modules = {"q_proj", "v_proj", "down_proj"}}, generator);
    EXPECT_EQ(gradients_of(model).size(), 2u * 3u * 2u);
  });
}

TEST(LlamaAdapterReference, AgreesWithThePapersMora) {
  expect_adapters_agree("llama_mora.safetensors", "mora.", [](auto& model, const Fixture& fixture) {
    const auto attach_type = [&](const char* type, const auto& settings, const Targets& targets) {
      model.attach("mora", settings, targets);
      for (const auto& tensor : model.tensors().all()) {
        const bool adapted = targets.matches(tensor.module(), tensor.linear, tensor.layer);
        if (!adapted) continue;
        EXPECT_EQ(fixture.text("mora_type." + std::string(tensor.module())), type);
      }
    };
    const Index rank = fixture.integer("r");
    constexpr auto rounding = mora::SideRounding::reference;
    attach_type("6", mora::MoraSettings<mora::Rotation>{.rank = rank, .rounding = rounding},
                {.modules = {"q_proj", "k_proj", "v_proj", "o_proj"}});
    attach_type("1", mora::MoraSettings<mora::Sharing>{.rank = rank, .rounding = rounding},
                {.modules = {"gate_proj", "up_proj", "down_proj"}});
    EXPECT_EQ(gradients_of(model).size(), 2u * 7u);
  });
}

TEST(LlamaAdapterReference, AllFilesAreThere) { EXPECT_EQ(Fixture::names("llama_").size(), 4u); }

}  // namespace
}  // namespace mora_tests
