// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "mora/core/parallel.hpp"
#include "mora/core/random.hpp"

namespace mora::inline MORA_ABI {

/// Where dropout's random numbers come from: the seed and how many training passes there have been.
/// That is its whole state: what is dropped is a function of these, of the layer and of the place,
/// whatever the number of threads, so that a backward pass finds it again.
struct DropoutStream {
  std::uint64_t seed = 0;
  std::uint64_t passes = 0;
};

namespace detail {

/// Which numbers of one layer's input are kept in one pass, each with probability 1 - p.
class DropoutMask {
 public:
  DropoutMask(const DropoutStream& stream, std::uint64_t layer, double p)
      : key_(SplitMix64(stream.seed ^ SplitMix64(stream.passes ^ SplitMix64(layer)())())()),
        limit_(static_cast<std::uint64_t>((1.0 - p) * 0x1p32)),
        scale_(1.0 / (1.0 - p)) {}

  /// to = (from added to `to` if Add) kept numbers of `from` times 1 / (1 - p), zero elsewhere.
  /// Row i is number first_row + i of the pass.
  template <bool Add, class T>
  void apply(Index first_row, const ConstMap<T>& from, MutableMap<T> to) const {
    const Index cols = from.cols();
    const T scale = static_cast<T>(scale_);
    for_each_row(from.rows(), cols, [&](Index i) {
      SplitMix64 bits(key_ + static_cast<std::uint64_t>(first_row + i) * 0xd1342543de82ef95u);
      const T* const x = from.data() + i * from.outerStride();
      T* const y = to.data() + i * to.outerStride();
      for (Index j = 0; j < cols; ++j) {
        const T kept = (bits() >> 32) < limit_ ? x[j] * scale : T(0);
        y[j] = Add ? y[j] + kept : kept;
      }
    });
  }

 private:
  std::uint64_t key_;
  std::uint64_t limit_;
  double scale_;
};

}  // namespace detail
}  // namespace mora::inline MORA_ABI
