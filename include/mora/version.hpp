// SPDX-License-Identifier: MIT
#pragma once

namespace mora {

/// The library's version, stated here alone; CMake reads these lines.
inline constexpr int version_major = 0;
inline constexpr int version_minor = 1;
inline constexpr int version_patch = 0;

}  // namespace mora
