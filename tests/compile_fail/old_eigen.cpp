// SPDX-License-Identifier: MIT
// An Eigen that says it is 3.3.
#include <Eigen/Core>
#undef EIGEN_MAJOR_VERSION
#define EIGEN_MAJOR_VERSION 3
#include <mora/mora.hpp>
