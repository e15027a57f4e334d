// SPDX-License-Identifier: MIT
#include <mora/analysis/singular_values.hpp>

mora::Spectrum of(const Eigen::MatrixXd& update) { return mora::spectrum(update); }
