// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mora/train/dataset.hpp"

namespace mora::inline MORA_ABI {

struct PromptResponsesSettings {
  std::optional<Token> begin =
      std::nullopt;  ///< Put before every prompt, such as ByteTokenizer::bos.
  std::optional<Token> end = std::nullopt;  ///< Put behind every response, and learnt with it.
  /// Tokens of an example, `begin` and `end` among them; what is longer is cut off at its end. 2 to
  /// max_positions.
  Index max_length = max_positions;
  Index vocabulary = max_vocabulary;  ///< Tokens are in [0, vocabulary).

  void validate() const {
    detail::require_vocabulary(vocabulary);
    if (max_length < 2 || max_length > max_positions) {
      throw ArgumentError(
          detail::concat("max_length: expected 2 to ", max_positions, ", found ", max_length));
    }
    require_token("begin", begin);
    require_token("end", end);
  }

 private:
  void require_token(const char* name, const std::optional<Token>& token) const {
    if (token && (*token < 0 || *token >= vocabulary)) {
      throw ArgumentError(
          detail::concat(name, ": expected 0 to ", vocabulary - 1, ", found ", *token));
    }
  }
};

/// Prompts with their responses as a data set: the loss is on the response, and on `end`. An
/// example is one sequence; its last token is a target only, as nothing shall follow it.
class PromptResponses {
 public:
  using Settings = PromptResponsesSettings;

  explicit PromptResponses(const Settings& settings = {}) : settings_(settings) {
    settings_.validate();
  }

  /// A further example. One that is longer than max_length loses its end and counts as truncated;
  /// where no token of the response is left it would teach nothing, so it is left out and counts as
  /// dropped. Returns whether it was kept.
  /// Throws ShapeError for an empty response (without `end`) or an empty prompt (without `begin`,
  /// as nothing would predict the response), ArgumentError for a token outside the vocabulary.
  bool add(std::span<const Token> prompt, std::span<const Token> response) {
    require_part("prompt", prompt, settings_.begin.has_value(), "begin");
    require_part("response", response, settings_.end.has_value(), "end");
    const std::size_t limit = static_cast<std::size_t>(settings_.max_length);
    const std::size_t before = prompt.size() + (settings_.begin ? 1 : 0);
    const std::size_t whole = before + response.size() + (settings_.end ? 1 : 0);
    if (before >= limit) {
      ++dropped_;
      return false;
    }
    std::vector<Token> tokens;
    tokens.reserve(std::min(whole, limit));
    if (settings_.begin) tokens.push_back(*settings_.begin);
    tokens.insert(tokens.end(), prompt.begin(), prompt.end());
    const auto taken = response.first(std::min(response.size(), limit - before));
    tokens.insert(tokens.end(), taken.begin(), taken.end());
    if (settings_.end && whole <= limit) tokens.push_back(*settings_.end);
    std::vector<Token> targets(tokens.size());
    next_token_targets(tokens, static_cast<Index>(before), targets);
    examples_.add(std::span(tokens).first(tokens.size() - 1),
                  std::span(targets).first(tokens.size() - 1));
    if (whole > limit) ++truncated_;
    return true;
  }

  [[nodiscard]] Index size() const { return examples_.sequences(); }
  [[nodiscard]] Index truncated() const { return truncated_; }  ///< Kept without their end.
  [[nodiscard]] Index dropped() const { return dropped_; }      ///< Not kept.
  [[nodiscard]] const Settings& settings() const { return settings_; }

  void add_to(Index example, Batch& batch) const {
    detail::require_example(example, size());
    const auto first = static_cast<std::size_t>(examples_.starts[example]);
    const auto count = static_cast<std::size_t>(examples_.starts[example + 1]) - first;
    batch.add(std::span(examples_.tokens).subspan(first, count),
              std::span(examples_.targets).subspan(first, count));
  }

 private:
  void require_part(const char* what, std::span<const Token> tokens, bool may_be_empty,
                    const char* instead) const {
    const Index number = size() + dropped_;
    if (tokens.empty() && !may_be_empty) {
      throw ShapeError(detail::concat(what, " of example ", number,
                                      ": expected at least one token or the setting ", instead,
                                      ", found neither"));
    }
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] < 0 || tokens[i] >= settings_.vocabulary) {
        throw ArgumentError(detail::concat(what, " of example ", number, ", token ", i,
                                           ": expected 0 to ", settings_.vocabulary - 1, ", found ",
                                           tokens[i]));
      }
    }
  }

  Settings settings_;
  Batch examples_;
  Index truncated_ = 0;
  Index dropped_ = 0;
};

}  // namespace mora::inline MORA_ABI
