// SPDX-License-Identifier: MIT
#define MORA_TESTS_EXTERN_LAYERS
#include "support/layers_once.hpp"
