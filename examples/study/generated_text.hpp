// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "mora/core/random.hpp"
#include "mora/io/json_lines.hpp"

/// \file
/// Text to learn where no file is given. It shows that a program works and what its tables look
/// like; what is concluded comes from real text.

namespace study {

using mora::Index;
using Generator = mora::SplitMix64;

[[nodiscard]] inline Index below(Index bound, Generator& generator) {
  return static_cast<Index>(mora::uniform_below(static_cast<std::uint64_t>(bound), generator));
}

/// Sentences of words that are made up from the seed: a few of them are frequent, most are rare.
class InventedLanguage {
 public:
  explicit InventedLanguage(std::uint64_t seed) {
    Generator generator(seed);
    for (auto* const words : {&nouns_, &verbs_, &adjectives_}) {
      for (int i = 0; i < 120; ++i) words->push_back(invent(generator));
    }
  }

  [[nodiscard]] std::string noun(Generator& generator) const { return pick(nouns_, generator); }
  [[nodiscard]] std::string sentence(Generator& generator) const {
    const auto phrase = [&] {
      const bool described = below(2, generator) == 0;
      return "the " + (described ? pick(adjectives_, generator) + " " : "") + noun(generator);
    };
    std::string text = phrase() + " " + pick(verbs_, generator) + "s " + phrase();
    if (below(3, generator) == 0) text += " and " + pick(verbs_, generator) + "s " + phrase();
    text[0] = 'T';
    return text + ".";
  }
  [[nodiscard]] std::string text(std::size_t bytes, Generator& generator) const {
    std::string all;
    while (all.size() < bytes)
      all += sentence(generator) + (below(5, generator) != 0 ? " " : "\n\n");
    return all;
  }

 private:
  static std::string invent(Generator& generator) {
    static constexpr const char* begins[] = {"b", "d", "f",  "gr", "k", "l",
                                             "m", "n", "pl", "s",  "t", "v"};
    static constexpr const char* vowels[] = {"a", "e", "i", "o", "u", "ea", "ou"};
    std::string word;
    for (Index left = 1 + below(3, generator); left >= 0; --left) {
      word += begins[below(12, generator)];
      word += vowels[below(7, generator)];
    }
    return word;
  }
  static std::string pick(const std::vector<std::string>& words, Generator& generator) {
    const double u = mora::uniform(generator);
    return words[static_cast<std::size_t>(u * u * double(words.size()))];
  }

  std::vector<std::string> nouns_, verbs_, adjectives_;
};

/// A word problem with its steps, in GSM8K's form.
[[nodiscard]] inline mora::TextExample word_problem(Generator& generator) {
  static constexpr const char* names[] = {"Ada", "Ben", "Cleo", "Dan", "Eva", "Finn"};
  static constexpr const char* things[] = {"apples", "books", "coins", "eggs", "pens"};
  const std::string name = names[below(6, generator)];
  const std::string thing = things[below(5, generator)];
  const Index first = 2 + below(18, generator);
  const Index more = 2 + below(18, generator);
  const Index times = 2 + below(3, generator);
  const Index sum = first + more;
  const auto text = [](Index number) { return std::to_string(number); };
  const std::string by = text(times) + " times as many as that";
  return {.prompt = name + " has " + text(first) + " " + thing + " and gets " + text(more) +
                    " more. A friend has " + by + ". How many " + thing + " has the friend?",
          .response = name + " has " + text(first) + " + " + text(more) + " = " + text(sum) +
                      ".\n" + text(sum) + " * " + text(times) + " = " + text(sum * times) +
                      "\n#### " + text(sum * times)};
}

/// An instruction about two words, and what it asks for.
[[nodiscard]] inline mora::TextExample instruction(const InventedLanguage& language,
                                                   Generator& generator) {
  const std::string a = language.noun(generator);
  const std::string b = language.noun(generator);
  switch (below(4, generator)) {
    case 0: return {.prompt = "Repeat the word " + a + " twice.", .response = a + " " + a};
    case 1:
      return {.prompt = "Say " + a + " and " + b + " the other way round.",
              .response = b + " and " + a};
    case 2:
      return {.prompt = "Spell the word " + a + " backwards.", .response = {a.rbegin(), a.rend()}};
    default:
      return {.prompt = "Which word is longer, " + a + " or " + b + "?",
              .response = a.size() >= b.size() ? a : b};
  }
}

}  // namespace study
