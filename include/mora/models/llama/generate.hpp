// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "mora/core/random.hpp"
#include "mora/models/llama/llama.hpp"

namespace mora::inline MORA_ABI {

/// How the next token is chosen from the logits.
struct SamplingSettings {
  /// >= 0: logits are divided by it. 0 takes the likeliest token always (greedy).
  double temperature = 0.0;
  /// (0, 1]: only the likeliest tokens whose probabilities add up to at least this much (Holtzman
  /// et al. 2019, arXiv 1904.09751).
  double top_p = 1.0;

  void validate() const {
    if (!(temperature >= 0.0 && std::isfinite(temperature))) {
      throw ArgumentError(
          detail::concat("temperature: expected a finite number >= 0, found ", temperature));
    }
    if (!(top_p > 0.0 && top_p <= 1.0)) {
      throw ArgumentError(detail::concat("top_p: expected 0 < top_p <= 1, found ", top_p));
    }
  }
};

struct GenerationSettings {
  Index max_new_tokens = 64;     ///< >= 0.
  std::vector<Token> stop = {};  ///< Ends the text, and is its last token.
  SamplingSettings sampling = {};

  void validate() const {
    if (max_new_tokens < 0) {
      throw ArgumentError(
          detail::concat("max_new_tokens: expected at least 0, found ", max_new_tokens));
    }
    sampling.validate();
  }
};

/// Chooses tokens from logits; keeps the memory that it needs for it.
template <Real T>
class TokenSampler {
 public:
  explicit TokenSampler(const SamplingSettings& settings) : settings_(settings) {
    settings_.validate();
  }

  /// Draws one number from the generator, none when greedy; among equal logits the first token is
  /// the likelier one; one of -inf is never drawn. Throws NumericError for a logit that is NaN, or
  /// a largest one that is infinite unless greedy; ArgumentError for no logits.
  template <Generator64 G>
  [[nodiscard]] Token choose(std::span<const T> logits, G& generator) {
    if (logits.empty()) throw ArgumentError("logits: expected at least one, found none");
    for (const T logit : logits) {
      if (std::isnan(logit)) throw NumericError("logits: expected numbers, found NaN");
    }
    const auto likeliest = std::max_element(logits.begin(), logits.end());
    if (settings_.temperature == 0.0) return static_cast<Token>(likeliest - logits.begin());
    const double top = static_cast<double>(*likeliest);
    if (!std::isfinite(top)) {
      throw NumericError(detail::concat("logits: expected a finite largest one, found ", top));
    }
    candidates_.clear();
    double total = 0.0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const double p = std::exp((static_cast<double>(logits[i]) - top) / settings_.temperature);
      candidates_.emplace_back(p, static_cast<Token>(i));
      total += p;
    }
    if (settings_.top_p < 1.0) total = keep_nucleus(total);
    double left = uniform(generator) * total;
    for (const auto& [p, token] : candidates_) {
      left -= p;
      if (left < 0.0) return token;
    }
    return static_cast<Token>(likeliest - logits.begin());  // rounding
  }

 private:
  /// Leaves the likeliest candidates that make up top_p of the total, and returns their sum.
  double keep_nucleus(double total) {
    // Not stable_sort, which allocates.
    std::sort(candidates_.begin(), candidates_.end(), [](const auto& a, const auto& b) {
      return a.first > b.first || (a.first == b.first && a.second < b.second);
    });
    double sum = 0.0;
    std::size_t kept = 0;
    while (kept < candidates_.size() && sum < settings_.top_p * total) {
      sum += candidates_[kept++].first;
    }
    candidates_.resize(kept);
    return sum;
  }

  SamplingSettings settings_;
  std::vector<std::pair<double, Token>> candidates_;
};

/// Continues `prompt`, one token at a time with a cache; returns the new tokens. Stops at a stop
/// token, after max_new_tokens, or when max_position_embeddings is full. Throws ArgumentError for
/// an empty prompt, or one that is longer than that, and for a stop token beyond the vocabulary.
template <Real T, Generator64 G>
[[nodiscard]] std::vector<Token> generate(const Llama<T>& model, std::span<const Token> prompt,
                                          const GenerationSettings& settings, G& generator) {
  settings.validate();
  if (prompt.empty()) throw ArgumentError("prompt: expected at least one token, found none");
  const Index room = model.config().max_position_embeddings - std::ssize(prompt);
  if (room < 0) {
    throw ArgumentError(detail::concat("prompt: expected at most max_position_embeddings = ",
                                       model.config().max_position_embeddings, " tokens, found ",
                                       std::ssize(prompt)));
  }
  for (const Token token : settings.stop) {
    detail::require_range<Index>("stop token", token, 0, model.config().vocab_size);
  }
  const Index most = std::min(settings.max_new_tokens, room);
  LlamaCache<T> cache = model.cache();
  RowVector<T> logits;
  TokenSampler<T> sampler(settings.sampling);
  std::vector<Token> text;
  std::span<const Token> next = prompt;
  while (std::ssize(text) < most) {
    model.next_logits(next, cache, logits);
    text.push_back(
        sampler.choose({logits.data(), static_cast<std::size_t>(logits.size())}, generator));
    if (std::find(settings.stop.begin(), settings.stop.end(), text.back()) != settings.stop.end()) {
      break;
    }
    next = std::span<const Token>(text).last(1);
  }
  return text;
}

}  // namespace mora::inline MORA_ABI
