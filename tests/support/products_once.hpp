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

// The kernel under all products, so that no test has an unoptimised one of its own, which the
// linker might take for all.
MORA_TESTS_EXTERN template void multiply_rows<true>(float*, Index, Index, Index, float,
                                                    const LeftRows<float>&, const Panels<float>&,
                                                    Index);
MORA_TESTS_EXTERN template void multiply_rows<false>(float*, Index, Index, Index, float,
                                                     const LeftRows<float>&, const Panels<float>&,
                                                     Index);
MORA_TESTS_EXTERN template void multiply_rows<true>(double*, Index, Index, Index, double,
                                                    const LeftRows<double>&, const Panels<double>&,
                                                    Index);
MORA_TESTS_EXTERN template void multiply_rows<false>(double*, Index, Index, Index, double,
                                                     const LeftRows<double>&, const Panels<double>&,
                                                     Index);
MORA_TESTS_EXTERN template Panels<float> pack_panels(float*, const ConstMap<float>&);
MORA_TESTS_EXTERN template Panels<double> pack_panels(double*, const ConstMap<double>&);
MORA_TESTS_EXTERN template Panels<float> pack_panels_of_transposed(float*, const ConstMap<float>&);
MORA_TESTS_EXTERN template Panels<double> pack_panels_of_transposed(double*,
                                                                    const ConstMap<double>&);

}  // namespace mora::inline MORA_ABI::detail
