// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/QR>
#include <Eigen/SVD>

/// \file
/// The decompositions of the tests: once, in decompositions_once.cpp, as in products_once.hpp.

#ifndef MORA_TESTS_EXTERN
#define MORA_TESTS_EXTERN extern
#endif

MORA_TESTS_EXTERN template class Eigen::BDCSVD<Eigen::MatrixXd>;
MORA_TESTS_EXTERN template class Eigen::JacobiSVD<Eigen::MatrixXd>;
MORA_TESTS_EXTERN template class Eigen::HouseholderQR<Eigen::MatrixXd>;
