// SPDX-License-Identifier: MIT
#define PROGRAMS_EXTERN
#include "programs/compiled_once.hpp"
