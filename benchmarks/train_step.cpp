// SPDX-License-Identifier: MIT
//
// A whole training step of a LLaMA decoder with adapters on all its linear layers: forward pass,
// backward pass with loss, AdamW; and greedy decoding, one token at a time with a cache.
//
//   train_step --benchmark_filter='small/lora/train'
//
// Names: <size>/<adapter>/train, /floor and /decode. Sizes: "small" has width 128, 4 layers and
// 64 x 65 tokens, "large" width 768, 12 layers and 4 x 256 tokens. Counters, medians over the
// iterations: forward_ms (of the loss alone, without a backward pass to come), backward_ms (the
// rest of the gradient), optimizer_ms, step_ms, tokens_per_s, gflop (the products that a step needs
// at least, twice their multiply-adds), gflops (those a second), peak_mb of the process, counted_mb
// (weights, adapters with gradients and moments, activations, counted by hand), loss. floor_ms of
// /floor is what as many multiply-adds take the library's kernel alone, on all threads, over blocks
// that are packed and in the caches already: nothing that uses it is faster. benchmarks/peers has
// the same in PyTorch; scripts/compare_peers runs all in turn.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "mora/adapters/full.hpp"
#include "mora/adapters/lora.hpp"
#include "mora/adapters/mora.hpp"
#include "mora/models/llama/llama.hpp"
#include "mora/operators/sharing.hpp"
#include "mora/optim/adamw.hpp"

namespace {

using mora::Index;
using mora::Token;
using Clock = std::chrono::steady_clock;

struct Size {
  std::string name;
  mora::LlamaConfig config;
  Index sequences;
  Index length;
};

const std::vector<Size> sizes = {
    {"small",
     {.vocab_size = 256,
      .hidden_size = 128,
      .intermediate_size = 344,
      .num_hidden_layers = 4,
      .num_attention_heads = 4},
     64,
     65},
    {"large",
     {.vocab_size = 32000,
      .hidden_size = 768,
      .intermediate_size = 2048,
      .num_hidden_layers = 12,
      .num_attention_heads = 12},
     4,
     256},
};
constexpr Index rank = 8;

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

/// The most memory that the process has had so far (Linux; else 0).
double peak_mb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;
  }
  return 0.0;
}

mora::Batch random_batch(const Size& size, mora::SplitMix64& generator) {
  mora::Batch batch;
  std::vector<Token> text(static_cast<std::size_t>(size.length) + 1);
  for (Index s = 0; s < size.sequences; ++s) {
    for (Token& token : text) {
      token = static_cast<Token>(
          mora::uniform_below(static_cast<std::uint64_t>(size.config.vocab_size), generator));
    }
    batch.add_window(text, 0, size.length);
  }
  return batch;
}

/// Multiply-adds a token of an adapter's gradient. Its output and the gradient by its input are not
/// counted, as W + Delta W could be made once a step.
template <class T, class Op>
double products_of(const mora::MoraAdapter<T, Op>& adapter) {
  const Index used = std::min(adapter.compressor().blocks() * adapter.side(),
                              std::min(adapter.in_features(), adapter.out_features()));
  return double(used) * double(adapter.side());
}
template <class T>
double products_of(const mora::LoraAdapter<T>& adapter) {
  return 2.0 * double(adapter.settings().rank) *
         double(adapter.in_features() + adapter.out_features());
}

/// Multiply-adds a token of a training step: of the frozen linear layers and the head, forward and
/// by their inputs; of causal attention, half of its square, with four products backward; of the
/// adapters' gradients. Gradients by the inputs of layer 0's q, k and v are not needed.
template <class Settings>
double step_products(const Size& size, const mora::Llama<float>& model) {
  const mora::LlamaConfig& c = size.config;
  double products = 2.0 * double(c.hidden_size) * double(c.vocab_size) +
                    3.0 * double(c.num_hidden_layers * c.query_size() * (size.length + 1));
  for (const auto& tensor : model.tensors().all()) {
    const auto* const any =
        tensor.linear && tensor.layer >= 0 ? model.adapter("adapter", tensor.module()) : nullptr;
    if (!any) continue;
    const std::string module(tensor.module());
    const bool by_input =
        tensor.layer > 0 ||
        !(module.ends_with("q_proj") || module.ends_with("k_proj") || module.ends_with("v_proj"));
    const double own = products_of(*any->template get_if<mora::AdapterOf<float, Settings>>());
    products += (by_input ? 2 : 1) * double(tensor.rows * tensor.cols) + own;
  }
  return products;
}

/// Multiplies as often as `products` needs, by the library's kernel on all threads, over blocks
/// that are packed and in the caches already.
void run_kernel(double products) {
  constexpr Index rows = 252;  // whole blocks
  constexpr Index cols = 6 * mora::detail::panel_cols<float>;
  constexpr Index depth = 256;
  const Index threads = mora::detail::thread_count();
  const auto times = Index(std::ceil(products / double(rows * cols * depth * threads)));
  mora::detail::parallel_pieces(threads, 1, [&](Index, Index) {
    const mora::Matrix<float> a = mora::Matrix<float>::Zero(rows, depth);
    const mora::Matrix<float> b = mora::Matrix<float>::Zero(depth, cols);
    mora::Matrix<float> c = mora::Matrix<float>::Zero(rows, cols);
    const mora::detail::PackedFactor<float> packed(mora::detail::map_of(b));
    for (Index i = 0; i < times; ++i) {
      packed.add_product(mora::detail::map_of(c), 1.0F, mora::detail::map_of(a));
    }
  });
}

template <class Settings>
void attach(mora::Llama<float>& model, const Settings& settings, mora::SplitMix64& generator) {
  model.attach("adapter", settings, {.all_linear = true}, generator);
  // A training that has begun.
  model.visit_parameters([&](std::string_view name, auto& p) {
    if (!name.ends_with(".A")) mora::fill_normal(p.value, 0.02, generator);
  });
}

/// Numbers a token that an adapter keeps for its backward pass, besides x.
template <class T, class Op>
Index saved_by(const mora::MoraAdapter<T, Op>& adapter) {
  return adapter.saves_input ? 0 : adapter.compressor().blocks() * adapter.side();
}
template <class T>
Index saved_by(const mora::LoraAdapter<T>& adapter) {
  return adapter.settings().rank;
}

/// In MB: weights, and those of linear layers twice more where a step packs them; adapters with
/// gradients and two moments, and the lanes' copies of values and gradients; for the groups that
/// are under way at the same time, what their layers keep, and the buffers that all layers share.
/// See mora::detail::LlamaTraining.
double counted_mb(const Size& size, const mora::Llama<float>& model, Index saved_by_adapters) {
  const mora::LlamaConfig& c = size.config;
  double weights = 0;
  const bool packs = mora::detail::StepWeights<float>::fits(
      c, model.tensors(), mora::detail::SequenceGroups::rows_wanted);
  for (const auto& tensor : model.tensors().all()) {
    const bool packed = packs && tensor.linear && tensor.layer >= 0;
    weights += (packed ? 3.0 : 1.0) * double(tensor.rows * tensor.cols);
  }
  const Index groups = std::min(
      size.sequences * size.length / mora::detail::SequenceGroups::rows_wanted, size.sequences);
  const double lanes = double(std::min<Index>(8, groups));
  const double under_way = double(std::min(mora::detail::thread_count(), groups));
  const Index rows = (size.sequences + groups - 1) / groups * size.length;
  const double kept = double(c.num_hidden_layers) *
                      double(2 * c.hidden_size + 2 * c.query_size() + 2 * c.key_value_size() +
                             2 * c.intermediate_size + c.num_attention_heads + 2);
  const double shared = double(7 * c.hidden_size + 2 * c.query_size() + 2 * c.key_value_size() +
                               2 * c.intermediate_size);
  const double logits = double(mora::detail::head_tile(c.vocab_size, rows) * c.vocab_size);
  return (weights + (4 + 2 * lanes) * double(mora::parameter_count(model)) +
          under_way * (double(rows) * (kept + shared + double(saved_by_adapters)) + logits)) *
         4.0 / (1 << 20);
}

template <class Settings>
void train(benchmark::State& state, const Size& size, const Settings& settings) {
  mora::SplitMix64 generator(1);
  mora::Llama<float> model(size.config, generator);
  attach(model, settings, generator);
  const mora::Batch batch = random_batch(size, generator);
  mora::AdamW<float> optimizer({.learning_rate = 1e-4});
  const double weight = 1.0 / double(batch.target_count());
  std::vector<double> forward, gradients, step, all;
  double loss = 0;
  const auto run = [&] {
    const auto start = Clock::now();
    mora::zero_gradients(model);
    loss = model.accumulate_gradients(batch, weight).mean();
    gradients.push_back(milliseconds_since(start));
    const auto last = Clock::now();
    optimizer.step(model);
    step.push_back(milliseconds_since(last));
    all.push_back(milliseconds_since(start));
  };
  run();
  run();
  gradients.clear(), step.clear(), all.clear();
  for (auto _ : state) {
    run();
    state.SetIterationTime(all.back() / 1000);
  }
  state.counters["peak_mb"] = peak_mb();
  for (std::size_t i = 0; i < std::max<std::size_t>(3, all.size() / 2); ++i) {
    const auto start = Clock::now();
    benchmark::DoNotOptimize(model.loss(batch));
    forward.push_back(milliseconds_since(start));
  }
  const double tokens = double(batch.positions());
  state.counters["forward_ms"] = median(forward);
  state.counters["backward_ms"] = median(gradients) - median(forward);
  state.counters["optimizer_ms"] = median(step);
  state.counters["step_ms"] = median(all);
  state.counters["tokens_per_s"] = 1000 * tokens / median(all);
  const double gflop = 2e-9 * tokens * step_products<Settings>(size, model);
  state.counters["gflop"] = gflop;
  state.counters["gflops"] = 1000 * gflop / median(all);
  Index saved = 0;
  for (const auto& tensor : model.tensors().all()) {
    const auto* const adapter =
        tensor.linear && tensor.layer >= 0 ? model.adapter("adapter", tensor.module()) : nullptr;
    if (!adapter) continue;
    saved += saved_by(*adapter->template get_if<mora::AdapterOf<float, Settings>>());
    // down's input, which nothing else keeps.
    if (adapter->saves_input() && tensor.module().ends_with("down_proj")) saved += tensor.cols;
  }
  state.counters["counted_mb"] = counted_mb(size, model, saved);
  state.counters["parameters"] = double(mora::parameter_count(model));
  state.counters["loss"] = loss;
}

template <class Settings>
void measure_floor(benchmark::State& state, const Size& size, const Settings& settings) {
  mora::SplitMix64 generator(1);
  mora::Llama<float> model(size.config, generator);
  attach(model, settings, generator);
  const double products =
      step_products<Settings>(size, model) * double(size.sequences * size.length);
  std::vector<double> times;
  for (auto _ : state) {
    const auto start = Clock::now();
    run_kernel(products);
    times.push_back(milliseconds_since(start));
    state.SetIterationTime(times.back() / 1000);
  }
  state.counters["floor_ms"] = median(times);
}

template <class Settings>
void decode(benchmark::State& state, const Size& size, const Settings& settings) {
  mora::SplitMix64 generator(1);
  mora::Llama<float> model(size.config, generator);
  attach(model, settings, generator);
  const mora::Batch batch = random_batch(size, generator);
  constexpr Index prompt = 16;
  constexpr Index tokens = 48;
  mora::RowVector<float> logits;
  mora::LlamaCache<float> cache = model.cache();
  std::vector<double> times;
  for (auto _ : state) {
    cache.truncate(0);
    model.next_logits(std::span(batch.tokens).first(prompt), cache, logits);
    const auto start = Clock::now();
    for (Index i = 0; i < tokens; ++i) {
      Index best = 0;
      logits.maxCoeff(&best);
      const auto token = static_cast<Token>(best);
      model.next_logits({&token, 1}, cache, logits);
    }
    times.push_back(milliseconds_since(start));
    state.SetIterationTime(times.back() / 1000);
  }
  state.counters["decode_tokens_per_s"] = 1000 * double(tokens) / median(times);
  state.counters["peak_mb"] = peak_mb();
}

template <class Settings>
void register_adapter(const std::string& adapter, const Settings& settings) {
  for (const Size& size : sizes) {
    const std::string name = size.name + "/" + adapter;
    const auto add = [&](const std::string& part, auto function) {
      benchmark::RegisterBenchmark(
          (name + part).c_str(),
          [&size, settings, function](auto& state) { function(state, size, settings); })
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
    };
    add("/train", train<Settings>);
    add("/floor", measure_floor<Settings>);
    add("/decode", decode<Settings>);
  }
}

}  // namespace

int main(int argc, char** argv) {
  register_adapter("lora", mora::LoraSettings{.rank = rank, .alpha = double(rank)});
  register_adapter("sharing", mora::MoraSettings<mora::Sharing>{.rank = rank});
  register_adapter("rotation", mora::MoraSettings<mora::Rotation>{.rank = rank});
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
