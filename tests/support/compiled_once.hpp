// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/QR>
#include <Eigen/SVD>
#include <mora/core/product.hpp>

/// \file
/// What nearly every test uses and what takes longest to compile: once, in compiled_once.cpp, which
/// defines the word before `template` as nothing. Part of the precompiled headers.

#ifndef MORA_TESTS_EXTERN
#define MORA_TESTS_EXTERN extern
#endif

namespace mora::inline MORA_ABI::detail {

MORA_TESTS_EXTERN template void add_product<Operand::plain, Operand::plain>(MutableMap<float>,
                                                                            float,
                                                                            const ConstMap<float>&,
                                                                            const ConstMap<float>&);
MORA_TESTS_EXTERN template void add_product<Operand::plain, Operand::transposed>(
    MutableMap<float>, float, const ConstMap<float>&, const ConstMap<float>&);
MORA_TESTS_EXTERN template void add_product<Operand::transposed, Operand::plain>(
    MutableMap<float>, float, const ConstMap<float>&, const ConstMap<float>&);
MORA_TESTS_EXTERN template void add_product<Operand::plain, Operand::plain>(
    MutableMap<double>, double, const ConstMap<double>&, const ConstMap<double>&);
MORA_TESTS_EXTERN template void add_product<Operand::plain, Operand::transposed>(
    MutableMap<double>, double, const ConstMap<double>&, const ConstMap<double>&);
MORA_TESTS_EXTERN template void add_product<Operand::transposed, Operand::plain>(
    MutableMap<double>, double, const ConstMap<double>&, const ConstMap<double>&);

}  // namespace mora::inline MORA_ABI::detail

MORA_TESTS_EXTERN template class Eigen::BDCSVD<Eigen::MatrixXd>;
MORA_TESTS_EXTERN template class Eigen::JacobiSVD<Eigen::MatrixXd>;
MORA_TESTS_EXTERN template class Eigen::HouseholderQR<Eigen::MatrixXd>;
