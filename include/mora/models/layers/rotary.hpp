// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include "mora/core/buffer.hpp"
#include "mora/core/parallel.hpp"

namespace mora::inline MORA_ABI::detail {

/// Rotary positions (Su et al. 2021, arXiv 2104.09864) in the rotate-half convention of Hugging
/// Face's LLaMA: at position p the entries j and j + d/2 of a head turn by p theta^(-2j/d).
/// Frequencies and angles are rounded to float32, as they were when published weights were trained.
template <class T>
class RotaryTable {
 public:
  RotaryTable() = default;
  // An assignment that fails half-way would leave numbers that are another table's.
  RotaryTable(const RotaryTable&) = delete;
  RotaryTable& operator=(const RotaryTable&) = delete;
  RotaryTable(RotaryTable&&) noexcept = default;
  RotaryTable& operator=(RotaryTable&&) noexcept = default;
  ~RotaryTable() = default;

  /// Sines and cosines for positions first ... first + count - 1, unless they are there.
  void compute(Index first, Index count, Index head_dim, double theta) {
    if (first == first_ && count <= cosine_.map().rows() && 2 * half_ == head_dim &&
        theta == theta_) {
      return;
    }
    theta_ = 0.0;
    half_ = head_dim / 2;
    first_ = first;
    MutableMap<T> cosine = cosine_.shape(count, half_);
    MutableMap<T> sine = sine_.shape(count, half_);
    for (Index j = 0; j < half_; ++j) {
      const auto frequency = static_cast<float>(
          1.0 / std::pow(theta, 2.0 * static_cast<double>(j) / static_cast<double>(head_dim)));
      for (Index p = 0; p < count; ++p) {
        const auto angle = static_cast<double>(static_cast<float>(first + p) * frequency);
        cosine(p, j) = static_cast<T>(std::cos(angle));
        sine(p, j) = static_cast<T>(std::sin(angle));
      }
    }
    theta_ = theta;
  }
  /// Turns the heads of one row by its position; backwards for gradients.
  template <bool backwards>
  void rotate(T* row, Index heads, Index position) const {
    const T* const c = cosine_.data() + (position - first_) * half_;
    const T* const s = sine_.data() + (position - first_) * half_;
    for (Index h = 0; h < heads; ++h) {
      T* const low = row + h * 2 * half_;
      T* const high = low + half_;
      for (Index j = 0; j < half_; ++j) {
        const T a = low[j];
        const T b = high[j];
        const T turn = backwards ? -s[j] : s[j];
        low[j] = a * c[j] - b * turn;
        high[j] = b * c[j] + a * turn;
      }
    }
  }

 private:
  Index half_ = 0;
  Index first_ = 0;
  double theta_ = 0.0;  // 0 while there are no numbers
  Buffer<T> cosine_;    // [positions, d/2]
  Buffer<T> sine_;
};

/// Turns the first `heads` heads of every row [positions, ...]; row i is at positions[i].
template <bool backwards, class T>
void rotate_rows(const RotaryTable<T>& table, MutableMap<T> x, Index heads,
                 const Index* positions) {
  for_each_row(x.rows(), x.cols(), [&](Index i) {
    table.template rotate<backwards>(x.data() + i * x.outerStride(), heads, positions[i]);
  });
}

}  // namespace mora::inline MORA_ABI::detail
