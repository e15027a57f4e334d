// SPDX-License-Identifier: MIT
//
// The parts of examples/study that can be wrong without anybody seeing it.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "experiment/rate_search.hpp"
#include "study/chains.hpp"
#include "study/task.hpp"

namespace {

using namespace study;

/// Results from left to right, with plain integers.
std::string answer_to(const std::string& prompt) {
  std::string answer;
  int value = prompt[0] - '0';
  for (std::size_t i = 1; i + 1 < prompt.size(); i += 2) {
    const int operand = prompt[i + 1] - '0';
    if (prompt[i] == '+') value = value + operand > 9 ? 9 : value + operand;
    if (prompt[i] == '-') value = value < operand ? 0 : value - operand;
    if (prompt[i] == '*') value = value * operand % 10;
    answer += prompt[i] + std::to_string(value);
  }
  return answer;
}

TEST(Chains, HaveTheRightAnswers) {
  EXPECT_EQ(answer_to("7+5*3-8="), "+9*7-0");
  Generator generator(1);
  std::set<std::string> known;
  const auto chains = draw_chains({.operations = "+-*", .needed = "*"}, 300, known, generator);
  EXPECT_EQ(known.size(), 300u);
  for (const auto& chain : chains) {
    EXPECT_EQ(chain.prompt.size(), 10u);
    EXPECT_EQ(chain.response, answer_to(chain.prompt));
    EXPECT_NE(chain.prompt.find('*'), std::string::npos);
  }
}

TEST(Chains, AreNotDrawnTwice) {
  Generator generator(2);
  std::set<std::string> known;
  const ChainSettings settings{.operations = "+", .length = 1};
  const auto first = draw_chains(settings, 60, known, generator);
  const auto second = draw_chains(settings, 40, known, generator);  // all hundred there are
  std::set<std::string> all;
  for (const auto& chain : first) all.insert(chain.prompt);
  for (const auto& chain : second) all.insert(chain.prompt);
  EXPECT_EQ(all.size(), 100u);
}

TEST(Chains, HaveNoiseWhereTheyShall) {
  Generator generator(3);
  std::set<std::string> known;
  int wrong = 0;
  for (const auto& chain :
       draw_chains({.operations = "*", .noise = "*", .length = 1}, 90, known, generator)) {
    wrong += chain.response != answer_to(chain.prompt);
  }
  EXPECT_GT(wrong, 45);
  for (const auto& chain : draw_chains({.operations = "+-", .noise = "*"}, 90, known, generator)) {
    EXPECT_EQ(chain.response, answer_to(chain.prompt));
  }
}

/// An example is its number.
struct Numbers {
  Index count = 0;
  [[nodiscard]] Index size() const { return count; }
  void add_to(Index example, mora::Batch& batch) const {
    const mora::Token token = static_cast<mora::Token>(example);
    batch.add(std::vector<mora::Token>{token}, std::vector<mora::Token>{token});
  }
};

std::vector<mora::Token> tokens_of(const std::vector<mora::Batch>& batches) {
  std::vector<mora::Token> all;
  for (const auto& batch : batches) all.insert(all.end(), batch.tokens.begin(), batch.tokens.end());
  return all;
}

/// A run of a search.
struct Searched {
  struct Settings {
    double learning_rate;
  } settings;
  double score;
};

double rate_of(const std::vector<double>& scores) {
  std::vector<Searched> search;
  std::vector<double> rates;
  for (const double score : scores) {
    rates.push_back(std::pow(10.0, double(rates.size())));
    search.push_back({{rates.back()}, score});
  }
  return experiment::choose_rate(search, rates, [](const Searched& run) { return run.score; }).rate;
}

TEST(ChooseRate, TakesTheHighestScoreAndNoneThatIsNoNumber) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  constexpr double lost = -std::numeric_limits<double>::infinity();
  EXPECT_EQ(rate_of({-3.0, -2.0, -2.5}), 10.0);
  EXPECT_EQ(rate_of({-2.0, lost, lost}), 1.0);
  EXPECT_EQ(rate_of({nan, nan, -2.0}), 100.0);
  EXPECT_EQ(rate_of({-2.0, -2.0001, -2.0001}), 10.0);  // as good: the middle one
  EXPECT_EQ(rate_of({lost, lost, lost}), 10.0);
}

TEST(HeldOut, HasTwoPartsThatShareNothing) {
  const HeldOut set = held_out("numbers", programs::any_data(Numbers{100}), 5, 2);
  EXPECT_EQ(tokens_of(set.search), (std::vector<mora::Token>{0, 20, 40, 60, 80}));
  EXPECT_EQ(tokens_of(set.results), (std::vector<mora::Token>{10, 30, 50, 70, 90}));
  EXPECT_EQ(set.search.size(), 3u);
  EXPECT_EQ(set.search.back().sequences(), 1);
}

TEST(HeldOut, TakesWhatThereIs) {
  const HeldOut set = held_out("numbers", programs::any_data(Numbers{3}), 5, 8);
  EXPECT_EQ(tokens_of(set.search), (std::vector<mora::Token>{0, 2}));
  EXPECT_EQ(tokens_of(set.results), (std::vector<mora::Token>{1}));
}

}  // namespace
