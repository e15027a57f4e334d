// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "study/generated_text.hpp"

/// \file
/// Arithmetic in steps that a small model can learn: chains of operations on digits, from left to
/// right. Sums end at 9 and differences at 0, so that each operand alone says something of the
/// result, without which learning does not begin; of products the last digit counts. The answer has
/// each operation with its result: 7+5*3-8= has the answer +9*7-0. So all that a step needs stands
/// at distances that are the same in every step.

namespace study {

/// How chains are drawn.
struct ChainSettings {
  std::string_view operations;   ///< Of "+-*".
  std::string_view needed = "";  ///< At least one of these is in each chain, if there are any.
  std::string_view noise = "";   ///< Operations whose results are drawn: nobody can learn them.
  Index length = 4;              ///< Operations.
};

[[nodiscard]] inline Index apply(char operation, Index a, Index b) {
  if (operation == '+') return std::min<Index>(a + b, 9);
  if (operation == '-') return std::max<Index>(a - b, 0);
  return a * b % 10;
}

[[nodiscard]] inline mora::TextExample draw_chain(const ChainSettings& settings,
                                                  Generator& generator) {
  const Index place = below(settings.length, generator);  // of an operation that is needed
  Index value = below(10, generator);
  mora::TextExample example{.prompt = std::to_string(value), .response = ""};
  for (Index i = 0; i < settings.length; ++i) {
    const std::string_view from =
        i == place && !settings.needed.empty() ? settings.needed : settings.operations;
    const char operation = from[static_cast<std::size_t>(below(std::ssize(from), generator))];
    const Index operand = below(10, generator);
    const bool drawn = settings.noise.find(operation) != settings.noise.npos;
    value = drawn ? below(10, generator) : apply(operation, value, operand);
    example.prompt += operation + std::to_string(operand);
    example.response += operation + std::to_string(value);
  }
  example.prompt += '=';
  return example;
}

/// Different chains, none of which is in `known`, where they are put.
[[nodiscard]] inline std::vector<mora::TextExample> draw_chains(const ChainSettings& settings,
                                                                Index count,
                                                                std::set<std::string>& known,
                                                                Generator& generator) {
  std::vector<mora::TextExample> all;
  while (std::ssize(all) < count) {
    mora::TextExample chain = draw_chain(settings, generator);
    if (known.insert(chain.prompt).second) all.push_back(std::move(chain));
  }
  return all;
}

}  // namespace study
