// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <utility>

#include "mora/train/dataset.hpp"

namespace mora::inline MORA_ABI {

struct TokenWindowsSettings {
  /// What becomes of the tokens behind the last whole window.
  enum class Rest {
    keep,  ///< They are a shorter window, so that every token but the first is predicted once.
    drop,  ///< They are left out, so that all windows have one length.
  };

  Index length = 0;  ///< Positions of a window, 1 to max_positions. To be set.
  Rest rest = Rest::keep;

  void validate() const {
    if (length < 1 || length > max_positions) {
      throw ArgumentError(
          detail::concat("length: expected 1 to ", max_positions, ", found ", length));
    }
  }
};

/// Running text as a data set: windows of one length, side by side. Each of their positions
/// predicts the token behind it, the last position the first token of the next window; so n tokens
/// have n - 1 positions, and the last token is a target only.
///
/// The sequence is held by value: a std::span or TokenFile is a handle, a std::vector moves in.
template <TokenSequence S>
class TokenWindows {
 public:
  using Settings = TokenWindowsSettings;

  /// Throws ArgumentError when there is no window: for fewer than two tokens, or, where the rest is
  /// dropped, than length + 1. Which tokens are valid is for the model to say (Batch::validate).
  TokenWindows(S tokens, const Settings& settings)
      : tokens_(std::move(tokens)), settings_(settings) {
    settings_.validate();
    const Index needed = settings_.rest == Settings::Rest::keep ? 2 : settings_.length + 1;
    const Index found = static_cast<Index>(tokens_.size());
    if (found < needed) {
      throw ArgumentError(detail::concat("tokens: expected at least ", needed, ", found ", found));
    }
    const Index positions = found - 1;
    size_ = positions / settings_.length;
    if (settings_.rest == Settings::Rest::keep && positions % settings_.length != 0) ++size_;
  }

  [[nodiscard]] Index size() const { return size_; }
  [[nodiscard]] const Settings& settings() const { return settings_; }

  void add_to(Index window, Batch& batch) const {
    detail::require_example(window, size_);
    const Index first = window * settings_.length;
    const Index positions = static_cast<Index>(tokens_.size()) - 1;
    batch.add_window(tokens_, first, std::min(settings_.length, positions - first));
  }

 private:
  S tokens_;
  Settings settings_;
  Index size_ = 0;
};

}  // namespace mora::inline MORA_ABI
