// SPDX-License-Identifier: MIT
#include <mora/analysis/budget.hpp>
#include <string>
#include <vector>

#include "support/compare.hpp"
#include "support/fixture.hpp"
#include "support/peft.hpp"

/// \file
/// MoRA in adapter folders: in the dialect of the paper's code, with its vectors
/// (fixtures/README.md), and in this library's.

namespace mora_tests {
namespace {

using mora::AnyAdapter;
using mora::FormatError;
using mora::LayerShape;
using mora::Matrix;
using mora::MoraAdapter;
using mora::NamedAdapter;
using mora::PeftFolder;

template <class Op>
using Mora = MoraAdapter<double, Op>;

constexpr const char* module_name = "block.0.proj";

/// A folder as the paper's code writes one: one module, M twice.
class PaperFolder {
 public:
  explicit PaperFolder(const Fixture& fixture)
      : layers_{{.module = module_name,
                 .in_features = fixture.integer("in_features"),
                 .out_features = fixture.integer("out_features"),
                 .bias = true}},
        m_(fixture.tensor("M")) {
    config_ = {{"peft_type", "LORA"}, {"r", fixture.integer("r")},
               {"lora_alpha", 16},    {"target_modules", {"proj"}},
               {"use_mora", true},    {"mora_type", fixture.integer("mora_type")}};
    write();
  }

  void write() { write(m_, m_); }
  void write(const Matrix<double>& a, const Matrix<double>& b) {
    write_file(folder_ / "adapter_config.json", config_.dump());
    const auto tensor = [](const char* name, const Matrix<double>& matrix) {
      return mora::TensorBytes{
          {std::string("base_model.model.") + module_name + name,
           mora::Dtype::f64,
           {matrix.rows(), matrix.cols()}},
          std::as_bytes(std::span(matrix.data(), static_cast<std::size_t>(matrix.size())))};
    };
    std::vector<mora::TensorBytes> tensors = {tensor(".lora_A.weight", a)};
    if (b.size() != 0) tensors.push_back(tensor(".lora_B.weight", b));
    mora::write_safetensors(folder_ / "adapter_model.safetensors", tensors, {{"format", "pt"}});
  }
  [[nodiscard]] std::vector<NamedAdapter<double>> adapters(
      const mora::PeftFolderSettings& settings = {}) const {
    return PeftFolder(folder_.where(), settings).adapters<double>(layers_);
  }
  [[nodiscard]] testing::AssertionResult is_refused(
      std::initializer_list<std::string_view> parts,
      const mora::PeftFolderSettings& settings = {}) const {
    return throws<FormatError>(parts, [&] { (void)adapters(settings); });
  }

  TemporaryFolder folder_;
  Json config_;
  std::vector<LayerShape> layers_;
  Matrix<double> m_;
};

/// The output of the layer with the adapter.
Matrix<double> output(const AnyAdapter<double>& adapter, const Fixture& fixture) {
  const Matrix<double> weight = fixture.tensor("weight");
  const mora::RowVector<double> bias = fixture.tensor("bias").row(0);
  const Matrix<double> x = fixture.tensor("x");
  Matrix<double> y = Matrix<double>::Zero(x.rows(), weight.rows());
  adapter.add_forward(mora::FrozenLinear<double>(weight, bias), mora::detail::map_of(x),
                      mora::detail::map_of(y), nullptr);
  return y;
}

class PaperDialect : public testing::TestWithParam<std::string> {};
std::vector<std::string> paper_files() { return Fixture::names("mora"); }
INSTANTIATE_TEST_SUITE_P(, PaperDialect, testing::ValuesIn(paper_files()), [](const auto& name) {
  return name.param.substr(0, name.param.find('.'));
});

TEST_P(PaperDialect, ComputesWhatThePapersCodeDoes) {
  const Fixture fixture(GetParam());
  const PaperFolder folder(fixture);
  const auto adapters = folder.adapters();
  ASSERT_EQ(adapters.size(), 1u);
  EXPECT_TRUE(near(output(adapters[0].adapter, fixture), fixture.tensor("y")));
  EXPECT_FALSE(near(fixture.tensor("x") * fixture.tensor("weight").transpose(), fixture.tensor("y"),
                    {.relative = 0.01}));
}

TEST_P(PaperDialect, IsWrittenAsItWas) {
  const Fixture fixture(GetParam());
  const PaperFolder folder(fixture);
  const path again = folder.folder_ / "again";
  mora::save_peft(folder.adapters(), again);
  EXPECT_EQ(read_file(again / "adapter_model.safetensors"),
            read_file(folder.folder_ / "adapter_model.safetensors"));
  const Json config = Json::parse(read_file(again / "adapter_config.json"));
  EXPECT_EQ(config["peft_type"], "LORA");
  EXPECT_EQ(config["use_mora"], true);
  EXPECT_EQ(config["mora_type"], fixture.integer("mora_type"));
  EXPECT_EQ(config["r"], fixture.integer("r"));
  EXPECT_EQ(config["target_modules"], Json::array({module_name}));
}

class PaperFolders : public testing::Test {
 protected:
  Fixture fixture_{"mora1_24x36_r3.safetensors"};
  PaperFolder folder_{fixture_};
};

TEST_F(PaperFolders, Case118WithoutATypeAreSharingWithANote) {
  folder_.write();
  EXPECT_EQ(PeftFolder(folder_.folder_.where()).warnings(), std::vector<std::string>{});
  folder_.config_.erase("mora_type");
  folder_.write();
  const std::vector<std::string> warnings = PeftFolder(folder_.folder_.where()).warnings();
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("use_mora without mora_type is read as type 1"), std::string::npos);
  EXPECT_NE(folder_.adapters()[0].adapter.get_if<Mora<mora::Sharing>>(), nullptr);
}

TEST_F(PaperFolders, Case132SidesThatAreNotTheFormulas) {
  folder_.config_["r"] = 4;
  folder_.write();
  EXPECT_TRUE(folder_.is_refused(
      {"lora_A.weight': expected a side of 15, from sqrt((24 + 36) * 4) for sharing, "
       "found 13",
       "another model?"}));
  folder_.config_["mora_type"] = 6;
  folder_.write();
  EXPECT_TRUE(folder_.is_refused(
      {"expected a side of 14, from sqrt((24 + 36) * 4) for rotation, found 13"}));
  folder_.config_["r"] = 3;
  folder_.config_["mora_type"] = 1;
  const Matrix<double> a = folder_.m_.topRows(12);
  folder_.write(a, a);
  EXPECT_TRUE(
      folder_.is_refused({"lora_A.weight': expected MoRA's square matrix, found shape [12, 13]"}));
  const Matrix<double> small = folder_.m_.topLeftCorner(12, 12);
  folder_.write(folder_.m_, small);
  EXPECT_TRUE(folder_.is_refused({"lora_B.weight': expected shape [13, 13], found [12, 12]"}));
}

TEST_F(PaperFolders, Case132ARankThatMakesNoSide) {
  folder_.config_["mora_type"] = 6;
  folder_.config_["r"] = 1;
  folder_.layers_[0].in_features = folder_.layers_[0].out_features = 1;
  const Matrix<double> one = Matrix<double>::Ones(1, 1);
  folder_.write(one, one);
  EXPECT_TRUE(folder_.is_refused({"lora_A.weight'", "needs a side of at least 2, found 1"}));
}

TEST_F(PaperFolders, Case133TwoMatricesThatDiffer) {
  Matrix<double> other = folder_.m_;
  other(12, 12) = std::nextafter(other(12, 12), 2.0);
  folder_.write(folder_.m_, other);
  EXPECT_TRUE(
      folder_.is_refused({"lora_B.weight': expected the numbers of "
                          "'base_model.model.block.0.proj.lora_A.weight'"}));
}

TEST_F(PaperFolders, Case134LoraReadAsMoraAndTheOtherWayRound) {
  folder_.config_["use_mora"] = false;
  folder_.config_.erase("mora_type");
  folder_.write();
  EXPECT_TRUE(
      folder_.is_refused({"lora_A.weight': expected 3 rows, which is the rank", "found 13"}));
  const Matrix<double> a = Matrix<double>::Ones(3, 24);
  const Matrix<double> b = Matrix<double>::Ones(36, 3);
  folder_.write(a, b);
  EXPECT_EQ(folder_.adapters().size(), 1u);
  folder_.config_["use_mora"] = true;
  folder_.write(a, b);
  EXPECT_TRUE(
      folder_.is_refused({"lora_A.weight': expected MoRA's square matrix, found shape [3, 24]"}));
  folder_.write(folder_.m_, {});
  EXPECT_TRUE(folder_.is_refused({"lora_A.weight': expected", "lora_B.weight' beside it"}));
}

TEST_F(PaperFolders, HaveRanksByPatterns) {
  folder_.config_["rank_pattern"] = {{"proj", 3}};
  folder_.config_["r"] = 99;
  folder_.write();
  EXPECT_TRUE(near(output(folder_.adapters()[0].adapter, fixture_), fixture_.tensor("y")));
}

TEST(TransposedMora, IsReadWhenAskedFor) {
  const Fixture fixture("mora6_24x36_r3.safetensors");
  PaperFolder folder(fixture);
  const Matrix<double> transposed = folder.m_.transpose();
  folder.config_.erase("mora_type");
  folder.write(transposed, {});
  const mora::PeftFolderSettings settings = {.transposed = true};
  EXPECT_TRUE(near(output(folder.adapters(settings)[0].adapter, fixture), fixture.tensor("y")));
  EXPECT_FALSE(folder.is_refused({""}, settings));
  EXPECT_TRUE(folder.is_refused({"lora_B.weight' beside it"}));
  folder.write(transposed, transposed);
  EXPECT_TRUE(folder.is_refused({"lora_B.weight': is no part of an adapter"}, settings));
  folder.config_["mora_type"] = 2;
  folder.write(transposed, {});
  EXPECT_TRUE(
      folder.is_refused({"'mora_type': expected 6 for a transposed matrix, found 2"}, settings));
  folder.config_["use_mora"] = false;
  folder.config_.erase("mora_type");
  folder.write(transposed, {});
  EXPECT_TRUE(folder.is_refused({"'use_mora': expected true"}, settings));
}

/// M random.
template <class Op>
AnyAdapter<double> mora_adapter(const mora::MoraSettings<Op>& settings, Index in = 20,
                                Index out = 30) {
  MoraAdapter<double, Op> adapter(in, out, settings);
  mora::SplitMix64 generator(static_cast<std::uint64_t>(in));
  mora::fill_normal(adapter.matrix().value, 1.0, generator);
  return AnyAdapter<double>(std::move(adapter));
}

class OwnDialect : public testing::Test {
 protected:
  [[nodiscard]] Json config() const {
    return Json::parse(read_file(target_ / "adapter_config.json"));
  }
  [[nodiscard]] std::vector<NamedAdapter<double>> read() const {
    return PeftFolder(target_.where()).adapters<double>(layers_);
  }
  /// Whether what comes back has the same settings and bits.
  template <class Op>
  void expect_comes_back(const mora::MoraSettings<Op>& settings, const char* name) {
    SCOPED_TRACE(name);
    const std::vector<NamedAdapter<double>> saved = {{"a", mora_adapter(settings)}};
    mora::save_peft(saved, target_.where(), {.own_dialect = true});
    EXPECT_EQ(config()["peft_type"], "MORA");
    EXPECT_EQ(config()["mora_operator"], name);
    EXPECT_EQ(config().contains("use_mora"), false);
    const auto again = read();
    ASSERT_EQ(again.size(), 1u);
    const auto* const found = again[0].adapter.get_if<Mora<Op>>();
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->settings().rank, settings.rank);
    EXPECT_EQ(found->settings().scale, settings.scale);
    EXPECT_TRUE(found->settings().op == settings.op);
    EXPECT_TRUE(
        same_bits(found->matrix().value, saved[0].adapter.get_if<Mora<Op>>()->matrix().value));
    const mora::FrozenLinear<double> base(Matrix<double>(Matrix<double>::Zero(30, 20)));
    EXPECT_TRUE(same_bits(again[0].adapter.update(base), saved[0].adapter.update(base)));
  }
  TemporaryFolder target_;
  std::vector<LayerShape> layers_ = {{.module = "a", .in_features = 20, .out_features = 30}};
};

TEST_F(OwnDialect, HasEveryOperator) {
  for (const auto rounding : {mora::SideRounding::paper, mora::SideRounding::reference}) {
    expect_comes_back<mora::Sharing>({.rank = 3, .rounding = rounding, .scale = 0.7}, "sharing");
    expect_comes_back<mora::AdjacentSharing>({.rank = 3, .rounding = rounding}, "adjacent_sharing");
    expect_comes_back<mora::AdjacentStridedSharing>({.rank = 3, .rounding = rounding},
                                                    "adjacent_strided_sharing");
    expect_comes_back<mora::StridedAdjacentSharing>({.rank = 3, .rounding = rounding},
                                                    "strided_adjacent_sharing");
    expect_comes_back<mora::Rotation>({.rank = 3, .rounding = rounding, .op = {.base = 123.25}},
                                      "rotation");
    expect_comes_back<mora::Truncation>({.rank = 3, .rounding = rounding, .scale = 1e-3},
                                        "truncation");
    expect_comes_back<mora::Decoupling>({.rank = 2, .rounding = rounding}, "decoupling");
    expect_comes_back<mora::RandomSharing>(
        {.rank = 3, .rounding = rounding, .op = {.seed = ~std::uint64_t{0} - 5}}, "random_sharing");
    expect_comes_back<mora::CoveringRotation>({.rank = 3, .rounding = rounding},
                                              "covering_rotation");
  }
}

TEST_F(OwnDialect, NamesEveryOperatorAsItsTableDoes) {
  for (const auto& row : mora::detail::peft_operators) {
    EXPECT_EQ(mora::name_of(row.op), row.name);
  }
  EXPECT_EQ(mora::detail::peft_operators.size(), std::variant_size_v<mora::PeftOperator>);
}

TEST_F(OwnDialect, IsUsedWhereThePapersHasNoSuchThing) {
  const auto type_of = [&](AnyAdapter<double> adapter) {
    mora::save_peft<double>({{"a", std::move(adapter)}}, target_.where());
    return config()["peft_type"].get<std::string>();
  };
  // sqrt((20 + 30) r): 12.25 at rank 3, 14.14 at 4; 16.6 at 5.5 and so on.
  EXPECT_EQ(type_of(mora_adapter<mora::Sharing>({.rank = 3})), "LORA");
  EXPECT_EQ(type_of(mora_adapter<mora::Rotation>({.rank = 4})), "LORA");
  EXPECT_EQ(type_of(mora_adapter<mora::Rotation>({.rank = 4, .op = {.base = 500.0}})), "MORA");
  EXPECT_EQ(type_of(mora_adapter<mora::Truncation>({.rank = 3})), "MORA");
  EXPECT_EQ(type_of(mora_adapter<mora::CoveringRotation>({.rank = 3})), "MORA");
  // sqrt(50 * 5) = 15.8 is 15 by the paper and 16 by its code.
  EXPECT_EQ(type_of(mora_adapter<mora::Sharing>({.rank = 5})), "MORA");
  EXPECT_EQ(config()["mora_rounding"], "paper");
  EXPECT_EQ(read()[0].adapter.parameters()[0].parameter->value.rows(), 15);
  EXPECT_EQ(
      type_of(mora_adapter<mora::Sharing>({.rank = 5, .rounding = mora::SideRounding::reference})),
      "LORA");
  // Both are 16 where rotation needs an even side: sqrt(50 * 5.5) is beyond; at rank 6 17.3.
  EXPECT_EQ(type_of(mora_adapter<mora::Rotation>({.rank = 6})), "LORA");
}

TEST_F(OwnDialect, CannotBeMistakenForLora) {
  mora::save_peft<double>({{"a", mora_adapter<mora::Truncation>({.rank = 3})}}, target_.where());
  for (const auto& tensor :
       mora::SafetensorsFile(target_ / "adapter_model.safetensors").tensors()) {
    EXPECT_EQ(tensor.name().find("lora"), std::string::npos) << tensor.name();
    EXPECT_EQ(tensor.name(), "base_model.model.a.mora_M.weight");
  }
  Json json = config();
  json["peft_type"] = "LORA";
  write_file(target_ / "adapter_config.json", json.dump());
  EXPECT_TRUE(
      throws<FormatError>({"'mora_operator': is for peft_type 'MORA'"}, [&] { (void)read(); }));
}

TEST_F(OwnDialect, HasRanksAndScalesOfEachModule) {
  layers_ = {{.module = "a", .in_features = 20, .out_features = 30},
             {.module = "b", .in_features = 11, .out_features = 7},
             {.module = "x.a", .in_features = 20, .out_features = 30}};
  const std::vector<NamedAdapter<double>> saved = {
      {"a", mora_adapter<mora::Truncation>({.rank = 3, .scale = 0.3})},
      {"b", mora_adapter<mora::Truncation>({.rank = 2, .scale = -7.1}, 11, 7)},
      {"x.a", mora_adapter<mora::Truncation>({.rank = 5, .scale = 1.0})}};
  mora::save_peft(saved, target_.where());
  const auto again = read();
  for (std::size_t i = 0; i < saved.size(); ++i) {
    const auto& a = *again[i].adapter.get_if<Mora<mora::Truncation>>();
    const auto& b = *saved[i].adapter.get_if<Mora<mora::Truncation>>();
    EXPECT_EQ(a.settings().rank, b.settings().rank);
    EXPECT_EQ(a.settings().scale, b.settings().scale);
    EXPECT_TRUE(same_bits(a.matrix().value, b.matrix().value));
  }
}

TEST_F(OwnDialect, IsNotNeededForAScaleThatIsFoldedIn) {
  const std::vector<NamedAdapter<double>> saved = {
      {"a", mora_adapter<mora::Sharing>({.rank = 3, .scale = 0.25})}};
  mora::save_peft(saved, target_.where());
  EXPECT_EQ(config()["peft_type"], "LORA");
  const auto again = read();
  const auto& folded = *again[0].adapter.get_if<Mora<mora::Sharing>>();
  EXPECT_EQ(folded.settings().scale, 1.0);
  const mora::FrozenLinear<double> base(Matrix<double>(Matrix<double>::Zero(30, 20)));
  EXPECT_TRUE(near(again[0].adapter.update(base), saved[0].adapter.update(base)));
  const Matrix<double> expected =
      0.25 * saved[0].adapter.get_if<Mora<mora::Sharing>>()->matrix().value;
  EXPECT_TRUE(same_bits(folded.matrix().value, expected));  // a power of two
  EXPECT_TRUE(
      throws<mora::NumericError>({"a: number 0 of M", "times the scale", "is too large"}, [&] {
        MoraAdapter<double, mora::Sharing> large(20, 30, {.rank = 3, .scale = 1e10});
        large.matrix().value.setConstant(1e300);
        mora::save_peft<double>({{"a", AnyAdapter<double>(large)}}, target_.where());
      }));
  EXPECT_EQ(read().size(), 1u);
}

}  // namespace
}  // namespace mora_tests
