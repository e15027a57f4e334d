// SPDX-License-Identifier: MIT
#define MORA_DECOMPOSITIONS_EXTERN
#include "experiment/decompositions_once.hpp"
