// SPDX-License-Identifier: MIT
#include <mora/mora.hpp>
