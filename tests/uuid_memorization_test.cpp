// SPDX-License-Identifier: MIT
//
// The parts of examples/uuid_memorization that can be wrong without anybody seeing it.

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "experiment/weight_file.hpp"
#include "mora/core/error.hpp"
#include "support/files.hpp"
#include "uuid_memorization/journal.hpp"
#include "uuid_memorization/options.hpp"
#include "uuid_memorization/pair_recall.hpp"

namespace {

using mora_tests::read_file;
using mora_tests::TemporaryFolder;
using mora_tests::write_file;
using namespace uuid_memorization;
using experiment::read_weights;
using experiment::Weights;
using experiment::write_weights;

Uuid any_uuid(std::uint64_t seed = 1) {
  mora::SplitMix64 generator(seed);
  return Uuid::draw(generator);
}

using Logits = mora::Matrix<float>;

/// All tokens alike.
Logits even_logits() { return Logits::Zero(Index{Uuid::digits}, vocabulary); }

/// The right digits, and nothing else.
Logits right_logits(const Uuid& value) {
  Logits logits = even_logits();
  for (std::size_t i = 0; i < Uuid::digits; ++i) {
    logits(static_cast<Index>(i), value.digit[i]) = 50.0f;
  }
  return logits;
}

PairRecall recall_of_one(const Logits& logits, const Uuid& value) {
  PairRecallCount count;
  count.add(logits, value);
  return count.result();
}

TEST(PairRecall, KnowsAllOfWhatIsCertain) {
  const Uuid value = any_uuid();
  const PairRecall recall = recall_of_one(right_logits(value), value);
  EXPECT_EQ(recall.accuracy, 1.0);
  EXPECT_EQ(recall.verbatim, 1.0);
  EXPECT_EQ(recall.first_four, 1.0);
  EXPECT_NEAR(recall.bits, 122.0, 1e-6);
  EXPECT_NEAR(recall.loss, 0.0, 1e-6);
}

TEST(PairRecall, KnowsNothingOfWhatIsEven) {
  const PairRecall recall = recall_of_one(even_logits(), any_uuid());
  EXPECT_NEAR(recall.bits, 0.0, 1e-6);
  EXPECT_NEAR(recall.loss, std::log(20.0), 1e-6);
  EXPECT_EQ(recall.verbatim, 0.0);
}

TEST(PairRecall, TheFormatIsNoMemory) {
  Logits logits = even_logits();
  logits(Index{Uuid::version_digit}, 4) = 50.0f;
  for (Index d = 8; d < 12; ++d) logits(Index{Uuid::variant_digit}, d) = 50.0f;
  EXPECT_NEAR(recall_of_one(logits, any_uuid()).bits, 0.0, 1e-6);
}

TEST(PairRecall, OneDigitIsFourBits) {
  const Uuid value = any_uuid();
  Logits logits = even_logits();
  logits(3, value.digit[3]) = 50.0f;
  EXPECT_NEAR(recall_of_one(logits, value).bits, 4.0, 1e-6);
}

TEST(PairRecall, OneWrongDigitOfThirtyOne) {
  const Uuid value = any_uuid();
  Logits logits = right_logits(value);
  logits(20, (value.digit[20] + 1) % 16) = 60.0f;
  PairRecallCount count;
  count.add(logits, value);
  count.add(right_logits(value), value);
  const PairRecall recall = count.result();
  EXPECT_NEAR(recall.accuracy, 61.0 / 62.0, 1e-12);
  EXPECT_EQ(recall.verbatim, 0.5);
  EXPECT_EQ(recall.first_four, 1.0);
}

TEST(PairRecall, AVersionDigitThatIsWrongIsNotVerbatim) {
  const Uuid value = any_uuid();
  Logits logits = right_logits(value);
  logits(Index{Uuid::version_digit}, 7) = 60.0f;
  const PairRecall recall = recall_of_one(logits, value);
  EXPECT_EQ(recall.accuracy, 1.0);
  EXPECT_EQ(recall.verbatim, 0.0);
}

TEST(PairRecall, ATokenThatIsNoDigitIsWrong) {
  const Uuid value = any_uuid();
  Logits logits = right_logits(value);
  logits(0, separator::copy) = 60.0f;
  EXPECT_NEAR(recall_of_one(logits, value).accuracy, 30.0 / 31.0, 1e-12);
}

/// Expects at each position the digit of a given value, whatever it reads.
struct ConstantModel {
  Uuid value;
  [[nodiscard]] Logits logits(const mora::Batch& batch) const {
    Logits all = Logits::Zero(batch.positions(), vocabulary);
    for (Index i = 0; i < batch.positions(); ++i) {
      const Index place = i % pair_positions - first_target;
      if (place >= 0) all(i, value.digit[static_cast<std::size_t>(place)]) = 50.0f;
    }
    return all;
  }
};

TEST(PairRecall, ReadsTheLogitsOfThePositionsThatPredictTheValue) {
  const PairSet pairs(1, 5);
  EXPECT_EQ(recall_of(ConstantModel{pairs[0].value}, pairs).verbatim, 1.0);
  const PairSet more(40, 5);  // more than are treated at a time
  EXPECT_NEAR(recall_of(ConstantModel{more[39].value}, more).verbatim, 1.0 / 40.0, 1e-12);
}

TEST(Pairs, TargetsAreTheDigitsOfTheValue) {
  const PairSet pairs(1, 7);
  mora::Batch batch;
  pairs.add_to(0, batch);
  ASSERT_EQ(batch.positions(), pair_positions);
  EXPECT_NO_THROW(batch.validate(vocabulary));
  for (std::size_t i = 0; i < Uuid::digits; ++i) {
    EXPECT_EQ(batch.tokens[i], pairs[0].key.digit[i]);
    EXPECT_EQ(batch.targets[i], mora::ignored);
    EXPECT_EQ(batch.targets[Uuid::digits + i], pairs[0].value.digit[i]);
  }
  EXPECT_EQ(batch.tokens[Uuid::digits], separator::recall);
  EXPECT_EQ(batch.tokens[Uuid::digits + 1], pairs[0].value.digit[0]);
}

TEST(Pairs, SmallSetsBeginLargeOnes) {
  const PairSet small(3, 9);
  const PairSet large(10, 9);
  for (Index i = 0; i < 3; ++i) {
    EXPECT_EQ(small[i].key.digit, large[i].key.digit);
    EXPECT_EQ(small[i].value.digit, large[i].value.digit);
  }
  EXPECT_NE(PairSet(1, 10)[0].key.digit, small[0].key.digit);
}

TEST(Pairs, ExchangedKeepsKeysAndMovesValues) {
  const PairSet pairs(3, 9);
  const PairSet other = pairs.exchanged();
  for (Index i = 0; i < 3; ++i) {
    EXPECT_EQ(other[i].key.digit, pairs[i].key.digit);
    EXPECT_EQ(other[i].value.digit, pairs[(i + 1) % 3].value.digit);
  }
}

TEST(Pairs, SwappedTwiceIsTheKey) {
  const Uuid key = any_uuid();
  EXPECT_EQ(value_of(key, separator::copy).digit, key.digit);
  const Uuid swapped = value_of(key, separator::swapped);
  EXPECT_EQ(swapped.digit[0], key.digit[16]);
  EXPECT_EQ(value_of(swapped, separator::swapped).digit, key.digit);
}

class WeightFile : public testing::Test {
 protected:
  void SetUp() override {
    weights.emplace_back(Logits::Random(3, 5));
    weights.emplace_back(Logits::Random(1, 2));
    write_weights(path, "a base", weights);
  }
  void expect_refused(const std::string& bytes) {
    write_file(path, bytes);
    EXPECT_THROW((void)read_weights(path, "a base"), mora::FormatError);
  }
  TemporaryFolder folder;
  const std::filesystem::path path = folder / "base.bin";
  Weights weights;
};

TEST_F(WeightFile, GivesBackWhatWasWritten) {
  const Weights found = read_weights(path, "a base");
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0], weights[0]);
  EXPECT_EQ(found[1], weights[1]);
}

TEST_F(WeightFile, RefusesOtherContents) {
  EXPECT_THROW((void)read_weights(path, "another base"), mora::FormatError);
}

TEST_F(WeightFile, RefusesEveryChangedByte) {
  const std::string bytes = read_file(path);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::string changed = bytes;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    expect_refused(changed);
  }
}

TEST_F(WeightFile, RefusesEveryCutAndMore) {
  const std::string bytes = read_file(path);
  for (std::size_t size = 0; size < bytes.size(); ++size) expect_refused(bytes.substr(0, size));
  expect_refused(bytes + '\0');
}

TEST_F(WeightFile, SaysWhatIsMissing) {
  EXPECT_THROW((void)read_weights(folder / "none.bin", "a base"), mora::FileError);
}

TEST(Journal, GoesOnWhereItWas) {
  const TemporaryFolder folder;
  const auto path = folder / "runs.txt";
  const auto make = [](double loss) {
    RunResult run;
    run.settings = {.rank = 2, .pairs = 64, .learning_rate = 3e-3, .seed = 1};
    run.parameters = 4448;
    run.curve = {{0, {.loss = 2.9}}, {10, {.loss = loss, .accuracy = 1.0 / 3.0, .bits = 0.1}}};
    run.recall = run.curve.back().recall;
    return run;
  };
  {
    Journal journal(path);
    EXPECT_EQ(journal.size(), 0u);
    (void)journal.run("a", [&] { return make(1.0); });
    (void)journal.run("b", [&] { return make(2.0); });
  }
  const std::string bytes = read_file(path);
  write_file(path, bytes.substr(0, bytes.size() - 3));  // killed while it wrote
  Journal journal(path);
  EXPECT_EQ(journal.size(), 1u);
  int made = 0;
  const auto count = [&] {
    ++made;
    return make(3.0);
  };
  const RunResult a = journal.run("a", count);
  EXPECT_EQ(made, 0);
  EXPECT_EQ(a.recall.loss, 1.0);
  EXPECT_EQ(a.recall.accuracy, 1.0 / 3.0);
  EXPECT_EQ(a.settings.learning_rate, 3e-3);
  EXPECT_EQ(a.curve.size(), 2u);
  EXPECT_EQ(journal.run("b", count).recall.loss, 3.0);
  EXPECT_EQ(made, 1);
  journal.remove();
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(Journal, StaysForRunsThatWereNotAskedFor) {
  const TemporaryFolder folder;
  const auto path = folder / "runs.txt";
  const auto make = [] {
    RunResult run;
    run.curve = {{0, {}}};
    return run;
  };
  for (const char* const key : {"a", "b"}) (void)Journal(path).run(key, make);
  Journal smaller(path);
  (void)smaller.run("a", make);
  smaller.remove();
  Journal all(path);
  EXPECT_EQ(all.size(), 2u);
  for (const char* const key : {"a", "b", "c"}) (void)all.run(key, make);
  all.remove();
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(Journal, RefusesWhatIsNone) {
  const TemporaryFolder folder;
  write_file(folder / "runs.txt", "a line of something else\n");
  EXPECT_THROW(Journal(folder / "runs.txt"), mora::FormatError);
}

Options parsed(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "uuid_memorization");
  return parse_options(static_cast<int>(arguments.size()), arguments.data());
}

TEST(CommandLine, TakesPartsOfAGrid) {
  const Options options =
      parsed({"--ranks=2,4", "--pairs", "16,32,48", "--rates=0.01,0.1", "--methods=lora,full",
              "--seeds=5", "--steps=7", "--base-steps=9", "--out=here", "--threads=3"});
  EXPECT_EQ(options.grid.ranks, (std::vector<Index>{2, 4}));
  EXPECT_EQ(options.grid.pairs, (std::vector<Index>{16, 32, 48}));
  EXPECT_EQ(options.grid.search_pairs, 32);
  EXPECT_EQ(options.grid.rates, (std::vector<double>{0.01, 0.1}));
  EXPECT_EQ(options.grid.methods, (std::vector<std::string>{"lora", "full"}));
  EXPECT_EQ(options.grid.seeds, 5);
  EXPECT_EQ(options.grid.training.steps, 7);
  EXPECT_EQ(options.grid.base.steps, 9);
  EXPECT_EQ(options.cache_folder(), "here");
  EXPECT_EQ(options.threads, 3);
}

TEST(CommandLine, PutsPartsOverTheGridInAnyOrder) {
  EXPECT_EQ(parsed({"--seeds=2", "--tiny"}).grid.seeds, 2);
  EXPECT_EQ(parsed({"--search-pairs=8", "--pairs=16,32"}).grid.search_pairs, 8);
  const Options both = parsed({"--base-steps=9", "--tiny"});
  EXPECT_EQ(both.grid.base.width, tiny_grid().base.width);
  EXPECT_EQ(both.grid.base.steps, 9);
}

TEST(CommandLine, RefusesWhatCannotBe) {
  for (const char* argument :
       {"--step=7", "--steps=0", "--steps=7x", "--steps=", "--base-steps=-1", "--ranks=4,2",
        "--ranks=2,,4", "--rates=0.1,0.1", "--rates=nan", "--threads=0", "--out=", "--seeds"}) {
    EXPECT_THROW((void)parsed({argument}), mora::ArgumentError) << argument;
  }
}

}  // namespace
