// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>

#include "mora/adapters/linear.hpp"
#include "mora/adapters/side.hpp"
#include "mora/operators/rotation.hpp"
#include "mora/operators/sharing.hpp"
#include "mora/operators/truncation.hpp"

/// \file
/// The methods that are compared. Each is a small value with a name, the layer type and how the
/// layer's settings follow from the rank r and a seed; every experiment goes through the one list
/// at the end.

namespace experiment {

using mora::Index;

/// LoRA with alpha = 2 r, the usual recipe, so s = 2 for every r. The learning rate is searched, so
/// s decides little: the update's size follows from the rate as well.
struct Lora {
  std::string name;
  template <class T>
  using Layer = mora::LoraLinear<T>;

  [[nodiscard]] mora::LoraSettings settings(Index rank, std::uint64_t /*seed*/) const {
    return {.rank = rank, .alpha = 2.0 * static_cast<double>(rank)};
  }
};

/// MoRA with scale 1, as the paper's code, and the side rounded down, so that it never has more
/// parameters than LoRA.
template <class Op>
struct Mora {
  std::string name;
  template <class T>
  using Layer = mora::MoraLinear<T, Op>;

  [[nodiscard]] mora::MoraSettings<Op> settings(Index rank, std::uint64_t seed) const {
    mora::MoraSettings<Op> settings{.rank = rank};
    if constexpr (requires { settings.op.seed; }) settings.op.seed = seed;
    return settings;
  }
};

/// Every weight trains: far more parameters than the others have, and no budget.
struct Full {
  std::string name;
  template <class T>
  using Layer = mora::FullLinear<T>;

  [[nodiscard]] mora::FullSettings settings(Index /*rank*/, std::uint64_t /*seed*/) const {
    return {};
  }
};

/// LoRA's relatives, at LoRA's number of parameters in a square layer (DoRA has its lengths on
/// top). Where the number depends on more than in + out, `fit` gives the most for a layer within
/// LoRA's number.

/// DoRA over another method.
template <class Method>
struct Dora {
  std::string name;
  Method direction = {};
  template <class T>
  using Layer = mora::DoraLinear<T, typename Method::template Layer<T>::AdapterType>;

  [[nodiscard]] auto settings(Index rank, std::uint64_t seed) const {
    const auto own = direction.settings(rank, seed);
    return mora::DoraSettings<std::decay_t<decltype(own)>>{.direction = own};
  }
};

struct Hira {
  std::string name;
  template <class T>
  using Layer = mora::HiraLinear<T>;

  [[nodiscard]] mora::HiraSettings settings(Index rank, std::uint64_t /*seed*/) const {
    return {.rank = rank};
  }
};

/// With W1 of 4 x 4: near the square root LoKr has a tenth of LoRA's numbers, and cannot have more.
/// Of a thin W2 with a rank of 4 r - 1 are 16 + (4 r - 1) (d + k) / 4, at most r (d + k) from d + k
/// = 64 on, where 4 divides both; a full one has fewer.
struct Lokr {
  std::string name;
  template <class T>
  using Layer = mora::LokrLinear<T>;

  [[nodiscard]] mora::LokrSettings settings(Index rank, std::uint64_t /*seed*/) const {
    const Index own = 4 * rank - 1;
    return {.rank = own, .alpha = 2.0 * static_cast<double>(own), .decompose_factor = 4};
  }
  [[nodiscard]] mora::LokrSettings fit(Index rank, Index in, Index out) const {
    const Index budget = mora::lora_budget(in, out, rank);
    mora::LokrSettings best = settings(rank, 0);
    Index most = 0;
    for (Index factor = 2; factor <= 16; ++factor) {
      for (Index own = 1; own <= std::max(in, out); ++own) {
        const mora::LokrSettings one{
            .rank = own, .alpha = 2.0 * static_cast<double>(own), .decompose_factor = factor};
        const mora::KroneckerShape shape = mora::lokr_shape(in, out, one);
        const Index count =
            shape.rows1 * shape.cols1 +
            (shape.thin2 ? own * (shape.rows2 + shape.cols2) : shape.rows2 * shape.cols2);
        if (count > budget || count <= most) continue;
        most = count;
        best = one;
      }
    }
    return best;
  }
};

struct Miss {
  std::string name;
  template <class T>
  using Layer = mora::MissLinear<T>;

  [[nodiscard]] mora::MissSettings settings(Index rank, std::uint64_t /*seed*/) const {
    return {.rank = 2 * rank};
  }
  [[nodiscard]] mora::MissSettings fit(Index rank, Index in, Index out) const {
    return {.rank = rank * (in + out) / out};
  }
};

/// AsyLoRA, whose A does not train.
struct FrozenA {
  std::string name;
  template <class T>
  using Layer = mora::LoraLinear<T>;

  [[nodiscard]] mora::LoraSettings settings(Index rank, std::uint64_t /*seed*/) const {
    return of_rank(2 * rank);
  }
  [[nodiscard]] mora::LoraSettings fit(Index rank, Index in, Index out) const {
    return of_rank(std::min(in, rank * (in + out) / out));
  }
  [[nodiscard]] static mora::LoraSettings of_rank(Index rank) {
    return {.rank = rank,
            .alpha = 2.0 * static_cast<double>(rank),
            .init = mora::LoraInit::orthonormal,
            .train_a = false};
  }
};

template <class Method>
inline constexpr bool is_full = std::same_as<Method, Full>;
template <class Method>
inline constexpr bool is_lora = std::same_as<Method, Lora>;

/// Calls `f(method)` for each method, in the order of the tables. A new method is a line here.
template <class F>
void for_each_method(const F& f) {
  f(Lora{"lora"});
  f(Mora<mora::Truncation>{"truncation"});
  f(Mora<mora::Sharing>{"sharing"});                          // the reference's type 1
  f(Mora<mora::AdjacentSharing>{"adjacent_sharing"});         // type 2
  f(Mora<mora::AdjacentStridedSharing>{"adjacent_strided"});  // type 3
  f(Mora<mora::StridedAdjacentSharing>{"strided_adjacent"});  // type 4
  f(Mora<mora::RandomSharing>{"random_sharing"});
  f(Mora<mora::Decoupling>{"decoupling"});
  f(Mora<mora::Rotation>{"rotation"});  // type 6
  f(Mora<mora::CoveringRotation>{"covering_rotation"});
  f(Full{"full"});
}

/// The same for the relatives.
template <class F>
void for_each_relative(const F& f) {
  f(FrozenA{"asylora"});
  f(Dora<Lora>{"dora"});
  f(Dora<Mora<mora::Sharing>>{"dora_sharing"});
  f(Dora<Mora<mora::Rotation>>{"dora_rotation"});
  f(Hira{"hira"});
  f(Lokr{"lokr"});
  f(Miss{"miss"});
}

}  // namespace experiment
