// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <iterator>
#include <vector>

#include <mora/mora.hpp>

#include "support/llama.hpp"

/// \file
/// Gradients of a whole decoder against finite differences, and what training passes have in common
/// whatever trains.

namespace mora_tests {
namespace {

using mora::Matrix;
using Model = Llama<double>;

/// A way to train a model.
struct Way {
  const char* name;
  bool tied = false;
  bool recompute = false;
  void (*attach)(Model&) = nullptr;
  bool drops = false;  ///< Some adapter has dropout.

  [[nodiscard]] Model model() const {
    Model made = random_model(small_config(tied));
    attach(made);
    disturb(made);
    made.set_recompute(recompute);
    made.set_dropout({.seed = 7, .passes = 3});
    return made;
  }
};
void PrintTo(const Way& way, std::ostream* stream) { *stream << way.name; }

void everything(Model& model) { attach(model, "a", Kind::full, all_tensors(model.config())); }
template <Kind kind>
void on_all_linear(Model& model) {
  attach(model, "a", kind, {.all_linear = true});
}
template <Kind kind>
void with_dropout(Model& model) {
  attach(model, "a", kind, {.modules = {"lm_head"}, .all_linear = true}, 0.3);
}
void in_layers_with_dropout(Model& model) {
  attach(model, "a", Kind::lora, {.all_linear = true}, 0.3);
}
/// Kinds of adapters beside each other, on some modules of some layers, with norms.
void mixed(Model& model) {
  attach(model, "a", Kind::lora, {.modules = {"o_proj", "gate_proj"}, .layers = {0}});
  attach(model, "a", Kind::rotation, {.modules = {"k_proj", "down_proj"}, .layers = {1}}, 0.2);
  attach(model, "a", Kind::full,
         {.modules = {"self_attn.v_proj", "input_layernorm"}, .layers = {1}});
  attach(model, "a", Kind::sharing, {.modules = {"up_proj"}});
}
void last_layer(Model& model) {
  attach(model, "a", Kind::rotation, {.modules = {"up_proj"}, .layers = {1}});
}
void head(Model& model) { attach(model, "a", Kind::lora, {.modules = {"lm_head"}}, 0.4); }
void norms(Model& model) {
  attach(model, "a", Kind::full,
         {.modules = {"model.norm", "post_attention_layernorm", "input_layernorm"}});
}
void embedding(Model& model) { attach(model, "a", Kind::full, {.modules = {"embed_tokens"}}); }
void final_norm(Model& model) { attach(model, "a", Kind::full, {.modules = {"model.norm"}}); }

constexpr Way ways[] = {
    {"Everything", false, false, everything},
    {"EverythingTied", true, false, everything},
    {"EverythingRecomputed", false, true, everything},
    {"Lora", false, false, on_all_linear<Kind::lora>},
    {"Rotation", false, false, on_all_linear<Kind::rotation>},
    {"Sharing", false, false, on_all_linear<Kind::sharing>},
    {"Hira", false, false, on_all_linear<Kind::hira>},
    {"MissRecomputed", false, true, on_all_linear<Kind::miss>},
    {"Lokr", false, false, on_all_linear<Kind::lokr>},
    {"LokrWithDropout", false, false, with_dropout<Kind::lokr>, true},
    {"AsyLoraWithDropout", false, false, with_dropout<Kind::asylora>, true},
    {"LoraWithDropout", false, false, with_dropout<Kind::lora>, true},
    {"LoraInLayersWithDropout", false, false, in_layers_with_dropout, true},
    {"RotationWithDropout", false, false, with_dropout<Kind::rotation>, true},
    {"LoraWithDropoutRecomputed", false, true, with_dropout<Kind::lora>, true},
    {"Mixed", false, false, mixed, true},
    {"MixedRecomputed", true, true, mixed, true},
    {"LastLayer", false, false, last_layer},
    {"Head", false, false, head, true},
    {"Norms", false, false, norms},
    {"FinalNorm", true, false, final_norm},
    {"Embedding", false, false, embedding},
    {"EmbeddingTied", true, false, embedding},
};

class LlamaGradients : public testing::TestWithParam<Way> {};
INSTANTIATE_TEST_SUITE_P(, LlamaGradients, testing::ValuesIn(ways),
                         [](const auto& way) { return std::string(way.param.name); });

std::vector<Way> ways_without_dropout() {
  std::vector<Way> some;
  std::copy_if(std::begin(ways), std::end(ways), std::back_inserter(some),
               [](const Way& way) { return !way.drops; });
  return some;
}
class LlamaGradientsWithoutDropout : public LlamaGradients {};
INSTANTIATE_TEST_SUITE_P(, LlamaGradientsWithoutDropout, testing::ValuesIn(ways_without_dropout()),
                         [](const auto& way) { return std::string(way.param.name); });

/// The loss in training, with the dropout of the model's next pass; without a trace in the model.
double training_loss(Model& model, const Batch& batch) {
  const mora::DropoutStream stream = model.dropout();
  const double loss = model.accumulate_gradients(batch, 0.0).sum;
  model.set_dropout(stream);
  return loss;
}

TEST_P(LlamaGradients, AreThoseOfFiniteDifferences) {
  Model model = GetParam().model();
  const Batch batch = random_batch({4, 5, 1});
  // Without dropout inference has the same loss, for less.
  const bool drops = GetParam().drops;
  EXPECT_EQ(training_loss(model, batch) != model.loss(batch).sum, drops);
  const auto loss = [&] { return drops ? training_loss(model, batch) : model.loss(batch).sum; };
  const double weight = 0.25;
  const Gradients<double> gradients = gradients_of(model, batch, weight);
  ASSERT_FALSE(gradients.empty());
  model.visit_parameters([&](std::string_view name, mora::Parameter<double>& p) {
    Matrix<double> expected(p.value.rows(), p.value.cols());
    for (Index i = 0; i < p.value.size(); ++i) {
      double& number = p.value.data()[i];
      const double middle = number;
      const auto difference = [&](double step) {
        number = middle + step;
        const double above = loss();
        number = middle - step;
        return (above - loss()) / (2 * step);
      };
      const double once = difference(model_difference_step);
      const double twice = difference(2 * model_difference_step);
      number = middle;
      expected.data()[i] = weight * (4 * once - twice) / 3;
    }
    EXPECT_GT(expected.norm(), 1e-4) << name;  // The test can see it.
    EXPECT_TRUE(
        near(gradients.at(std::string(name)), expected, {.relative = model_difference_tolerance}))
        << name;
  });
}

TEST_P(LlamaGradients, AddUpAndScaleWithTheWeight) {
  Model model = GetParam().model();
  const Batch batch = random_batch();
  const Gradients<double> once = gradients_of(model, batch);
  const mora::DropoutStream stream = model.dropout();
  (void)model.accumulate_gradients(batch, 0.75);
  EXPECT_EQ(model.dropout().passes, stream.passes + 1);
  model.set_dropout(stream);
  (void)model.accumulate_gradients(batch, 0.25);
  expect_near(gradients_of(model), once);
}

// What one sequence gives does not depend on those beside it. (What is dropped does: a place in
// the batch is part of it.)
TEST_P(LlamaGradientsWithoutDropout, OfABatchAreThoseOfItsSequencesOneByOne) {
  for (const Batch& batch : {random_batch(), grouped_batch()}) {
    Model model = GetParam().model();
    mora::LossSum sum;
    for (Index s = 0; s < batch.sequences(); ++s) {
      sum += model.accumulate_gradients(sequence_of(batch, s), 1.0);
    }
    const Gradients<double> one_by_one = gradients_of(model);
    EXPECT_EQ(sum.count, batch.target_count());
    EXPECT_TRUE(near<double>(model.loss(batch).sum, sum.sum, sum.sum));
    expect_near(gradients_of(model, batch), one_by_one);
  }
}

// Along one direction through all parameters, as a check of what groups drop.
TEST_P(LlamaGradients, OfGroupsAreTheSlopeOfTheirLoss) {
  Model model = GetParam().model();
  const Batch batch = grouped_batch();
  const double weight = 1e-3;
  const Gradients<double> gradients = gradients_of(model, batch, weight);
  model.set_dropout({.seed = 7, .passes = 3});
  Random random(11);
  std::map<std::string, Matrix<double>> direction;
  double slope = 0.0;
  for (const auto& [name, gradient] : gradients) {
    direction[name] = random.matrix<double>(gradient.rows(), gradient.cols());
    slope += (direction[name].array() * gradient.array()).sum();
  }
  const auto loss_at = [&](double step) {
    Model moved = model;
    moved.visit_parameters([&](std::string_view name, mora::Parameter<double>& p) {
      p.value += step * direction.at(std::string(name));
    });
    return weight * training_loss(moved, batch);
  };
  const double h = 1e-5;
  const double difference =
      (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h);
  EXPECT_TRUE(near(Matrix<double>::Constant(1, 1, difference),
                   Matrix<double>::Constant(1, 1, slope), {.relative = difference_tolerance}));
}

// Where threads take groups too.
TEST_P(LlamaGradients, DependOnThePassWhereNumbersAreDropped) {
  for (const Batch& batch : {random_batch(), grouped_batch()}) {
    Model model = GetParam().model();
    model.set_dropout({.seed = 7, .passes = 3});
    const double first = training_loss(model, batch);
    model.set_dropout({.seed = 7, .passes = 4});
    EXPECT_EQ(training_loss(model, batch) != first, GetParam().drops);
  }
}

TEST_P(LlamaGradients, AreZeroWithoutTargets) {
  Model model = GetParam().model();
  Batch batch = random_batch();
  batch.targets.assign(batch.targets.size(), mora::ignored);
  for (const Batch& without : {batch, Batch()}) {
    const mora::LossSum loss = model.accumulate_gradients(without, 1.0);
    EXPECT_EQ(loss.count, 0);
    EXPECT_EQ(loss.sum, 0.0);
    for (const auto& [name, gradient] : gradients_of(model)) {
      EXPECT_TRUE((gradient.array() == 0.0).all()) << name;
    }
  }
}

TEST_P(LlamaGradients, AreTheSameBitsWhenLayersAreComputedAgain) {
  Model model = GetParam().model();
  for (const Batch& batch : {random_batch(), grouped_batch()}) {
    model.set_recompute(false);
    const Gradients<double> kept = gradients_of(model, batch);
    model.set_recompute(true);
    expect_same_bits(gradients_of(model, batch), kept);
  }
}

// Memory that was used for another batch leaves no trace.
TEST_P(LlamaGradients, AreTheSameBitsAfterOtherBatches) {
  Model model = GetParam().model();
  const Batch batch = random_batch();
  const Gradients<double> expected = gradients_of(model, batch);
  const mora::DropoutStream stream = model.dropout();
  for (const auto& lengths : std::vector<std::vector<Index>>{{9, 12}, {1}, {}}) {
    (void)model.accumulate_gradients(random_batch(lengths), 1.0);
  }
  mora::zero_gradients(model);
  model.set_dropout(stream);
  (void)model.accumulate_gradients(batch, 1.0);
  expect_same_bits(gradients_of(model), expected);
}

TEST(LlamaPositions, WithoutATargetContributeNothing) {
  Model model = random_model();
  everything(model);
  const Batch batch = random_batch();
  Gradients<double> sum;
  mora::LossSum loss;
  for (std::size_t i = 0; i < batch.targets.size(); ++i) {
    Batch one = batch;
    one.targets.assign(one.targets.size(), mora::ignored);
    one.targets[i] = batch.targets[i];
    loss += model.loss(one);
    for (const auto& [name, gradient] : gradients_of(model, one)) {
      auto& total = sum[name];
      if (total.size() == 0) total.setZero(gradient.rows(), gradient.cols());
      total += gradient;
    }
  }
  EXPECT_EQ(loss.count, batch.target_count());
  EXPECT_TRUE(near<double>(model.loss(batch).sum, loss.sum, loss.sum));
  expect_near(gradients_of(model, batch), sum);

  Batch more = batch;
  const Tokens prompt = {1, 2, 3, 4};
  more.add(prompt, Tokens(prompt.size(), mora::ignored));
  EXPECT_EQ(model.loss(more).sum, model.loss(batch).sum);
  expect_near(gradients_of(model, more), gradients_of(model, batch));
}

TEST(LlamaDropout, IsAFunctionOfSeedAndPass) {
  Model model = random_model();
  with_dropout<Kind::lora>(model);
  disturb(model);
  const Batch batch = random_batch();
  const auto loss_at = [&](std::uint64_t seed, std::uint64_t passes) {
    model.set_dropout({.seed = seed, .passes = passes});
    return training_loss(model, batch);
  };
  const double loss = loss_at(1, 5);
  EXPECT_EQ(loss_at(1, 5), loss);
  EXPECT_NE(loss_at(1, 6), loss);
  EXPECT_NE(loss_at(2, 5), loss);
  EXPECT_NE(loss_at(5, 1), loss);
  EXPECT_NE(model.loss(batch).sum, loss);  // Inference drops nothing.
  Model copy = model;
  EXPECT_EQ(training_loss(copy, batch), training_loss(model, batch));
}

TEST(LlamaDropout, KeepsNumbersTimesOneOverTheShareThatIsKept) {
  constexpr double p = 0.25;
  const mora::detail::DropoutMask mask({.seed = 3, .passes = 1}, 2, p);
  const Matrix<double> x = Matrix<double>::Constant(200, 300, 1.5);
  Matrix<double> y(200, 300);
  mask.apply<false>(0, mora::detail::map_of(x), mora::detail::map_of(y));
  const auto kept = (y.array() != 0.0).count();
  EXPECT_EQ((y.array() == 1.5 * (1.0 / (1.0 - p))).count(), kept);
  const auto all = static_cast<double>(x.size());
  EXPECT_NEAR(static_cast<double>(kept), (1.0 - p) * all, 5.0 * std::sqrt(p * (1.0 - p) * all));
  Matrix<double> sum = x;
  mask.apply<true>(0, mora::detail::map_of(x), mora::detail::map_of(sum));
  EXPECT_EQ(sum, x + y);
}

// One token many times over: rows of the batch lose other numbers, on average the right share.
TEST(LlamaDropout, KeepsTheExpectedOutput) {
  LlamaConfig config = small_config();
  config.num_hidden_layers = 1;
  Model model = random_model(config);
  attach(model, "a", Kind::lora, {.modules = {"lm_head"}}, 0.25);
  disturb(model, 0.05);
  const Batch one = random_batch({1}, config.vocab_size);
  Batch many;
  for (int i = 0; i < 4000; ++i) many.add(one.tokens, Tokens{3});
  const double kept = model.loss(many).mean();
  const double dropped = training_loss(model, many) / 4000.0;
  EXPECT_NE(dropped, kept);
  EXPECT_NEAR(dropped, kept, 0.01 * std::abs(kept));
}

// Rows of the head are treated by tiles; each tile drops numbers of its own.
TEST(LlamaDropout, DiffersBetweenTilesOfLogits) {
  LlamaConfig config = small_config();
  config.vocab_size = Index{1} << 17;  // 64 rows a tile
  Model model = random_model(config);
  attach(model, "a", Kind::lora, {.modules = {"lm_head"}}, 0.5);
  disturb(model);
  Batch one_tile;
  for (int i = 0; i < 64; ++i) one_tile.add(Tokens{5}, Tokens{3});
  Batch two_tiles = one_tile;
  for (int i = 0; i < 64; ++i) two_tiles.add(Tokens{5}, Tokens{3});
  const double once = training_loss(model, one_tile);
  const double twice = training_loss(model, two_tiles);
  EXPECT_GT(std::abs(twice - 2 * once), 1e-6 * twice);
}

/// A user's own adapter that adds nothing, and counts what is asked of it.
struct CountingSettings {
  struct Counts {
    int backward = 0;
    int with_input_gradient = 0;
  };
  Counts* counts = nullptr;
  void validate() const {}
};
class CountingAdapter {
 public:
  using Scalar = double;
  using Settings = CountingSettings;
  struct Saved {};
  static constexpr bool saves_input = false;
  static constexpr bool additive = true;

  CountingAdapter(const mora::FrozenLinear<double>& base, const Settings& settings)
      : in_(base.in_features()), out_(base.out_features()), settings_(settings) {
    parameter_.value.setZero(1, 1);
  }
  [[nodiscard]] Index in_features() const { return in_; }
  [[nodiscard]] Index out_features() const { return out_; }
  template <class F>
  void visit_parameters(F&& f) {
    f(std::string_view("nothing"), parameter_);
  }
  [[nodiscard]] std::vector<std::string> warnings() const { return {}; }
  void require_shapes() const {}
  void add_forward(const mora::ConstMap<double>&, mora::MutableMap<double>, Saved*) const {}
  void add_backward(const mora::ConstMap<double>&, const mora::ConstMap<double>&, const Saved&,
                    mora::MutableMap<double>* dx) {
    ++settings_.counts->backward;
    settings_.counts->with_input_gradient += dx != nullptr;
  }
  [[nodiscard]] int plan_merge() const { return 0; }
  void merge_rows(int, Index, mora::MutableMap<double>) const {}
  [[nodiscard]] double update_bound() const { return 0.0; }

 private:
  Index in_;
  Index out_;
  Settings settings_;
  mora::Parameter<double> parameter_;
};

}  // namespace
}  // namespace mora_tests

template <>
struct mora::AdapterTraits<double, mora_tests::CountingSettings> {
  using Type = mora_tests::CountingAdapter;
};

namespace mora_tests {
namespace {

/// How often backward passes of these modules were asked for the gradient by their input.
int input_gradients(const Targets& targets, const Targets& trained = {}) {
  CountingSettings::Counts counts;
  Model model = random_model();
  model.attach("a", CountingSettings{&counts}, targets);
  const int modules = static_cast<int>(gradients_of(model).size());
  if (!trained.modules.empty()) attach(model, "a", Kind::full, trained);
  (void)model.accumulate_gradients(random_batch(), 1.0);
  EXPECT_EQ(counts.backward, modules);
  return counts.with_input_gradient;
}

TEST(LlamaGradientsOfInputs, AreAskedForWhereSomethingBelowTrains) {
  // Nothing trains below q, k, v and above the embedding.
  EXPECT_EQ(input_gradients({.modules = {"q_proj", "k_proj", "v_proj"}, .layers = {0}}), 0);
  EXPECT_EQ(input_gradients({.modules = {"q_proj", "k_proj", "v_proj"}, .layers = {1}}), 0);
  EXPECT_EQ(input_gradients({.modules = {"gate_proj", "up_proj"}, .layers = {1}}), 0);
  for (const char* module : {"o_proj", "down_proj", "lm_head"}) {
    EXPECT_EQ(input_gradients({.modules = {module}, .layers = {}}, {}),
              std::string(module) == "lm_head" ? 0 : 1)
        << module;  // that of layer 1, for that of layer 0
  }
  EXPECT_EQ(input_gradients({.modules = {"q_proj"}}), 1);
  EXPECT_EQ(input_gradients({.all_linear = true}), 14 - 3);
  EXPECT_EQ(input_gradients({.all_linear = true, .layers = {1}}), 7 - 3);
  // Norms and the embedding need them.
  EXPECT_EQ(input_gradients({.modules = {"q_proj"}, .layers = {0}}, {.modules = {"embed_tokens"}}),
            1);
  EXPECT_EQ(input_gradients({.modules = {"q_proj"}, .layers = {1}},
                            {.modules = {"layers.1.input_layernorm"}}),
            1);
  EXPECT_EQ(input_gradients({.modules = {"lm_head"}}, {.modules = {"model.norm"}}), 1);
}

// A layer without a gradient to compute keeps nothing for it either.
TEST(LlamaNeeds, AreThoseOfTheLowestThatTrains) {
  const auto needs_of = [](const Targets& targets) {
    LlamaConfig config = small_config();
    config.num_hidden_layers = 3;
    const LlamaTensors tensors(config);
    const auto weights = random_weights<double>(config);
    mora::detail::LlamaAdapterSet<double> set;
    set.linear.resize(tensors.size());
    set.trained.resize(tensors.size());
    for (std::size_t place = 0; place < tensors.size(); ++place) {
      const auto& tensor = tensors[place];
      if (targets.matches(tensor.module(), tensor.linear, tensor.layer)) {
        set.trained[place].emplace();
      }
    }
    mora::detail::LlamaNeeds needs;
    needs.find(mora::detail::LlamaParts<double>{config, tensors, weights, &set});
    return needs;
  };
  using Flags = std::vector<bool>;
  const auto middle = needs_of({.modules = {"up_proj"}, .layers = {1}});
  EXPECT_EQ(middle.block, (Flags{false, true, true}));
  EXPECT_EQ(middle.stream, (Flags{false, false, true, true}));
  EXPECT_TRUE(middle.hidden);
  const auto top = needs_of({.modules = {"lm_head"}});
  EXPECT_EQ(top.block, (Flags{false, false, false}));
  EXPECT_FALSE(top.hidden);
  EXPECT_TRUE(top.anything);
  const auto norm = needs_of({.modules = {"model.norm"}});
  EXPECT_EQ(norm.stream, (Flags{false, false, false, false}));
  EXPECT_TRUE(norm.hidden);
  EXPECT_EQ(needs_of({.modules = {"embed_tokens"}}).stream, (Flags{true, true, true, true}));
  EXPECT_FALSE(needs_of({}).anything);
}

}  // namespace
}  // namespace mora_tests
