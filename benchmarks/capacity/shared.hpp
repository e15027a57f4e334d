// SPDX-License-Identifier: MIT
#pragma once

namespace experiment {}

namespace capacity {

/// What all experiments share has its plain names in here.
using namespace experiment;

}  // namespace capacity
