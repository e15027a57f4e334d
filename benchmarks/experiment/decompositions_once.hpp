// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/QR>
#include <Eigen/SVD>

/// \file
/// Decompositions take long to compile: once for several programs, in decompositions_once.cpp,
/// which defines the word before `template` as nothing.

#ifndef MORA_DECOMPOSITIONS_EXTERN
#define MORA_DECOMPOSITIONS_EXTERN extern
#endif

MORA_DECOMPOSITIONS_EXTERN template class Eigen::BDCSVD<Eigen::MatrixXd>;
MORA_DECOMPOSITIONS_EXTERN template class Eigen::JacobiSVD<Eigen::MatrixXd>;
MORA_DECOMPOSITIONS_EXTERN template class Eigen::HouseholderQR<Eigen::MatrixXd>;
