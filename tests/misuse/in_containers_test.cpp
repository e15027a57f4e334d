// SPDX-License-Identifier: MIT
// Layers in containers, where fixed-size Eigen members would have to be aligned; compiled for
// AVX-512 too, whose vectors have 64 bytes.
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "support/layer_types.hpp"
#include "support/misuse.hpp"

namespace mora_tests {
namespace {

TYPED_TEST(EveryLayer, NeedsNoMoreThanTheUsualAlignment) {
  EXPECT_LE(alignof(TypeParam), alignof(std::max_align_t));
  EXPECT_LE(alignof(typename TypeParam::Saved), alignof(std::max_align_t));
  EXPECT_LE(alignof(typename TypeParam::AdapterType), alignof(std::max_align_t));
}

TYPED_TEST(EveryLayer, LivesInContainers) {
  const TypeParam layer = make_layer<TypeParam>(45, 37, 4);
  const Bits expected = bits_of(layer);
  std::vector<TypeParam> all;
  for (int i = 0; i < 9; ++i) all.push_back(layer);  // moved several times
  all.erase(all.begin(), all.begin() + 3);
  all.insert(all.begin() + 1, layer);
  for (const TypeParam& each : all) EXPECT_EQ(bits_of(each), expected);
  for (const TypeParam& each : all) expect_works(each);

  struct Odd {
    char offset;
    TypeParam layer;
  };
  const auto odd = std::make_unique<Odd>(Odd{'x', layer});
  EXPECT_EQ(bits_of(odd->layer), expected);
  std::map<int, std::optional<TypeParam>> map;
  map[1] = layer;
  EXPECT_EQ(bits_of(*map[1]), expected);
}

}  // namespace
}  // namespace mora_tests
