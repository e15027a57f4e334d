// SPDX-License-Identifier: MIT
#include <mora/adapters/linear.hpp>

mora::Index width_of(const mora::MoraLinear<float>& layer) { return layer.in_features(); }
