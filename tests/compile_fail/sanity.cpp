// SPDX-License-Identifier: MIT
// What the other sources get wrong, done right.
#include <mora/mora.hpp>
#include <random>

mora::Matrix<float> load();

void use(const mora::Matrix<double>& exact) {
  const Eigen::MatrixXf columns = Eigen::MatrixXf::Ones(4, 6);
  const mora::FrozenLinear<float> of_columns(columns.transpose());
  const mora::FrozenLinear<float> of_temporary(mora::Matrix<float>(6, 4));
  const mora::FrozenLinear<float> of_expression((2.0f * load()).eval());
  const mora::FrozenLinear<float> of_double(exact.cast<float>().eval());

  mora::Matrix<float> weight = load();
  mora::MoraLinear<float> layer(weight, mora::MoraAdapter<float>(4, 6));
  mora::Matrix<float> y(6, 6);
  layer.forward(columns.transpose(), y);
  layer.forward(2.0f * weight, y);
  layer.merge_into(weight);

  std::mt19937_64 generator(1);
  const mora::LoraLinear<double> lora(exact, {.rank = 2}, generator);
  const mora::MoraLinear<double, mora::Decoupling> decoupled(exact);
}
