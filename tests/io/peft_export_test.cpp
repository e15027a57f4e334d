// SPDX-License-Identifier: MIT
#include <cmath>
#include <map>
#include <mora/io/llama/llama_folder.hpp>
#include <mora/io/peft/gguf_adapter.hpp>
#include <mora/io/peft/lora_export.hpp>
#include <mora/io/peft/mora_export.hpp>
#include <string>
#include <vector>

#include "support/compare.hpp"
#include "support/gguf.hpp"
#include "support/not_finite.hpp"
#include "support/peft.hpp"
#include "support/random.hpp"
#include "support/throws.hpp"
#include "support/tolerance.hpp"

/// \file
/// Any adapter as a plain LoRA folder, and as GGUF.

namespace mora_tests {
namespace {

using mora::AnyAdapter;
using mora::ArgumentError;
using mora::Matrix;
using mora::NamedAdapter;

template <class A>
[[nodiscard]] AnyAdapter<double> filled(A adapter, Random& random) {
  adapter.visit_parameters(
      [&](std::string_view, auto& p) { mora::fill_normal(p.value, 0.5, random.generator()); });
  return AnyAdapter<double>(std::move(adapter));
}

[[nodiscard]] Matrix<double> update_of(const NamedAdapter<double>& each) {
  return each.adapter.update(mora::FrozenLinear<double>(Matrix<double>(
      Matrix<double>::Zero(each.adapter.out_features(), each.adapter.in_features()))));
}

[[nodiscard]] std::vector<NamedAdapter<double>> mixed() {
  Random random(1);
  return {
      {"sharing", filled(mora::MoraAdapter<double, mora::Sharing>(25, 31, {.rank = 2}), random),
       0.1},
      {"rotation", filled(mora::MoraAdapter<double>(25, 31, {.rank = 2, .scale = -2.0}), random)},
      {"lora", filled(mora::LoraAdapter<double>(25, 31, {.rank = 2}, random.generator()), random)},
      {"whole", AnyAdapter<double>(mora::FullAdapter<double>(
                    mora::FrozenLinear<double>(random.matrix<double>(31, 25))))},
  };
}

TEST(LoraExport, HasTheSameUpdates) {
  const auto adapters = mixed();
  const auto exported = mora::export_lora(adapters);
  ASSERT_EQ(exported.adapters.size(), 4u);
  ASSERT_EQ(exported.modules.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(exported.adapters[i].module, adapters[i].module);
    EXPECT_EQ(exported.adapters[i].dropout, adapters[i].dropout);
    EXPECT_TRUE(exported.adapters[i].adapter.get_if<mora::LoraAdapter<double>>() != nullptr);
    EXPECT_TRUE(near(update_of(exported.adapters[i]), update_of(adapters[i])));
    EXPECT_EQ(exported.modules[i].relative_error, 0.0);
  }
  EXPECT_TRUE(exported.adapters[3].adapter.get_if<mora::FullAdapter<double>>() != nullptr);

  const auto small = mora::export_lora(adapters, {.rank = 4});
  for (std::size_t i = 0; i < 3; ++i) {
    const Matrix<double> wanted = update_of(adapters[i]);
    const double error = (update_of(small.adapters[i]) - wanted).norm() / wanted.norm();
    EXPECT_TRUE(near<double>(small.modules[i].relative_error, error, 1.0));
    EXPECT_LE(small.modules[i].rank, 4);
  }
  EXPECT_GT(small.modules[1].relative_error, 0.1);
}

// Its rank is the product of its factors': 5 * 2 in halves, 2 with a part of it.
TEST(LoraExport, OfLokrIsItsUpdateOrTheBestOfARank) {
  Random random(3);
  const std::vector<NamedAdapter<double>> adapters = {
      {"lokr", filled(mora::LokrAdapter<double>(25, 35, {.rank = 2}, random.generator()), random)}};
  const Matrix<double> wanted = update_of(adapters[0]);
  const auto exact = mora::export_lora(adapters);
  EXPECT_EQ(exact.modules.at(0).rank, 10);
  EXPECT_TRUE(near(update_of(exact.adapters.at(0)), wanted));
  const auto small = mora::export_lora(adapters, {.rank = 2});
  const double error = (update_of(small.adapters.at(0)) - wanted).norm() / wanted.norm();
  EXPECT_TRUE(near<double>(small.modules.at(0).relative_error, error, 1.0));
  EXPECT_GT(error, 0.1);
  const auto near_mora = mora::export_mora(adapters, {.rank = 2});
  EXPECT_GT(near_mora.modules.at(0).relative_error, 0.1);
}

// Their updates are those on the frozen weight, of any rank.
TEST(LoraExport, OfDoraAndHiraIsTheirUpdateOnTheWeight) {
  Random random(7);
  for (const auto& [in, out] : {std::pair<mora::Index, mora::Index>{25, 31}, {31, 25}}) {
    const mora::FrozenLinear<double> w(random.matrix<double>(out, in));
    using Dora = mora::DoraAdapter<mora::LoraAdapter<double>>;
    const std::vector<NamedAdapter<double>> adapters = {
        {"dora", filled(Dora(w, {.direction = {.rank = 2}}, random.generator()), random)},
        {"hira", filled(mora::HiraAdapter<double>(w, {.rank = 2}, random.generator()), random)}};
    const auto weight = [&](const std::string&) { return w; };
    const auto exported = mora::export_lora(adapters, {}, weight);
    const auto best = mora::export_lora(adapters, {.rank = 4}, weight);
    const auto nearest = mora::export_mora(adapters, {.op = mora::Decoupling{}, .rank = 4}, weight);
    for (std::size_t i = 0; i < adapters.size(); ++i) {
      const Matrix<double> update = adapters[i].adapter.update(w);
      EXPECT_EQ(exported.modules[i].rank, 25);
      EXPECT_TRUE(near(update_of(exported.adapters[i]), update));
      EXPECT_EQ(best.modules[i].rank, 4);
      for (const auto& form : {best, nearest}) {
        const double error = (update_of(form.adapters[i]) - update).norm() / update.norm();
        EXPECT_NEAR(form.modules[i].relative_error, error, 1e-10);
        EXPECT_GT(error, 0.1);
      }
    }
    EXPECT_TRUE(throws<ArgumentError>({"dora", "frozen weight"},
                                      [&] { (void)mora::export_lora(adapters); }));
    EXPECT_TRUE(throws<ArgumentError>({"dora", "frozen weight"},
                                      [&] { (void)mora::export_mora(adapters); }));
    const mora::FrozenLinear<double> other(Matrix<double>(random.matrix<double>(out, in + 1)));
    EXPECT_TRUE(throws<mora::ShapeError>(
        {"dora", "in_features", "expected", std::to_string(in + 1)},
        [&] { (void)mora::export_lora(adapters, {}, [&](const std::string&) { return other; }); }));
    const mora::FrozenLinear<double> taller(Matrix<double>(random.matrix<double>(out + 1, in)));
    EXPECT_TRUE(throws<mora::ShapeError>(
        {"dora", "out_features", "expected", std::to_string(out + 1)}, [&] {
          (void)mora::export_lora(adapters, {}, [&](const std::string&) { return taller; });
        }));
  }
}

TEST(MoraExport, IsTheNearestOfItsOperator) {
  const auto adapters = mixed();
  const mora::RandomSharing op{.seed = 5};
  const auto exported = mora::export_mora(adapters, {.op = op, .rank = 2});
  ASSERT_EQ(exported.adapters.size(), 4u);
  ASSERT_EQ(exported.modules.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto* const found =
        exported.adapters[i].adapter.get_if<mora::MoraAdapter<double, mora::RandomSharing>>();
    ASSERT_TRUE(found);
    EXPECT_EQ(found->settings().op.seed, 5u);
    EXPECT_EQ(found->settings().rank, 2);
    EXPECT_EQ(exported.adapters[i].module, adapters[i].module);
    EXPECT_EQ(exported.adapters[i].dropout, adapters[i].dropout);
    EXPECT_EQ(exported.modules[i].module, adapters[i].module);
    EXPECT_EQ(exported.modules[i].rank, 2);
    const Matrix<double> wanted = update_of(adapters[i]);
    const double error = (update_of(exported.adapters[i]) - wanted).norm() / wanted.norm();
    EXPECT_TRUE(near<double>(exported.modules[i].relative_error, error, 1.0));
    EXPECT_GT(error, 0.1);
  }
  EXPECT_TRUE(exported.adapters[3].adapter.get_if<mora::FullAdapter<double>>() != nullptr);

  // Into its own operator, a scale folded into M.
  const auto same = mora::export_mora(adapters, {.op = mora::Rotation{}, .rank = 2});
  EXPECT_LE(same.modules[1].relative_error, least_squares_tolerance);
  EXPECT_TRUE(near(update_of(same.adapters[1]), update_of(adapters[1]),
                   {.relative = least_squares_tolerance}));
}

TEST(MoraExport, NamesTheModuleThatItRefuses) {
  auto adapters = mixed();
  EXPECT_TRUE(throws<ArgumentError>({"rank", "0"},
                                    [&] { (void)mora::export_mora(adapters, {.rank = 0}); }));
  Random random(2);
  std::vector<NamedAdapter<double>> narrow;
  narrow.push_back(
      {"narrow", filled(mora::MoraAdapter<double, mora::Sharing>(1, 1, {.rank = 1}), random)});
  EXPECT_TRUE(throws<ArgumentError>({"narrow", "rotation"}, [&] {
    (void)mora::export_mora(narrow, {.op = mora::Rotation{}, .rank = 1});
  }));
  adapters[1].adapter.get_if<mora::MoraAdapter<double>>()->matrix().value(0, 0) = nan<double>;
  EXPECT_TRUE(throws<mora::NumericError>({"rotation", "not finite"},
                                         [&] { (void)mora::export_mora(adapters); }));
}

TEST(LoraExport, GoesThroughAFolderThatAnyReaderKnows) {
  const TemporaryFolder folder;
  auto adapters = mixed();
  adapters.pop_back();
  adapters.front().dropout = 0.0;
  mora::save_peft(mora::export_lora(adapters).adapters, folder.where());
  const mora::PeftFolder read(folder.where());
  EXPECT_EQ(read.config().dialect, mora::PeftDialect::lora);
  std::vector<mora::LayerShape> layers;
  for (const auto& each : adapters) {
    layers.push_back({.module = each.module, .in_features = 25, .out_features = 31});
  }
  const auto found = read.adapters<double>(layers);
  ASSERT_EQ(found.size(), 3u);
  for (const auto& each : found) {
    const auto wanted = std::ranges::find(adapters, each.module, &NamedAdapter<double>::module);
    ASSERT_NE(wanted, adapters.end());
    EXPECT_TRUE(near(update_of(each), update_of(*wanted)));
  }
}

TEST(LoraExport, RefusesTypesOfTheCallersAndNamesTheModule) {
  using Own = mora::Pair<mora::LeadingEntries, mora::GroupSpread<mora::StridedGroups>>;
  EXPECT_TRUE(throws<ArgumentError>({"mine", "not exported"}, [] {
    (void)mora::export_lora<double>(
        {{"mine", AnyAdapter<double>(mora::MoraAdapter<double, Own>(5, 7, {.rank = 2}))}});
  }));
  auto adapters = mixed();
  adapters[1].adapter.get_if<mora::MoraAdapter<double>>()->matrix().value.setConstant(NAN);
  EXPECT_TRUE(throws<mora::NumericError>({"rotation", "not finite"},
                                         [&] { (void)mora::export_lora(adapters); }));
}

TEST(GgufNames, AreThoseOfLlamaCpp) {
  using mora::detail::gguf_module;
  EXPECT_EQ(gguf_module("model.layers.0.self_attn.q_proj"), "blk.0.attn_q");
  EXPECT_EQ(gguf_module("model.layers.31.self_attn.o_proj"), "blk.31.attn_output");
  EXPECT_EQ(gguf_module("model.layers.7.mlp.down_proj"), "blk.7.ffn_down");
  EXPECT_EQ(gguf_module("lm_head"), "output");
  for (const char* other : {"", "model.norm", "model.layers.", "model.layers.x.mlp.up_proj",
                            "model.layers.1", "model.layers.1.mlp", "model.layers.1mlp.up_proj"}) {
    EXPECT_FALSE(gguf_module(other).has_value()) << other;
  }
}

// Two heads of four rows: row 2 i + h of a head is row 2 h + i.
TEST(GgufRows, OfAHeadAreInterleaved) {
  Matrix<double> rows(8, 1);
  rows << 0, 1, 2, 3, 10, 11, 12, 13;
  Matrix<double> expected(8, 1);
  expected << 0, 2, 1, 3, 10, 12, 11, 13;
  EXPECT_TRUE(equal(mora::detail::pair_rotated_rows(rows, 2), expected));
}

TEST(GgufAdapter, RefusesWhatItHasNoNameFor) {
  const TemporaryFolder folder;
  const auto config = mora::LlamaFolder(stored_llama("untied_f32")).config();
  Random random(1);
  const auto lora = [&](mora::Index in, mora::Index out) {
    return filled(mora::LoraAdapter<double>(in, out, {.rank = 2}, random.generator()), random);
  };
  const auto save = [&](std::vector<NamedAdapter<double>> adapters) {
    return [&config, &folder, adapters = std::move(adapters)] {
      mora::save_gguf_adapter(adapters, config, folder / "a.gguf");
    };
  };
  const mora::Index hidden = config.hidden_size;
  EXPECT_TRUE(throws<ArgumentError>({"model.norm", "GGUF"}, save({{"model.norm", lora(3, 4)}})));
  EXPECT_TRUE(throws<ArgumentError>(
      {"k_proj", "expected", "found"},
      save({{"model.layers.0.self_attn.k_proj", lora(hidden, config.key_value_size() + 1)}})));
  EXPECT_TRUE(throws<ArgumentError>(
      {"up_proj", "expected a LoRA"},
      save({{"model.layers.0.mlp.up_proj",
             AnyAdapter<double>(mora::MoraAdapter<double>(hidden, 7, {.rank = 2}))}})));
  // Other sizes than the config's, wherever.
  const mora::Index inner = config.intermediate_size;
  EXPECT_TRUE(
      throws<ArgumentError>({"up_proj", "expected 24 outputs", "found 25"},
                            save({{"model.layers.0.mlp.up_proj", lora(hidden, inner + 1)}})));
  EXPECT_TRUE(
      throws<ArgumentError>({"down_proj", "expected 24 inputs", "found 23"},
                            save({{"model.layers.0.mlp.down_proj", lora(inner - 1, hidden)}})));
  EXPECT_TRUE(throws<ArgumentError>({"model.layers.2.mlp"},
                                    save({{"model.layers.2.mlp.up_proj", lora(hidden, inner)}})));
  EXPECT_TRUE(throws<ArgumentError>({"model.layers.01"},
                                    save({{"model.layers.01.mlp.up_proj", lora(hidden, inner)}})));
  auto tied = config;
  tied.tie_word_embeddings = true;
  EXPECT_TRUE(throws<ArgumentError>({"lm_head"}, [&] {
    mora::save_gguf_adapter<double>({{"lm_head", lora(hidden, config.vocab_size)}}, tied,
                                    folder / "a.gguf");
  }));
  EXPECT_TRUE(folder.names().empty());
  EXPECT_NO_THROW(save({{"model.layers.0.mlp.up_proj", lora(hidden, inner)},
                        {"lm_head", lora(hidden, config.vocab_size)}})());
}

/// Reads adapters as llama.cpp does: the update is B A, as alpha 0 scales by nothing.
void expect_in_gguf(const std::vector<NamedAdapter<double>>& adapters,
                    const mora::LlamaConfig& config, const path& file) {
  const GgufFile gguf(read_file(file));
  using namespace std::string_literals;
  EXPECT_EQ(gguf.version, 3u);
  const decltype(gguf.keys) keys = {{"general.type", "adapter"s},
                                    {"general.architecture", "llama"s},
                                    {"adapter.type", "lora"s},
                                    {"adapter.lora.alpha", 0.0f}};
  EXPECT_EQ(gguf.keys, keys);
  ASSERT_EQ(gguf.tensors.size(), 2 * adapters.size());
  std::uint64_t end = 0;
  for (const auto& tensor : gguf.tensors) {
    EXPECT_EQ(tensor.type, 0u);  // float32
    EXPECT_EQ(tensor.offset % 32, 0u);
    EXPECT_GE(tensor.offset, end);
    ASSERT_EQ(tensor.sizes.size(), 2u);
    end = tensor.offset + 4 * tensor.sizes[0] * tensor.sizes[1];
  }
  EXPECT_EQ(gguf.bytes.size(), gguf.data + (end + 31) / 32 * 32);
  const auto matrix = [&](const std::string& name) {
    for (const auto& tensor : gguf.tensors) {
      if (tensor.name != name) continue;
      const std::vector<float> numbers = gguf.numbers(tensor);
      return Matrix<double>(
          Eigen::Map<const Matrix<float>>(numbers.data(), static_cast<mora::Index>(tensor.sizes[1]),
                                          static_cast<mora::Index>(tensor.sizes[0]))
              .cast<double>());
    }
    throw std::runtime_error("no tensor " + name);
  };
  for (const auto& each : adapters) {
    SCOPED_TRACE(each.module);
    const std::string name = mora::detail::gguf_module(each.module).value() + ".weight.lora_";
    const Matrix<double> found = matrix(name + "b") * matrix(name + "a");
    Matrix<double> wanted = update_of(each);
    ASSERT_EQ(found.rows(), wanted.rows());
    ASSERT_EQ(found.cols(), wanted.cols());
    const bool q = each.module.ends_with("q_proj");
    if (q || each.module.ends_with("k_proj")) {
      // Neighbours are rotated there, halves here.
      const mora::Index size = config.head_size();
      const Matrix<double> halves = wanted;
      for (mora::Index row = 0; row < wanted.rows(); ++row) {
        const mora::Index in_head = row % size;
        wanted.row(row) = halves.row(row - in_head + in_head % 2 * (size / 2) + in_head / 2);
      }
    }
    EXPECT_LE((found - wanted).norm(), 1e-6 * wanted.norm());
  }
}

TEST(GgufAdapter, SaysWhatTheAdaptersDo) {
  const TemporaryFolder folder;
  const auto config = mora::LlamaFolder(stored_llama("untied_f32")).config();
  Random random(4);
  const mora::Index hidden = config.hidden_size;
  const auto lora = [&](mora::Index out, mora::LoraSettings settings) {
    return filled(mora::LoraAdapter<double>(hidden, out, settings, random.generator()), random);
  };
  const std::vector<NamedAdapter<double>> loras = {
      {"model.layers.0.self_attn.q_proj", lora(config.query_size(), {.rank = 3, .alpha = 5.0})},
      {"model.layers.1.self_attn.k_proj",
       lora(config.key_value_size(),
            {.rank = 2, .alpha = 4.0, .scaling = mora::LoraScaling::rank_stabilized})},
      {"model.layers.1.self_attn.v_proj", lora(config.key_value_size(), {.rank = 1})},
      {"lm_head", lora(config.vocab_size, {.rank = 2})}};
  mora::save_gguf_adapter(loras, config, folder / "lora.gguf");
  expect_in_gguf(loras, config, folder / "lora.gguf");

  const std::vector<NamedAdapter<double>> moras = {
      {"model.layers.0.self_attn.q_proj",
       filled(mora::MoraAdapter<double, mora::Sharing>(hidden, config.query_size(), {.rank = 2}),
              random)},
      {"model.layers.1.mlp.down_proj",
       filled(
           mora::MoraAdapter<double>(config.intermediate_size, hidden, {.rank = 2, .scale = 0.5}),
           random)}};
  mora::save_gguf_adapter(mora::export_lora(moras).adapters, config, folder / "mora.gguf");
  expect_in_gguf(moras, config, folder / "mora.gguf");
}

}  // namespace
}  // namespace mora_tests
