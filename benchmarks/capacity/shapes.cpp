// SPDX-License-Identifier: MIT
#include "capacity/shapes.hpp"

#include <chrono>
#include <string_view>
#include <utility>

#include "experiment/decompositions_once.hpp"
#include "experiment/methods.hpp"
#include "mora/analysis/singular_values.hpp"

namespace capacity {
namespace {

/// In and out: BERT's and LLaMA's sizes, square, widening and narrowing.
constexpr std::pair<Index, Index> layer_shapes[] = {{768, 768},   {768, 2560},   {2560, 768},
                                                    {4096, 4096}, {4096, 11008}, {11008, 4096}};

/// Seconds, by the estimate below, which is of an EPYC of the first generation.
constexpr double quick = 0.2;

template <class Method>
[[nodiscard]] auto make_adapter(const Method& method, const ShapeRow& row) {
  using Adapter = typename Method::template Layer<double>::AdapterType;
  const auto settings = method.settings(row.lora_rank, 1);
  if constexpr (is_lora<Method>) {
    mora::SplitMix64 generator(0);  // for numbers that are drawn anew
    return Adapter(row.in, row.out, settings, generator);
  } else {
    return Adapter(row.in, row.out, settings);
  }
}

}  // namespace

void Shapes::add_methods(Suite& suite) {
  for_each_method([&]<class M>(const M& method) {
    for (const auto& [in, out] : layer_shapes) {
      for (Index rank = 1; rank <= 256; rank *= 2) {
        if (is_full<M> && rank > 1) break;
        ShapeRow& row = all_.emplace_back();
        row.in = in;
        row.out = out;
        row.lora_rank = is_full<M> ? 0 : rank;
        row.method = method.name;
        add(suite, method, row);
      }
    }
  });
}

template <class Method>
void Shapes::add(Suite& suite, const Method& method, ShapeRow& row) {
  const std::string r = is_full<Method> ? "" : "/r:" + std::to_string(row.lora_rank);
  const std::string name = "capacity/shape:" + row.shape() + r + "/" + method.name;
  suite.add(
      name,
      [=, this, &row](Plan& plan) {
        plan.add(Stage::first, {name, compute(method, row) ? cost(method, row) : 0.001,
                                [=, this, &row] { measure(method, row); }});
      },
      [&row](benchmark::UserCounters& counters) {
        counters["parameters"] = double(row.parameters);
        counters["budget"] = double(row.budget);
        counters["side"] = double(row.side);
        counters["rank"] = double(row.rank);
        counters["rank_computed"] = row.computed;
        if (row.computed) counters["effective_rank"] = row.effective_rank;
        return row.seconds;
      });
}

/// Seconds for the singular values, roughly: a decomposition of n x n takes 0.4 ns n^3 and more
/// where it is small. One block's is of the side; of several blocks the last often shares inputs
/// with the first, which then are one piece of twice the side.
template <class Method>
double Shapes::cost(const Method& method, const ShapeRow& row) const {
  const double narrow = double(std::min(row.in, row.out));
  if constexpr (is_full<Method>) {
    return 2e-10 * narrow * narrow * double(row.in + row.out);
  } else if constexpr (is_lora<Method>) {
    return 0.001 * double(row.lora_rank);
  } else {
    const auto adapter = make_adapter(method, row);
    const double side = std::min(narrow, double(adapter.side()));
    const double of_blocks =
        adapter.compressor().blocks() == 1 ? 2.0 * side : 8.0 * side + 2.0 * narrow;
    return 0.01 + (4e-10 * side + 3e-7) * side * of_blocks;
  }
}

/// Together singular values take many minutes, so that by default only what is quick has its own
/// computed, and what the square large layer can do at the usual r = 8.
template <class Method>
bool Shapes::compute(const Method& method, const ShapeRow& row) const {
  const bool usual = row.in == 4096 && row.out == 4096 && row.lora_rank == 8;
  return full_ || usual || cost(method, row) < quick;
}

template <class Method>
void Shapes::measure(const Method& method, ShapeRow& row) const {
  const auto start = std::chrono::steady_clock::now();
  const Index narrow = std::min(row.in, row.out);
  mora::SplitMix64 generator(1);
  const auto decompose = [&](const auto& update) {
    const mora::Spectrum spectrum = mora::spectrum(update);
    row.rank = spectrum.numerical_rank();
    row.effective_rank = spectrum.effective_rank();
    row.computed = true;
  };
  if constexpr (is_full<Method>) {
    row.parameters = row.in * row.out;
    row.rank = narrow;
    if (compute(method, row)) {
      mora::Matrix<double> update(row.out, row.in);
      mora::fill_normal(update, 1.0, generator);
      decompose(update);
    }
  } else {
    auto adapter = make_adapter(method, row);
    row.parameters = mora::parameter_count(adapter);
    row.budget = mora::lora_budget(row.in, row.out, row.lora_rank);
    if constexpr (is_lora<Method>) {
      row.rank = std::min(narrow, row.lora_rank);
    } else {
      row.side = adapter.side();
      row.rank = std::min(narrow, row.side * adapter.compressor().blocks());
    }
    if (compute(method, row)) {
      adapter.visit_parameters(
          [&](std::string_view, auto& p) { mora::fill_normal(p.value, 1.0, generator); });
      decompose(adapter);
    }
  }
  row.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace capacity
