// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <mora/version.hpp>

TEST(Version, IsThatOfTheBuild) {
  EXPECT_GE(mora::version_major, 0);
  EXPECT_GE(mora::version_minor, 0);
  EXPECT_GE(mora::version_patch, 0);
}
