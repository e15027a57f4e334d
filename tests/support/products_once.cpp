// SPDX-License-Identifier: MIT
#define MORA_TESTS_EXTERN
#include "support/products_once.hpp"
