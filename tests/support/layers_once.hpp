// SPDX-License-Identifier: MIT
#pragma once

#include "experiment/decompositions_once.hpp"
#include "support/layer_types.hpp"
#include "support/misuse.hpp"
#include "support/products_once.hpp"

/// \file
/// The layers of the suites EveryLayer with what these call most: once, in layers_once.cpp, as in
/// products_once.hpp, which it includes. Part of the precompiled headers.

#ifndef MORA_TESTS_EXTERN_LAYERS
#define MORA_TESTS_EXTERN_LAYERS extern
#endif

MORA_TESTS_EXTERN_LAYERS template class mora::FrozenLinear<float>;
MORA_TESTS_EXTERN_LAYERS template class mora::Optimizer<mora::AdamWRule<float>>;
MORA_TESTS_EXTERN_LAYERS template class mora::Optimizer<mora::SgdRule<float>>;
MORA_TESTS_EXTERN_LAYERS template class mora::FrozenLinear<double>;
MORA_TESTS_EXTERN_LAYERS template class mora::Optimizer<mora::AdamWRule<double>>;
MORA_TESTS_EXTERN_LAYERS template class mora::Optimizer<mora::SgdRule<double>>;

MORA_TESTS_EXTERN_LAYERS template class mora::LoraAdapter<double>;
MORA_TESTS_EXTERN_LAYERS template class mora::MoraAdapter<float>;
MORA_TESTS_EXTERN_LAYERS template class mora::MoraAdapter<double, mora::Sharing>;
MORA_TESTS_EXTERN_LAYERS template class mora::MoraAdapter<float, mora::RandomSharing>;
MORA_TESTS_EXTERN_LAYERS template class mora::LoraAdapter<float>;
MORA_TESTS_EXTERN_LAYERS template class mora::DoraAdapter<mora::LoraAdapter<double>>;
MORA_TESTS_EXTERN_LAYERS template class mora::HiraAdapter<float>;
MORA_TESTS_EXTERN_LAYERS template class mora::MissAdapter<double>;
MORA_TESTS_EXTERN_LAYERS template class mora::LokrAdapter<double>;
MORA_TESTS_EXTERN_LAYERS template class mora::FullAdapter<double>;

MORA_TESTS_EXTERN_LAYERS template class mora::AdaptedLinear<mora::MoraAdapter<float>>;
MORA_TESTS_EXTERN_LAYERS template class mora::AdaptedLinear<
    mora::MoraAdapter<double, mora::Sharing>>;
MORA_TESTS_EXTERN_LAYERS template class mora::AdaptedLinear<
    mora::MoraAdapter<float, mora::RandomSharing>>;
MORA_TESTS_EXTERN_LAYERS template class mora::AdaptedLinear<mora::LoraAdapter<float>>;
MORA_TESTS_EXTERN_LAYERS template class mora::AdaptedLinear<
    mora::DoraAdapter<mora::LoraAdapter<double>>>;
MORA_TESTS_EXTERN_LAYERS template class mora::AdaptedLinear<mora::HiraAdapter<float>>;
MORA_TESTS_EXTERN_LAYERS template class mora::AdaptedLinear<mora::MissAdapter<double>>;
MORA_TESTS_EXTERN_LAYERS template class mora::AdaptedLinear<mora::LokrAdapter<double>>;
MORA_TESTS_EXTERN_LAYERS template class mora::AdaptedLinear<mora::FullAdapter<double>>;

namespace mora_tests {

MORA_TESTS_EXTERN_LAYERS template mora::Matrix<float> Random::matrix<float>(Index, Index, double);
MORA_TESTS_EXTERN_LAYERS template mora::Matrix<float> random_numbers<float>(Index, Index,
                                                                            std::uint64_t);
MORA_TESTS_EXTERN_LAYERS template testing::AssertionResult equal(
    const Eigen::DenseBase<mora::Matrix<float>>&, const Eigen::DenseBase<mora::Matrix<float>>&);
MORA_TESTS_EXTERN_LAYERS template testing::AssertionResult same_bits(
    const Eigen::DenseBase<mora::Matrix<float>>&, const Eigen::DenseBase<mora::Matrix<float>>&);
MORA_TESTS_EXTERN_LAYERS template testing::AssertionResult near(
    const Eigen::DenseBase<mora::Matrix<float>>&, const Eigen::DenseBase<mora::Matrix<float>>&,
    const Within&);
MORA_TESTS_EXTERN_LAYERS template mora::Matrix<double> Random::matrix<double>(Index, Index, double);
MORA_TESTS_EXTERN_LAYERS template mora::Matrix<double> random_numbers<double>(Index, Index,
                                                                              std::uint64_t);
MORA_TESTS_EXTERN_LAYERS template testing::AssertionResult equal(
    const Eigen::DenseBase<mora::Matrix<double>>&, const Eigen::DenseBase<mora::Matrix<double>>&);
MORA_TESTS_EXTERN_LAYERS template testing::AssertionResult same_bits(
    const Eigen::DenseBase<mora::Matrix<double>>&, const Eigen::DenseBase<mora::Matrix<double>>&);
MORA_TESTS_EXTERN_LAYERS template testing::AssertionResult near(
    const Eigen::DenseBase<mora::Matrix<double>>&, const Eigen::DenseBase<mora::Matrix<double>>&,
    const Within&);

MORA_TESTS_EXTERN_LAYERS template mora::MoraLinear<float> make_layer<mora::MoraLinear<float>>(
    Index, Index, Index, std::uint64_t);
MORA_TESTS_EXTERN_LAYERS template mora::MoraLinear<double, mora::Sharing>
    make_layer<mora::MoraLinear<double, mora::Sharing>>(Index, Index, Index, std::uint64_t);
MORA_TESTS_EXTERN_LAYERS template mora::MoraLinear<float, mora::RandomSharing>
    make_layer<mora::MoraLinear<float, mora::RandomSharing>>(Index, Index, Index, std::uint64_t);
MORA_TESTS_EXTERN_LAYERS template mora::LoraLinear<float> make_layer<mora::LoraLinear<float>>(
    Index, Index, Index, std::uint64_t);
MORA_TESTS_EXTERN_LAYERS template mora::DoraLinear<double> make_layer<mora::DoraLinear<double>>(
    Index, Index, Index, std::uint64_t);
MORA_TESTS_EXTERN_LAYERS template mora::HiraLinear<float> make_layer<mora::HiraLinear<float>>(
    Index, Index, Index, std::uint64_t);
MORA_TESTS_EXTERN_LAYERS template mora::MissLinear<double> make_layer<mora::MissLinear<double>>(
    Index, Index, Index, std::uint64_t);
MORA_TESTS_EXTERN_LAYERS template mora::LokrLinear<double> make_layer<mora::LokrLinear<double>>(
    Index, Index, Index, std::uint64_t);
MORA_TESTS_EXTERN_LAYERS template mora::FullLinear<double> make_layer<mora::FullLinear<double>>(
    Index, Index, Index, std::uint64_t);

MORA_TESTS_EXTERN_LAYERS template Bits bits_of(const mora::MoraLinear<float>&);
MORA_TESTS_EXTERN_LAYERS template Bits bits_of(const mora::MoraLinear<double, mora::Sharing>&);
MORA_TESTS_EXTERN_LAYERS template Bits bits_of(const mora::MoraLinear<float, mora::RandomSharing>&);
MORA_TESTS_EXTERN_LAYERS template Bits bits_of(const mora::LoraLinear<float>&);
MORA_TESTS_EXTERN_LAYERS template Bits bits_of(const mora::DoraLinear<double>&);
MORA_TESTS_EXTERN_LAYERS template Bits bits_of(const mora::HiraLinear<float>&);
MORA_TESTS_EXTERN_LAYERS template Bits bits_of(const mora::MissLinear<double>&);
MORA_TESTS_EXTERN_LAYERS template Bits bits_of(const mora::LokrLinear<double>&);
MORA_TESTS_EXTERN_LAYERS template Bits bits_of(const mora::FullLinear<double>&);

MORA_TESTS_EXTERN_LAYERS template void expect_works(mora::MoraLinear<float>, Index);
MORA_TESTS_EXTERN_LAYERS template void expect_works(mora::MoraLinear<double, mora::Sharing>, Index);
MORA_TESTS_EXTERN_LAYERS template void expect_works(mora::MoraLinear<float, mora::RandomSharing>,
                                                    Index);
MORA_TESTS_EXTERN_LAYERS template void expect_works(mora::LoraLinear<float>, Index);
MORA_TESTS_EXTERN_LAYERS template void expect_works(mora::DoraLinear<double>, Index);
MORA_TESTS_EXTERN_LAYERS template void expect_works(mora::HiraLinear<float>, Index);
MORA_TESTS_EXTERN_LAYERS template void expect_works(mora::MissLinear<double>, Index);
MORA_TESTS_EXTERN_LAYERS template void expect_works(mora::LokrLinear<double>, Index);
MORA_TESTS_EXTERN_LAYERS template void expect_works(mora::FullLinear<double>, Index);

}  // namespace mora_tests
