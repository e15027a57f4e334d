// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <mora/train/batches.hpp>
#include <mora/train/byte_tokenizer.hpp>
#include <mora/train/prompt_responses.hpp>
#include <mora/train/token_windows.hpp>
#include <numeric>
#include <utility>

#include "support/batches.hpp"
#include "support/throws.hpp"

/// \file
/// From text to batches: the tokenizer, the data sets, and the order in which they are gone
/// through.

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::Batches;
using mora::ByteTokenizer;
using mora::DataPosition;
using mora::ignored;
using mora::PromptResponses;
using mora::Sampler;
using mora::SamplerSettings;
using mora::ShapeError;
using mora::TokenWindows;
using mora::TokenWindowsSettings;
using Rest = TokenWindowsSettings::Rest;

constexpr Index huge = std::numeric_limits<Index>::max();

TEST(ByteTokenizer, GivesEveryByteItsOwnNumber) {
  std::string every_byte;
  for (int i = 0; i < 256; ++i) every_byte.push_back(char(i));
  Tokens expected(256);
  std::iota(expected.begin(), expected.end(), 0);
  const ByteTokenizer tokenizer;
  EXPECT_EQ(tokenizer.encode(every_byte), expected);
  EXPECT_EQ(tokenizer.decode(expected), every_byte);
  EXPECT_EQ(tokenizer.encode(""), Tokens());
  EXPECT_EQ(tokenizer.encode("\xc3\xa9"), (Tokens{0xc3, 0xa9}));
}

TEST(ByteTokenizer, LeavesSpecialTokensOutOfTheText) {
  EXPECT_EQ(ByteTokenizer().decode(Tokens{256, 'a', 258, 'b', 257}), "ab");
  EXPECT_EQ(ByteTokenizer::bos, 256);
  EXPECT_EQ(ByteTokenizer::eos, 257);
  EXPECT_EQ(ByteTokenizer::pad, 258);
  EXPECT_EQ(ByteTokenizer::vocabulary, 259);
}

TEST(ByteTokenizer, RefusesTokensThatItDoesNotHave) {
  for (const Token wrong : {Token{259}, Token{-1}, std::numeric_limits<Token>::max()}) {
    EXPECT_TRUE(
        throws<ArgumentError>({"token 2: expected 0 to 258, found ", std::to_string(wrong)}, [&] {
          (void)ByteTokenizer().decode(Tokens{1, 2, wrong, 3});
        }));
  }
}

[[nodiscard]] Tokens counting(Index size) {
  Tokens tokens(static_cast<std::size_t>(size));
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

/// All examples of a data set in one batch.
template <class D>
[[nodiscard]] Batch all_of(const D& dataset) {
  Batch batch;
  for (Index i = 0; i < dataset.size(); ++i) dataset.add_to(i, batch);
  return batch;
}

// Put together, the windows are the text; their targets are the text from its second token on.
TEST(TokenWindows, PredictEveryTokenButTheFirstOnce) {
  for (Index size = 2; size < 14; ++size) {
    const Tokens text = counting(size);
    for (Index length = 1; length < 16; ++length) {
      SCOPED_TRACE(testing::Message() << size << " tokens, length " << length);
      const TokenWindows windows(std::span<const Token>(text), {.length = length});
      const Batch batch = all_of(windows);
      EXPECT_EQ(batch.tokens, Tokens(text.begin(), text.end() - 1));
      EXPECT_EQ(batch.targets, Tokens(text.begin() + 1, text.end()));
      for (Index i = 0; i + 1 < batch.sequences(); ++i) {
        EXPECT_EQ(batch.starts[i + 1] - batch.starts[i], length);
      }
      batch.validate(size);

      if (size <= length) continue;
      const TokenWindows whole(text, {.length = length, .rest = Rest::drop});
      const Batch of_whole = all_of(whole);
      EXPECT_EQ(whole.size(), (size - 1) / length);
      ASSERT_EQ(of_whole.positions(), whole.size() * length);
      EXPECT_TRUE(std::equal(of_whole.tokens.begin(), of_whole.tokens.end(), text.begin()));
      EXPECT_TRUE(std::equal(of_whole.targets.begin(), of_whole.targets.end(), text.begin() + 1));
      for (Index i = 0; i <= of_whole.sequences(); ++i) {
        EXPECT_EQ(of_whole.starts[i], i * length);
      }
    }
  }
}

TEST(TokenWindows, AreTheSameOfAnySequence) {
  const Tokens text = {3, 1, 4, 1, 5, 9, 2, 6};
  const std::vector<std::uint16_t> small(text.begin(), text.end());
  const Batch expected = all_of(TokenWindows(text, {.length = 3}));
  EXPECT_EQ(all_of(TokenWindows(std::span<const Token>(text), {.length = 3})), expected);
  EXPECT_EQ(all_of(TokenWindows(std::span<const std::uint16_t>(small), {.length = 3})), expected);
}

TEST(TokenWindows, RefuseTextWithoutAWindow) {
  EXPECT_TRUE(throws<ArgumentError>({"tokens: expected at least 2, found 0"},
                                    [] { TokenWindows(Tokens(), {.length = 3}); }));
  EXPECT_TRUE(throws<ArgumentError>({"tokens: expected at least 2, found 1"},
                                    [] { TokenWindows(Tokens{1}, {.length = 3}); }));
  EXPECT_TRUE(throws<ArgumentError>({"tokens: expected at least 4, found 3"}, [] {
    TokenWindows(Tokens{1, 2, 3}, {.length = 3, .rest = Rest::drop});
  }));
  EXPECT_EQ(TokenWindows(Tokens(4), {.length = 3, .rest = Rest::drop}).size(), 1);
  EXPECT_EQ(TokenWindows(Tokens(2), {.length = mora::max_positions}).size(), 1);
}

TEST(TokenWindows, RefuseLengthsThatCannotBe) {
  for (const Index length : {Index{0}, Index{-1}, mora::max_positions + 1, huge, -huge}) {
    EXPECT_TRUE(
        throws<ArgumentError>({"length: expected 1 to 2147483647, found ", std::to_string(length)},
                              [&] { TokenWindows(Tokens(4), {.length = length}); }));
  }
}

template <class D>
void expect_refused_examples(const D& dataset) {
  for (const Index example : {Index{-1}, dataset.size(), huge, -huge}) {
    Batch batch;
    EXPECT_TRUE(throws<ArgumentError>(
        {"example: expected 0 <= example < ", std::to_string(dataset.size()), "found "},
        [&] { dataset.add_to(example, batch); }));
    EXPECT_EQ(batch, Batch());
  }
}

TEST(TokenWindows, RefuseExamplesThatAreNotThere) {
  TokenWindows windows(counting(9), {.length = 3});
  expect_refused_examples(windows);
  const TokenWindows moved = std::move(windows);
  EXPECT_EQ(moved.size(), 3);
  Batch batch;
  EXPECT_TRUE(throws<ShapeError>(
      {"found"}, [&] { windows.add_to(0, batch); }));  // NOLINT(bugprone-use-after-move)
}

TEST(PromptResponses, HaveLossOnTheResponseAlone) {
  PromptResponses plain;
  EXPECT_TRUE(plain.add(Tokens{1, 2, 3}, Tokens{4, 5}));
  EXPECT_TRUE(plain.add(Tokens{6}, Tokens{7}));
  Batch expected;
  expected.add(Tokens{1, 2, 3, 4}, Tokens{ignored, ignored, 4, 5});
  expected.add(Tokens{6}, Tokens{7});
  EXPECT_EQ(all_of(plain), expected);

  PromptResponses framed({.begin = 256, .end = 257, .vocabulary = 259});
  EXPECT_TRUE(framed.add(Tokens{1, 2}, Tokens{3}));
  EXPECT_TRUE(framed.add({}, {}));
  EXPECT_EQ(framed.size(), 2);
  expected = Batch();
  expected.add(Tokens{256, 1, 2, 3}, Tokens{ignored, ignored, 3, 257});
  expected.add(Tokens{256}, Tokens{257});
  EXPECT_EQ(all_of(framed), expected);
  EXPECT_EQ(framed.truncated(), 0);
  EXPECT_EQ(framed.dropped(), 0);
}

// Against the plain definition: join, cut, look from which token on there is loss.
TEST(PromptResponses, AreCutAtTheirEndAndCounted) {
  Random random(2);
  for (Index max_length = 2; max_length < 12; ++max_length) {
    for (const bool begin : {false, true}) {
      for (const bool end : {false, true}) {
        SCOPED_TRACE(testing::Message() << "max_length " << max_length << begin << end);
        PromptResponses examples({.begin = begin ? std::optional<Token>(50) : std::nullopt,
                                  .end = end ? std::optional<Token>(51) : std::nullopt,
                                  .max_length = max_length});
        Batch expected;
        Index truncated = 0;
        Index dropped = 0;
        for (Index before = 1; before < 7; ++before) {
          for (Index after = 1; after < 7; ++after) {
            const Tokens prompt = random_tokens(random, before, 50);
            const Tokens response = random_tokens(random, after, 50);
            Tokens joined = prompt;
            if (begin) joined.insert(joined.begin(), 50);
            const Index first = std::ssize(joined);
            joined.insert(joined.end(), response.begin(), response.end());
            if (end) joined.push_back(51);
            const bool cut = std::ssize(joined) > max_length;
            if (cut) joined.resize(std::size_t(max_length));
            const bool kept = std::ssize(joined) > first;
            EXPECT_EQ(examples.add(prompt, response), kept);
            if (kept) {
              truncated += cut ? 1 : 0;
              Tokens targets(joined.begin() + 1, joined.end());
              for (Index i = 0; i + 1 < first; ++i) targets[i] = ignored;
              joined.pop_back();
              expected.add(joined, targets);
            } else {
              ++dropped;
            }
          }
        }
        EXPECT_EQ(examples.truncated(), truncated);
        EXPECT_EQ(examples.dropped(), dropped);
        EXPECT_EQ(all_of(examples), expected);
        for (Index i = 0; i < examples.size(); ++i) {
          Batch one;
          examples.add_to(i, one);
          EXPECT_GT(one.target_count(), 0);
          EXPECT_LT(one.positions(), max_length);
        }
      }
    }
  }
}

TEST(PromptResponses, RefuseExamplesThatTeachNothing) {
  PromptResponses plain;
  ASSERT_TRUE(plain.add(Tokens{1}, Tokens{2}));
  EXPECT_TRUE(throws<ShapeError>({"response of example 1: expected at least one token", "end"},
                                 [&] { plain.add(Tokens{1}, {}); }));
  EXPECT_TRUE(throws<ShapeError>({"prompt of example 1: expected at least one token", "begin"},
                                 [&] { plain.add({}, Tokens{1}); }));
  EXPECT_EQ(plain.size(), 1);
  EXPECT_EQ(plain.dropped(), 0);
}

TEST(PromptResponses, RefuseTokensOutsideTheVocabularyWithTheirPosition) {
  PromptResponses examples({.max_length = 3, .vocabulary = 10});
  ASSERT_TRUE(examples.add(Tokens{1}, Tokens{2}));
  ASSERT_FALSE(examples.add(Tokens{1, 2, 3}, Tokens{2}));
  for (const Token wrong : {Token{10}, Token{-1}, std::numeric_limits<Token>::max()}) {
    const auto found = "expected 0 to 9, found " + std::to_string(wrong);
    EXPECT_TRUE(throws<ArgumentError>({"prompt of example 2, token 1: ", found}, [&] {
      examples.add(Tokens{1, wrong}, Tokens{2});
    }));
    // Also behind the place where it would be cut.
    EXPECT_TRUE(throws<ArgumentError>({"response of example 2, token 3: ", found}, [&] {
      examples.add(Tokens{1}, Tokens{2, 3, 4, wrong});
    }));
  }
  EXPECT_EQ(examples.size(), 1);
}

TEST(PromptResponses, RefuseSettingsThatCannotBe) {
  const auto refused = [](std::initializer_list<std::string_view> parts,
                          const mora::PromptResponsesSettings& settings) {
    return throws<ArgumentError>(parts, [&] { PromptResponses examples(settings); });
  };
  for (const Index length : {Index{0}, Index{1}, Index{-1}, mora::max_positions + 1, huge}) {
    EXPECT_TRUE(refused({"max_length: expected 2 to 2147483647, found ", std::to_string(length)},
                        {.max_length = length}));
  }
  for (const Index vocabulary : {Index{0}, Index{-5}, mora::max_vocabulary + 1}) {
    EXPECT_TRUE(refused({"vocabulary: expected 1 to 2147483648"}, {.vocabulary = vocabulary}));
  }
  EXPECT_TRUE(refused({"begin: expected 0 to 9, found 10"}, {.begin = 10, .vocabulary = 10}));
  EXPECT_TRUE(refused({"begin: expected 0 to ", "found -1"}, {.begin = -1}));
  EXPECT_TRUE(refused({"end: expected 0 to 9, found 10"}, {.end = 10, .vocabulary = 10}));
}

TEST(PromptResponses, RefuseExamplesThatAreNotThere) {
  PromptResponses examples;
  expect_refused_examples(examples);
  examples.add(Tokens{1}, Tokens{2});
  expect_refused_examples(examples);
  const PromptResponses moved = std::move(examples);
  EXPECT_EQ(moved.size(), 1);
  expect_refused_examples(examples);  // NOLINT(bugprone-use-after-move)
}

/// The examples of one epoch, batch by batch.
[[nodiscard]] std::vector<std::vector<Index>> epoch_of(Sampler& sampler) {
  std::vector<std::vector<Index>> batches;
  for (const std::int64_t epoch = sampler.position().epoch; sampler.position().epoch == epoch;) {
    const auto batch = sampler.current();
    batches.emplace_back(batch.begin(), batch.end());
    sampler.advance();
  }
  return batches;
}

[[nodiscard]] std::vector<Index> joined(const std::vector<std::vector<Index>>& batches) {
  std::vector<Index> all;
  for (const auto& batch : batches) all.insert(all.end(), batch.begin(), batch.end());
  return all;
}

// Checkpoints depend on it. The numbers were computed apart, by a program of ten lines.
TEST(Sampler, ShufflesTheSameForEver) {
  const auto order = [](std::uint64_t seed, std::int64_t epoch) {
    Sampler sampler(10, {.batch_size = 10, .seed = seed});
    sampler.seek({epoch, 0});
    return joined(epoch_of(sampler));
  };
  EXPECT_EQ(order(0, 0), (std::vector<Index>{1, 7, 6, 2, 0, 9, 8, 4, 5, 3}));
  EXPECT_EQ(order(0, 1), (std::vector<Index>{7, 9, 6, 8, 1, 5, 0, 4, 3, 2}));
  EXPECT_EQ(order(1, 0), (std::vector<Index>{0, 8, 1, 4, 2, 3, 6, 9, 7, 5}));
  EXPECT_EQ(order(12345, 1'000'000), (std::vector<Index>{9, 6, 5, 3, 1, 7, 2, 8, 0, 4}));
}

TEST(Sampler, GoesThroughEveryExampleOnceAnEpoch) {
  for (Index examples = 1; examples < 9; ++examples) {
    for (Index batch_size = 1; batch_size < 11; ++batch_size) {
      for (const bool shuffle : {false, true}) {
        SCOPED_TRACE(testing::Message() << examples << " by " << batch_size << ", " << shuffle);
        std::vector<Index> in_order(std::size_t(examples), 0);
        std::iota(in_order.begin(), in_order.end(), Index{0});
        Sampler sampler(examples, {.batch_size = batch_size, .shuffle = shuffle, .seed = 3});
        for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
          EXPECT_EQ(sampler.position(), (DataPosition{epoch, 0}));
          const auto batches = epoch_of(sampler);
          EXPECT_EQ(std::ssize(batches), sampler.batches_per_epoch());
          for (std::size_t i = 0; i + 1 < batches.size(); ++i) {
            EXPECT_EQ(std::ssize(batches[i]), batch_size);
          }
          auto all = joined(batches);
          if (shuffle) std::sort(all.begin(), all.end());
          EXPECT_EQ(all, in_order);
        }

        if (batch_size > examples) continue;
        Sampler dropping(
            examples, {.batch_size = batch_size, .shuffle = shuffle, .drop_last = true, .seed = 3});
        sampler.seek({});
        for (int epoch = 0; epoch < 3; ++epoch) {
          const auto whole = epoch_of(dropping);
          auto expected = epoch_of(sampler);
          if (std::ssize(expected.back()) < batch_size) expected.pop_back();
          EXPECT_EQ(whole, expected);
          EXPECT_EQ(std::ssize(whole), dropping.batches_per_epoch());
        }
      }
    }
  }
}

TEST(Sampler, PutsEveryExampleEverywhere) {
  constexpr Index examples = 5;
  constexpr int epochs = 5000;
  std::vector<std::vector<int>> count(examples, std::vector<int>(examples, 0));
  Sampler sampler(examples, {.batch_size = examples, .seed = 4});
  for (int epoch = 0; epoch < epochs; ++epoch) {
    const auto order = sampler.current();
    for (Index i = 0; i < examples; ++i) ++count[std::size_t(i)][std::size_t(order[i])];
    sampler.advance();
  }
  for (const auto& row : count) {
    for (const int found : row) EXPECT_NEAR(found, epochs / examples, 5.0 * std::sqrt(800.0));
  }
}

TEST(Sampler, ShufflesNeighbouringSeedsAndEpochsDifferently) {
  std::vector<std::vector<Index>> orders;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    Sampler sampler(20, {.batch_size = 20, .seed = seed});
    for (int epoch = 0; epoch < 6; ++epoch) orders.push_back(joined(epoch_of(sampler)));
  }
  std::sort(orders.begin(), orders.end());
  EXPECT_EQ(std::adjacent_find(orders.begin(), orders.end()), orders.end());
}

TEST(Sampler, TakesBatchesOfAnySize) {
  Sampler sampler(3, {.batch_size = huge});
  EXPECT_EQ(sampler.batches_per_epoch(), 1);
  EXPECT_EQ(sampler.current().size(), 3u);
  sampler.advance();
  EXPECT_EQ(sampler.position(), (DataPosition{1, 0}));
}

TEST(Sampler, RefusesWhatCannotBe) {
  for (const Index examples : {Index{0}, Index{-1}, huge, -huge}) {
    EXPECT_TRUE(throws<ArgumentError>({"examples: expected 1 to ", "found "}, [&] {
      Sampler(examples, {});
    })) << examples;
  }
  for (const Index size : {Index{0}, Index{-1}, -huge}) {
    EXPECT_TRUE(throws<ArgumentError>({"batch_size: expected at least 1, found "},
                                      [&] { Sampler(3, {.batch_size = size}); }));
  }
  EXPECT_TRUE(throws<ArgumentError>({"batch_size: expected at most the 3 examples", "found 4"},
                                    [] { Sampler(3, {.batch_size = 4, .drop_last = true}); }));
}

TEST(Sampler, RefusesWhatIsNoPosition) {
  constexpr std::int64_t last = std::numeric_limits<std::int64_t>::max();
  Sampler sampler(5, {.batch_size = 2, .seed = 9});
  sampler.advance();
  const auto before = sampler.position();
  const std::vector<Index> batch(sampler.current().begin(), sampler.current().end());
  for (const DataPosition& to : {DataPosition{-1, 0}, DataPosition{last, 0}, DataPosition{last, 5},
                                 DataPosition{0, -1}, DataPosition{0, 6}, DataPosition{0, huge}}) {
    EXPECT_TRUE(throws<ArgumentError>({to.epoch == 0 ? "example: " : "epoch: ", "expected 0 to "},
                                      [&] { sampler.seek(to); }));
  }
  EXPECT_TRUE(throws<ArgumentError>({"example: ", "a multiple of batch_size = 2", "found 3"}, [&] {
    sampler.seek({0, 3});
  }));
  EXPECT_EQ(sampler.position(), before);
  EXPECT_EQ(batch, std::vector<Index>(sampler.current().begin(), sampler.current().end()));
  sampler.seek({last - 1, 0});
  sampler.seek({0, 5});
  EXPECT_EQ(sampler.position(), (DataPosition{1, 0}));
}

TEST(Sampler, ThatWasMovedFromIsRefused) {
  Sampler sampler(5, {.batch_size = 2});
  const Sampler moved = std::move(sampler);
  EXPECT_EQ(moved.current().size(), 2u);
  EXPECT_TRUE(throws<mora::StateError>(
      {"moved from"}, [&] { (void)sampler.current(); }));  // NOLINT(bugprone-use-after-move)
}

/// Examples whose tokens tell which one they are.
[[nodiscard]] PromptResponses numbered(Index count) {
  PromptResponses examples;
  for (Index i = 0; i < count; ++i) {
    examples.add(Tokens(std::size_t(1 + i % 3), Token(i)), Tokens{Token(i)});
  }
  return examples;
}

TEST(Batches, AreTheExamplesOfTheSampler) {
  Batches batches(numbered(7), {.batch_size = 3, .seed = 5});
  Sampler sampler(7, {.batch_size = 3, .seed = 5});
  for (int step = 0; step < 10; ++step) {
    EXPECT_EQ(batches.position(), sampler.position());
    Batch expected;
    for (const Index example : sampler.current()) batches.dataset().add_to(example, expected);
    EXPECT_EQ(batches.next(), expected);
    sampler.advance();
  }
  EXPECT_EQ(batches.batches_per_epoch(), 3);
}

TEST(Batches, InOrderAreTheDataSet) {
  Batches batches(numbered(7), {.batch_size = 3, .shuffle = false});
  for (int epoch = 0; epoch < 2; ++epoch) {
    Tokens tokens;
    for (Index i = 0; i < batches.batches_per_epoch(); ++i) {
      const Batch& batch = batches.next();
      tokens.insert(tokens.end(), batch.tokens.begin(), batch.tokens.end());
    }
    EXPECT_EQ(tokens, all_of(batches.dataset()).tokens);
  }
}

// At every step of three epochs: who seeks to the position gets what the first run got.
TEST(Batches, GoOnFromAPositionAsIfTheyHadNeverStopped) {
  for (const bool shuffle : {false, true}) {
    for (const bool drop_last : {false, true}) {
      const SamplerSettings settings{
          .batch_size = 3, .shuffle = shuffle, .drop_last = drop_last, .seed = 11};
      constexpr int steps = 12;
      std::vector<DataPosition> positions;
      std::vector<Batch> expected;
      Batches uninterrupted(numbered(10), settings);
      for (int step = 0; step < steps; ++step) {
        positions.push_back(uninterrupted.position());
        expected.push_back(uninterrupted.next());
      }
      for (int stop = 0; stop < steps; ++stop) {
        Batches resumed(numbered(10), settings);
        resumed.seek(positions[std::size_t(stop)]);
        for (int step = stop; step < steps; ++step) {
          EXPECT_EQ(resumed.next(), expected[std::size_t(step)]) << stop << " to " << step;
        }
      }
    }
  }
}

/// A data set of a user's own, one of whose examples cannot be had the first time.
class Stubborn {
 public:
  explicit Stubborn(int& failures) : failures_(&failures) {}
  [[nodiscard]] Index size() const { return 4; }
  void add_to(Index i, Batch& batch) const {
    if (i == 3 && (*failures_)-- > 0) throw std::runtime_error("not now");
    batch.add_next_tokens(Tokens{Token(i), Token(i)});
  }

 private:
  int* failures_;
};

TEST(Batches, StayWhereTheyAreWhenTheDataSetThrows) {
  int failures = 1;
  Batches batches(Stubborn(failures), {.batch_size = 2, .shuffle = false});
  EXPECT_EQ(batches.next().tokens, (Tokens{0, 0, 1, 1}));
  EXPECT_THROW((void)batches.next(), std::runtime_error);
  EXPECT_EQ(batches.position(), (DataPosition{0, 2}));
  EXPECT_EQ(batches.next().tokens, (Tokens{2, 2, 3, 3}));
  EXPECT_EQ(batches.position(), (DataPosition{1, 0}));
}

TEST(Batches, RefuseAnEmptyDataSet) {
  EXPECT_TRUE(throws<ArgumentError>({"examples: expected 1 to ", "found 0"}, [] {
    Batches<PromptResponses>(PromptResponses(), {.batch_size = 2});
  }));
  EXPECT_TRUE(throws<ArgumentError>({"batch_size: expected at least 1, found 0"}, [] {
    Batches<PromptResponses>(numbered(2), {.batch_size = 0});
  }));
}

}  // namespace
}  // namespace mora_tests
