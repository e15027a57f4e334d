// SPDX-License-Identifier: MIT
//
// Weights and batches that live elsewhere: a buffer that somebody keeps alive, rows with gaps, and
// Eigen's usual column-major matrices of one column a token. None of them is copied.

#include <iostream>
#include <memory>
#include <random>
#include <vector>

#include "mora/mora.hpp"

int main() {
  std::mt19937_64 generator(3);

  // A weight [out = 2, in = 3] in a buffer; a mapped file would look the same. The layer keeps
  // `file` alive for as long as it reads from it.
  auto file = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3, 4, 5, 6});
  mora::FrozenLinear<float> frozen(file->data(), 2, 3, file);
  mora::LoraLinear<float> one(frozen, {.rank = 1}, generator);
  mora::LoraLinear<float> two(frozen, {.rank = 2}, generator);  // over the same numbers

  // Eigen's usual layout: [in, tokens], column-major. Its transpose is [tokens, in], row-major.
  Eigen::MatrixXf columns(3, 4);
  columns << 1, 0, 0, 1,  //
      0, 1, 0, 1,         //
      0, 0, 1, 1;
  const mora::Matrix<float> y = one.forward(columns.transpose());
  std::cout << "by rows:\n" << y << '\n';

  // A result straight into a column-major [out, tokens] matrix, and into a part of a larger one.
  Eigen::MatrixXf y_columns(2, 4);
  one.forward(columns.transpose(), y_columns.transpose());
  mora::Matrix<float> both = mora::Matrix<float>::Zero(4, 4);
  one.forward(columns.transpose(), both.leftCols(2));
  two.forward(columns.transpose(), both.rightCols(2));

  return y.transpose() == y_columns && both.leftCols(2) == y ? 0 : 1;
}
