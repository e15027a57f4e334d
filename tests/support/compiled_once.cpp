// SPDX-License-Identifier: MIT
#define MORA_TESTS_EXTERN
#include "support/compiled_once.hpp"
