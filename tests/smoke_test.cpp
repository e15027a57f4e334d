// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <mora/version.hpp>
#include <string>

TEST(Version, IsThatOfTheBuild) {
  const auto text = std::to_string(mora::version_major) + "." +
                    std::to_string(mora::version_minor) + "." + std::to_string(mora::version_patch);
  EXPECT_EQ(text, MORA_BUILD_VERSION);
}
