// SPDX-License-Identifier: MIT
#include <cmath>

double first_part();
double second_part();

int main() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx")) return 0;  // one of the parts may need it
#endif
  for (int turn = 0; turn < 3; ++turn) {
    const double expected = first_part();
    if (!(std::abs(second_part() - expected) <= 1e-4 * expected)) return 1;
  }
  return 0;
}
