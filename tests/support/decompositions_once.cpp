// SPDX-License-Identifier: MIT
#define MORA_TESTS_EXTERN
#include "support/decompositions_once.hpp"
