// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <mora/mora.hpp>

namespace mora_tests {

/// Tests that hold for every kind of layer; the types differ in adapter, operator and scalar.
template <class Layer>
class EveryLayer : public testing::Test {};

using LayerTypes =
    testing::Types<mora::MoraLinear<float>, mora::MoraLinear<double, mora::Sharing>,
                   mora::MoraLinear<float, mora::RandomSharing>, mora::LoraLinear<float>,
                   mora::DoraLinear<double>, mora::HiraLinear<float>, mora::MissLinear<double>,
                   mora::LokrLinear<double>, mora::FullLinear<double>>;
TYPED_TEST_SUITE(EveryLayer, LayerTypes);

}  // namespace mora_tests
