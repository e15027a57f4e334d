// SPDX-License-Identifier: MIT
#include "support/layers.hpp"

#include "support/operators.hpp"

namespace mora_tests {
namespace {

/// `make` is called with the arguments of MakeLayer, where `fits(shape)`, and returns a layer of
/// any type.
template <class Make, class Fits>
LayerKind layer_kind(const char* name, const Make& make, const Fits& fits) {
  const auto erased = [=]<class T>(mora::FrozenLinear<T> base, const Shape& shape,
                                   Random& random) -> std::unique_ptr<AnyLayer<T>> {
    if (!fits(shape)) return nullptr;
    auto layer = make(std::move(base), shape, random);
    return std::make_unique<AnyLayerOf<decltype(layer)>>(std::move(layer));
  };
  return {name, {MakeLayer<float>(erased), MakeLayer<double>(erased)}};
}
template <class Make>
LayerKind layer_kind(const char* name, const Make& make) {
  return layer_kind(name, make, [](const Shape&) { return true; });
}

// Scales that are not 1 show where they are missing.

template <class Op>
LayerKind mora_kind(const char* name, const Op& op) {
  return layer_kind(
      name,
      [op]<class T>(mora::FrozenLinear<T> base, const Shape& shape, Random&) {
        return mora::MoraLinear<T, Op>(
            std::move(base),
            {.rank = shape.rank, .rounding = shape.rounding, .scale = 0.75, .op = op});
      },
      [op](const Shape& shape) { return side_for(op, shape).has_value(); });
}

LayerKind lora_kind(const char* name, mora::LoraScaling scaling) {
  return layer_kind(name,
                    [=]<class T>(mora::FrozenLinear<T> base, const Shape& shape, Random& random) {
                      mora::LoraSettings settings;
                      settings.rank = shape.rank;
                      settings.alpha = 3.0;
                      settings.scaling = scaling;
                      return mora::LoraLinear<T>(std::move(base), settings, random.generator());
                    });
}

LayerKind frozen_a_kind() {
  return layer_kind(
      "AsyLora",
      []<class T>(mora::FrozenLinear<T> base, const Shape& shape, Random& random) {
        const mora::LoraSettings settings{.rank = shape.rank,
                                          .alpha = 3.0,
                                          .init = mora::LoraInit::orthonormal,
                                          .train_a = false};
        return mora::LoraLinear<T>(std::move(base), settings, random.generator());
      },
      [](const Shape& shape) { return shape.rank <= shape.in; });
}

LayerKind dora_kind() {
  return layer_kind(
      "Dora", []<class T>(mora::FrozenLinear<T> base, const Shape& shape, Random& random) {
        return mora::DoraLinear<T>(
            std::move(base), {.direction = {.rank = shape.rank, .alpha = 3.0}}, random.generator());
      });
}

template <class Op>
LayerKind dora_over_mora_kind(const char* name) {
  return layer_kind(
      name,
      []<class T>(mora::FrozenLinear<T> base, const Shape& shape, Random&) {
        return mora::DoraLinear<T, mora::MoraAdapter<T, Op>>(
            std::move(base),
            {.direction = {.rank = shape.rank, .rounding = shape.rounding, .scale = 0.75}});
      },
      [](const Shape& shape) { return side_for(Op(), shape).has_value(); });
}

LayerKind hira_kind() {
  return layer_kind(
      "Hira", []<class T>(mora::FrozenLinear<T> base, const Shape& shape, Random& random) {
        return mora::HiraLinear<T>(std::move(base), {.rank = shape.rank}, random.generator());
      });
}

LayerKind miss_kind() {
  return layer_kind("Miss", []<class T>(mora::FrozenLinear<T> base, const Shape& shape, Random&) {
    return mora::MissLinear<T>(std::move(base), {.rank = shape.rank});
  });
}

/// With a factor of 12 some shapes have a thin W1, which they have not near the square root.
LayerKind lokr_kind(const char* name, Index decompose_factor, bool decompose_both) {
  return layer_kind(name,
                    [=]<class T>(mora::FrozenLinear<T> base, const Shape& shape, Random& random) {
                      return mora::LokrLinear<T>(std::move(base),
                                                 {.rank = shape.rank,
                                                  .alpha = 3.0,
                                                  .decompose_factor = decompose_factor,
                                                  .decompose_both = decompose_both},
                                                 random.generator());
                    });
}

LayerKind full_kind() {
  return layer_kind("Full", []<class T>(mora::FrozenLinear<T> base, const Shape&, Random&) {
    return mora::FullLinear<T>(std::move(base));
  });
}

}  // namespace

std::vector<LayerKind> layer_kinds() {
  std::vector<LayerKind> kinds;
  for_each_operator(
      [&](const char* name, const auto& op) { kinds.push_back(mora_kind(name, op)); });
  kinds.push_back(lora_kind("Lora", mora::LoraScaling::standard));
  kinds.push_back(lora_kind("RankStabilizedLora", mora::LoraScaling::rank_stabilized));
  kinds.push_back(frozen_a_kind());
  kinds.push_back(dora_kind());
  kinds.push_back(dora_over_mora_kind<mora::Sharing>("DoraOverSharing"));
  kinds.push_back(dora_over_mora_kind<mora::Rotation>("DoraOverRotation"));
  kinds.push_back(hira_kind());
  kinds.push_back(miss_kind());
  kinds.push_back(lokr_kind("Lokr", -1, false));
  kinds.push_back(lokr_kind("LokrOfTwoThinFactors", 12, true));
  kinds.push_back(full_kind());
  return kinds;
}

}  // namespace mora_tests
