// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>
#include <mora/models/batch.hpp>
#include <utility>

#include "support/batches.hpp"
#include "support/throws.hpp"

/// \file
/// Packed batches: what is added, what the targets are, and what is refused.

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::ignored;
using mora::ShapeError;

constexpr Index huge = std::numeric_limits<Index>::max();

/// Two sequences, of 3 and 2 positions.
[[nodiscard]] Batch make_batch() {
  Batch batch;
  batch.add(Tokens{5, 6, 7}, Tokens{6, 7, ignored});
  batch.add(Tokens{8, 9}, Tokens{ignored, 4});
  return batch;
}

template <class E, class F>
[[nodiscard]] testing::AssertionResult refuses(Batch& batch,
                                               std::initializer_list<std::string_view> parts,
                                               const F& call) {
  const Batch before = batch;
  testing::AssertionResult result = throws<E>(parts, call);
  if (result && !(batch == before)) return testing::AssertionFailure() << "has changed the batch";
  return result;
}

TEST(Batch, WithoutSequencesIsValid) {
  Batch batch;
  EXPECT_EQ(batch.sequences(), 0);
  EXPECT_EQ(batch.positions(), 0);
  EXPECT_EQ(batch.target_count(), 0);
  batch.validate(1);
}

TEST(Batch, PacksSequencesOfDifferentLengths) {
  const Batch batch = make_batch();
  EXPECT_EQ(batch.tokens, (Tokens{5, 6, 7, 8, 9}));
  EXPECT_EQ(batch.targets, (Tokens{6, 7, ignored, ignored, 4}));
  EXPECT_EQ(batch.starts, (std::vector<Index>{0, 3, 5}));
  EXPECT_EQ(batch.sequences(), 2);
  EXPECT_EQ(batch.positions(), 5);
  EXPECT_EQ(batch.target_count(), 3);
  batch.validate(10);
}

TEST(Batch, OfOnePositionAndWithoutTargetsIsValid) {
  Batch batch;
  batch.add_next_tokens(Tokens{3});
  EXPECT_EQ(batch.target_count(), 0);
  batch.validate(4);
}

TEST(Batch, KeepsItsMemoryWhenItIsCleared) {
  Batch batch = make_batch();
  const Token* const tokens = batch.tokens.data();
  const Token* const targets = batch.targets.data();
  const Index* const starts = batch.starts.data();
  batch.clear();
  EXPECT_EQ(batch, Batch());
  batch.add(Tokens{1, 2, 3, 4, 5}, Tokens{1, 2, 3, 4, 5});
  EXPECT_EQ(batch.tokens.data(), tokens);
  EXPECT_EQ(batch.targets.data(), targets);
  EXPECT_EQ(batch.starts.data(), starts);
}

// A batch that was moved from is filled again after clear(), and refuses before.
TEST(Batch, ThatWasMovedFromIsRefusedUntilItIsCleared) {
  Batch batch = make_batch();
  const Batch moved = std::move(batch);
  EXPECT_EQ(moved, make_batch());
  EXPECT_EQ(batch.sequences(), 0);  // NOLINT(bugprone-use-after-move)
  EXPECT_TRUE(throws<ShapeError>({"starts: expected at least one number, found 0"},
                                 [&] { batch.validate(10); }));
  EXPECT_TRUE(throws<ShapeError>({"starts: "}, [&] { batch.add(Tokens{1}, Tokens{1}); }));
  batch.clear();
  batch.add_next_tokens(Tokens{1, 2});
  EXPECT_EQ(batch.targets, (Tokens{2, ignored}));
}

// Hugging Face: labels are the tokens, -100 before `first`; the loss of position i compares its
// output with labels[i + 1], and the last position has none.
TEST(NextTokenTargets, AreHuggingFacesLabelsShiftedByOne) {
  Random random(1);
  for (Index size = 0; size < 8; ++size) {
    for (Index first = 0; first <= size; ++first) {
      const Tokens tokens = random_tokens(random, size, 100);
      constexpr Token no_label = -100;
      Tokens labels = tokens;
      for (Index i = 0; i < first; ++i) labels[i] = no_label;
      Tokens targets(tokens.size(), 7);
      mora::next_token_targets(tokens, first, targets);
      for (Index i = 0; i < size; ++i) {
        const Token label = i + 1 < size ? labels[i + 1] : no_label;
        EXPECT_EQ(targets[i], label == no_label ? ignored : label) << i << " of " << size;
      }
      if (size == 0) continue;
      Batch batch = make_batch();
      Batch expected = batch;
      batch.add_next_tokens(tokens, first);
      expected.add(tokens, targets);
      EXPECT_EQ(batch, expected);
    }
  }
}

TEST(NextTokenTargets, RefuseWhatIsNoPosition) {
  const Tokens tokens = {1, 2, 3};
  Tokens targets(3);
  for (const Index first : {Index{-1}, Index{4}, huge, -huge}) {
    const auto found = "found " + std::to_string(first);
    EXPECT_TRUE(throws<ArgumentError>({"first: expected 0 to 3, ", found},
                                      [&] { mora::next_token_targets(tokens, first, targets); }));
    Batch batch = make_batch();
    EXPECT_TRUE(refuses<ArgumentError>(batch, {"first: expected 0 to 3, ", found},
                                       [&] { batch.add_next_tokens(tokens, first); }));
  }
  targets.resize(2);
  EXPECT_TRUE(throws<ShapeError>({"targets: expected 3, found 2"},
                                 [&] { mora::next_token_targets(tokens, 0, targets); }));
}

TEST(Batch, TakesAWindowOfAText) {
  const Tokens text = {10, 11, 12, 13, 14, 15};
  Batch batch = make_batch();
  Batch expected = batch;
  batch.add_window(text, 2, 3);
  expected.add(Tokens{12, 13, 14}, Tokens{13, 14, 15});
  EXPECT_EQ(batch, expected);
  batch.add_window(std::span(text), 0, 5);
  expected.add(Tokens{10, 11, 12, 13, 14}, Tokens{11, 12, 13, 14, 15});
  EXPECT_EQ(batch, expected);
  const std::vector<std::uint16_t> small = {3, 2, 1};
  batch.add_window(small, 1, 1);
  expected.add(Tokens{2}, Tokens{1});
  EXPECT_EQ(batch, expected);
}

TEST(Batch, RefusesAWindowBeyondTheText) {
  const Tokens text = {10, 11, 12, 13};
  Batch batch = make_batch();
  constexpr std::pair<Index, Index> windows[] = {{0, 4},    {1, 3},    {3, 1},       {4, 0},
                                                 {9, 1},    {-1, 2},   {0, -1},      {huge, huge},
                                                 {1, huge}, {huge, 1}, {-huge, huge}};
  for (const auto& [first, count] : windows) {
    EXPECT_TRUE(refuses<ShapeError>(
        batch, {"window: expected a part of 4 tokens and one behind it, ", "found ", "from number"},
        [&, f = first, c = count] { batch.add_window(text, f, c); }))
        << first << " " << count;
  }
  EXPECT_TRUE(refuses<ShapeError>(batch, {"sequence 2: ", "at least one position, found 0"},
                                  [&] { batch.add_window(text, 1, 0); }));
}

TEST(Batch, RefusesASequenceWithoutPositions) {
  Batch batch = make_batch();
  EXPECT_TRUE(refuses<ShapeError>(batch, {"sequence 2: expected at least one position, found 0"},
                                  [&] { batch.add({}, {}); }));
  EXPECT_TRUE(refuses<ShapeError>(batch, {"sequence 2: expected at least one position, found 0"},
                                  [&] { batch.add_next_tokens({}); }));
}

TEST(Batch, RefusesTargetsOfAnotherSize) {
  Batch batch = make_batch();
  EXPECT_TRUE(refuses<ShapeError>(batch, {"targets of a sequence: expected 2, found 3"}, [&] {
    batch.add(Tokens{1, 2}, Tokens{1, 2, 3});
  }));
}

TEST(Batch, RefusesMorePositionsThanCanBeNumberedBeforeItTakesMemory) {
  Batch batch = make_batch();
  constexpr Index too_many = mora::max_positions - 5 + 1;
  for (const Index size : {too_many, Index{1} << 31, Index{1} << 40}) {
    const auto claimed = claimed_tokens(size);
    const auto found = "found " + std::to_string(size);
    EXPECT_TRUE(refuses<ShapeError>(batch, {"sequence 2: expected at most 2147483642 ", found},
                                    [&] { batch.add(claimed, claimed); }));
    EXPECT_TRUE(refuses<ShapeError>(batch, {"sequence 2: expected at most 2147483642 ", found},
                                    [&] { batch.add_next_tokens(claimed); }));
  }
  EXPECT_TRUE(refuses<ShapeError>(batch, {"sequence 2: expected at most 2147483642 "}, [&] {
    batch.add_window(claimed_tokens(too_many + 1), 0, too_many);
  }));
  EXPECT_LT(batch.tokens.capacity(), 100u);
}

// Adding may move the memory that is read.
TEST(Batch, RefusesItsOwnMemory) {
  Batch batch = make_batch();
  const Tokens other(2, 1);
  const std::span<const Token> tokens(batch.tokens);
  const std::span<const Token> targets(batch.targets);
  const auto refused = [&](const auto& call) {
    return refuses<ArgumentError>(batch, {"memory of its own"}, call);
  };
  EXPECT_TRUE(refused([&] { batch.add(tokens.first(2), other); }));
  EXPECT_TRUE(refused([&] { batch.add(targets.last(2), other); }));
  EXPECT_TRUE(refused([&] { batch.add(other, tokens.first(2)); }));
  EXPECT_TRUE(refused([&] { batch.add(other, targets.last(2)); }));
  EXPECT_TRUE(refused([&] { batch.add_next_tokens(tokens); }));
  EXPECT_TRUE(refused([&] { batch.add_next_tokens(targets); }));
  EXPECT_TRUE(refused([&] { batch.add_window(batch.tokens, 0, 2); }));
  EXPECT_TRUE(refused([&] { batch.add_window(targets, 0, 2); }));
}

TEST(Batch, RefusesToValidateTokensOutsideTheVocabulary) {
  constexpr Token largest = std::numeric_limits<Token>::max();
  const auto refused = [](const Batch& batch, const char* place, Index vocabulary, Token found) {
    const std::string expected = "to " + std::to_string(vocabulary - 1) + ", ";
    return throws<ArgumentError>({place, expected, "found " + std::to_string(found)},
                                 [&] { batch.validate(vocabulary); });
  };
  for (const Token wrong : {Token{10}, Token{-1}, Token{-2}, largest, -largest - 1}) {
    Batch batch = make_batch();
    batch.tokens[4] = wrong;
    EXPECT_TRUE(refused(batch, "token 1 of sequence 1 (position 4): expected 0 ", 10, wrong));
    if (wrong == ignored) continue;
    batch = make_batch();
    batch.targets[1] = wrong;
    EXPECT_TRUE(refused(batch, "target 1 of sequence 0 (position 1): expected -1 ", 10, wrong));
  }
  Batch batch;
  batch.add(Tokens{largest}, Tokens{largest});
  batch.validate(mora::max_vocabulary);
  EXPECT_TRUE(refused(batch, "token 0 of sequence 0", mora::max_vocabulary - 1, largest));
}

TEST(Batch, RefusesAVocabularyThatCannotBe) {
  const Batch batch = make_batch();
  for (const Index vocabulary : {Index{0}, Index{-1}, mora::max_vocabulary + 1, huge, -huge}) {
    EXPECT_TRUE(throws<ArgumentError>({"vocabulary: expected 1 to 2147483648, found "}, [&] {
      batch.validate(vocabulary);
    })) << vocabulary;
  }
}

TEST(Batch, RefusesToValidateSizesThatDoNotFit) {
  const auto refused = [](std::initializer_list<std::string_view> parts, const auto& change) {
    Batch batch = make_batch();
    change(batch);
    return throws<ShapeError>(parts, [&] { batch.validate(10); });
  };
  EXPECT_TRUE(refused({"targets: expected 5, found 4"}, [](Batch& b) { b.targets.pop_back(); }));
  EXPECT_TRUE(refused({"targets: expected 6, found 5"}, [](Batch& b) { b.tokens.push_back(1); }));
  EXPECT_TRUE(refused({"last of starts: expected 5, found 4"}, [](Batch& b) { b.starts[2] = 4; }));
  EXPECT_TRUE(
      refused({"last of starts: expected 5, found 3"}, [](Batch& b) { b.starts.pop_back(); }));
  EXPECT_TRUE(refused({"first of starts: expected 0, found 1"}, [](Batch& b) { b.starts[0] = 1; }));
  EXPECT_TRUE(refused({"last of starts: expected 5, found 0"}, [](Batch& b) { b.starts = {0}; }));
  EXPECT_TRUE(refused({"starts: expected at least one"}, [](Batch& b) { b.starts.clear(); }));
  EXPECT_TRUE(refused({"sequence 0: expected an end behind its start 0, found 0"},
                      [](Batch& b) { b.starts[1] = 0; }));
  EXPECT_TRUE(refused({"sequence 1: expected an end behind its start 5, found 5"},
                      [](Batch& b) { b.starts[1] = 5; }));
  EXPECT_TRUE(refused({"sequence 1: expected an end behind its start 6, found 5"},
                      [](Batch& b) { b.starts[1] = 6; }));
  EXPECT_TRUE(refused({"sequence 1: expected an end behind its start ", "found -"}, [](Batch& b) {
    b.starts = {0, huge, -huge, 5};
  }));
}

}  // namespace
}  // namespace mora_tests
