// SPDX-License-Identifier: MIT
#pragma once

#include <mora/core/product.hpp>

/// \file
/// Products, which nearly every test uses and which take long to compile: once, in
/// products_once.cpp, which defines the word before `template` as nothing. Part of the precompiled
/// headers.

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

MORA_TESTS_EXTERN template class PackedFactor<float>;
MORA_TESTS_EXTERN template class PackedFactor<double>;

}  // namespace mora::inline MORA_ABI::detail

// The kernel under all products, so that no test has an unoptimised one of its own, which the
// linker might take for all.
MORA_TESTS_EXTERN template struct Eigen::internal::gebp_kernel<
    float, float, Eigen::Index,
    Eigen::internal::blas_data_mapper<float, Eigen::Index, Eigen::ColMajor>,
    Eigen::internal::gebp_traits<float, float>::mr, Eigen::internal::gebp_traits<float, float>::nr,
    false, false>;
MORA_TESTS_EXTERN template struct Eigen::internal::gebp_kernel<
    double, double, Eigen::Index,
    Eigen::internal::blas_data_mapper<double, Eigen::Index, Eigen::ColMajor>,
    Eigen::internal::gebp_traits<double, double>::mr,
    Eigen::internal::gebp_traits<double, double>::nr, false, false>;
