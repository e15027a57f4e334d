// SPDX-License-Identifier: MIT
//
// What an adapter costs on top of its frozen layer: forward, forward + backward, merge and the
// memory that a call asks for, beside the arithmetic floor. The frozen layer and the adapted one
// are timed in turn within one benchmark, and the overhead is the median of the ratios of
// neighbours, because the speed of a machine drifts by more than an adapter costs.
//
//   layer_speed --benchmark_filter='forward/4096x4096/r:8/tokens:512/'
//
// Names: <pass>/<in>x<out>/r:<rank>/tokens:<n>/<method>, then Google Benchmark's /manual_time. The
// methods are those of experiment/methods.hpp, but for full training, which is no addition.
// Counters: base_ms and ms (medians), overhead_pct, floor_pct (what the adapter's multiply-adds for
// each token would add at the frozen layer's speed; where MoRA adds to W instead it is less),
// part_pct (of additive adapters: the time of the adapter's own part to that of the frozen layer's,
// one right after the other in the same pass: what varies less than the difference of two passes on
// a machine with neighbours), allocations (a
// call, once warmed up: malloc and its kin). For merge: ms, base_ms of `W += D` on as many threads,
// plain_ms of Eigen's `W += D` on one, ratio, fresh_ms of merge() into memory of its own and
// copy_ms of copying W into memory of its own, on as many threads. product/<in>x<out>/tokens:<n>
// compares the library's product (the frozen layer) with Eigen's own expression,
// the base there. <pass>_small/<in>x<out>/tokens:<n>/<format> compares a frozen layer whose weight
// has 16 bits with the one whose weight has 32, the base there. update/<in>x<out>/r:<rank>/
// tokens:<n>/<operator> compares MoRA's two ways to a layer's output, the update added to parts of
// W and, the base there, tokens multiplied with M; work is M's multiply-adds to additions to W.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "adapter_work.hpp"
#include "experiment/methods.hpp"
#include "mora/core/large_memory.hpp"
#include "mora/core/parallel.hpp"
#include "mora/mora.hpp"

// Every allocation of the program passes here: operator new and Eigen call malloc, large memory
// aligned_alloc (glibc; elsewhere the count stays 0).
namespace {
std::atomic<long> allocations{0};

template <class Result>
Result counted(Result result) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return result;
}
}  // namespace
#if defined(__GLIBC__)
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);

void* malloc(std::size_t size) { return counted(__libc_malloc(size)); }
void* calloc(std::size_t count, std::size_t size) { return counted(__libc_calloc(count, size)); }
void* realloc(void* memory, std::size_t size) { return counted(__libc_realloc(memory, size)); }
void* memalign(std::size_t alignment, std::size_t size) {
  return counted(__libc_memalign(alignment, size));
}
void* aligned_alloc(std::size_t alignment, std::size_t size) { return memalign(alignment, size); }
int posix_memalign(void** memory, std::size_t alignment, std::size_t size) {
  *memory = memalign(alignment, size);
  return *memory == nullptr ? ENOMEM : 0;
}
}
#endif

namespace {

using mora::Index;
using Matrix = mora::Matrix<float>;

struct Case {
  Index in;
  Index out;
  Index rank;
  Index tokens;
};

template <class F>
double milliseconds(const F& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Matrix random_matrix(Index rows, Index cols, std::uint64_t seed) {
  Matrix matrix(rows, cols);
  mora::SplitMix64 generator(seed);
  mora::fill_uniform(matrix, 1.0, generator);
  return matrix;
}

template <class Method>
auto make_layer(const Method& method, const Matrix& weight, Index rank) {
  std::mt19937_64 generator(1);
  typename Method::template Layer<float> layer(weight, method.settings(rank, 1), generator);
  layer.visit_parameters(
      [&](std::string_view, auto& p) { mora::fill_normal(p.value, 0.01, generator); });
  return layer;
}

/// Runs base and variant in turn until Google Benchmark has enough of the variant's time.
template <class Base, class Variant>
void alternate(benchmark::State& state, const Base& base, const Variant& variant) {
  base();
  variant();
  variant();
  const long before = allocations.load();
  variant();
  const long count = allocations.load() - before;
  std::vector<double> base_ms, variant_ms, ratios;
  bool base_first = true;
  for (auto _ : state) {
    double b = 0;
    double v = 0;
    if (base_first) b = milliseconds(base);
    v = milliseconds(variant);
    if (!base_first) b = milliseconds(base);
    base_first = !base_first;
    base_ms.push_back(b);
    variant_ms.push_back(v);
    ratios.push_back(v / b);
    state.SetIterationTime(v / 1000);
  }
  state.counters["base_ms"] = median(base_ms);
  state.counters["ms"] = median(variant_ms);
  state.counters["overhead_pct"] = 100 * (median(ratios) - 1);
  state.counters["allocations"] = double(count);
}

/// The median over `passes` of the adapter's share, where `pass` runs both parts of a layer and
/// returns the milliseconds of either.
template <class Pass>
double part_percent(Index passes, const Pass& pass) {
  std::vector<double> ratios;
  for (Index i = 0; i < std::max<Index>(passes, 5); ++i) {
    const auto [frozen, adapter] = pass();
    ratios.push_back(adapter / frozen);
  }
  return 100 * median(ratios);
}

template <class Method>
void forward(benchmark::State& state, const Method& method, Case c) {
  const Matrix weight = random_matrix(c.out, c.in, 2);
  const auto layer = make_layer(method, weight, c.rank);
  const Matrix x = random_matrix(c.tokens, c.in, 3);
  Matrix y(c.tokens, c.out);
  alternate(
      state, [&] { layer.base().forward(x, y); }, [&] { layer.forward(x, y); });
  state.counters["floor_pct"] = 100 * double(adapter_work(layer.adapter())) / double(c.in * c.out);
  if constexpr (std::decay_t<decltype(layer)>::AdapterType::additive) {
    const mora::ConstMap<float> in = mora::detail::map_of(x);
    state.counters["part_pct"] = part_percent(state.iterations(), [&] {
      const double frozen = milliseconds([&] { layer.base().forward(x, y); });
      return std::pair(frozen, milliseconds([&] {
                         layer.adapter().add_forward(in, mora::detail::map_of(y), nullptr);
                       }));
    });
  }
}

template <class Method>
void train(benchmark::State& state, const Method& method, Case c) {
  const Matrix weight = random_matrix(c.out, c.in, 2);
  auto layer = make_layer(method, weight, c.rank);
  typename decltype(layer)::Saved saved;
  const Matrix x = random_matrix(c.tokens, c.in, 3);
  const Matrix dy = random_matrix(c.tokens, c.out, 4);
  Matrix y(c.tokens, c.out), dx(c.tokens, c.in);
  alternate(
      state,
      [&] {
        layer.base().forward(x, y);
        layer.base().backward(dy, dx);
      },
      [&] {
        layer.forward(x, saved, y);
        layer.backward(dy, saved, dx);
      });
  // Three products with M (or three with A and B, less one with A that does not train) against two
  // with W.
  double work = 1.5 * double(adapter_work(layer.adapter()));
  if constexpr (std::same_as<Method, experiment::FrozenA>) {
    work -= 0.5 * double(layer.adapter().settings().rank * c.in);
  }
  state.counters["floor_pct"] = 100 * work / double(c.in * c.out);
  if constexpr (std::decay_t<decltype(layer)>::AdapterType::additive) {
    auto& adapter = layer.adapter();
    typename Method::template Layer<float>::AdapterType::Saved kept;
    const mora::ConstMap<float> in = mora::detail::map_of(x);
    mora::MutableMap<float> dx_map = mora::detail::map_of(dx);
    state.counters["part_pct"] = part_percent(state.iterations(), [&] {
      double frozen = milliseconds([&] { layer.base().forward(x, y); });
      double own = milliseconds([&] { adapter.add_forward(in, mora::detail::map_of(y), &kept); });
      frozen += milliseconds([&] { layer.base().backward(dy, dx); });
      own +=
          milliseconds([&] { adapter.add_backward(in, mora::detail::map_of(dy), kept, &dx_map); });
      return std::pair(frozen, own);
    });
  }
}

template <class Method>
void merge(benchmark::State& state, const Method& method, Case c) {
  Matrix weight = random_matrix(c.out, c.in, 2);
  auto layer = make_layer(method, weight, c.rank);
  Matrix target = weight;
  const Matrix delta = random_matrix(c.out, c.in, 5);
  std::vector<double> plain;
  const Index rows = std::max<Index>(1, (Index{1} << 16) / c.in);
  alternate(
      state,
      [&] {
        mora::detail::parallel_pieces(c.out, rows, [&](Index first, Index count) {
          target.middleRows(first, count) += delta.middleRows(first, count);
        });
      },
      [&] { layer.merge_into(target); });
  for (int i = 0; i < 11; ++i) plain.push_back(milliseconds([&] { target += delta; }));
  std::vector<double> fresh, copy;
  for (int i = 0; i < 11; ++i) {
    fresh.push_back(milliseconds([&] { layer.merge(); }));
    layer.unmerge();
    std::shared_ptr<float> memory;
    copy.push_back(milliseconds([&] {
      memory = mora::detail::allocate_large<float>(c.out * c.in);
      mora::detail::parallel_pieces(c.out, rows, [&](Index first, Index count) {
        std::copy_n(weight.data() + first * c.in, count * c.in, memory.get() + first * c.in);
      });
    }));
  }
  state.counters["plain_ms"] = median(plain);
  state.counters["fresh_ms"] = median(fresh);
  state.counters["copy_ms"] = median(copy);
  state.counters["ratio"] = 1 + state.counters["overhead_pct"] / 100;
}

void product(benchmark::State& state, Case c) {
  const Matrix weight = random_matrix(c.out, c.in, 2);
  const mora::FrozenLinear<float> frozen(weight);
  const Matrix x = random_matrix(c.tokens, c.in, 3);
  Matrix y(c.tokens, c.out);
  alternate(
      state, [&] { y.noalias() = x * weight.transpose(); }, [&] { frozen.forward(x, y); });
}

/// The frozen layer over F beside that over float: forward, or the gradient by its input.
template <class F>
void small_weight(benchmark::State& state, Case c, bool backward) {
  const Matrix weight = random_matrix(c.out, c.in, 2);
  const auto numbers = std::make_shared<std::vector<F>>(static_cast<std::size_t>(weight.size()));
  mora::convert(std::span<const float>(weight.data(), numbers->size()), std::span<F>(*numbers));
  const mora::FrozenLinear<float> wide(weight);
  const mora::FrozenLinear<float> small(numbers->data(), c.out, c.in, numbers);
  const Matrix x = random_matrix(c.tokens, backward ? c.out : c.in, 3);
  Matrix y(c.tokens, backward ? c.in : c.out);
  const auto run = [&](const mora::FrozenLinear<float>& layer) {
    return [&] { backward ? layer.backward(x, y) : layer.forward(x, y); };
  };
  alternate(state, run(wide), run(small));
}

template <class Op>
void update(benchmark::State& state, Case c) {
  namespace detail = mora::detail;
  using Adapter = mora::MoraAdapter<float, Op>;
  using Update =
      detail::MoraUpdate<float, typename Adapter::Compressor, typename Adapter::Decompressor>;
  const mora::FrozenLinear<float> frozen(random_matrix(c.out, c.in, 2));
  Adapter adapter(frozen, {.rank = c.rank});
  adapter.matrix().value = random_matrix(adapter.side(), adapter.side(), 4);
  const Matrix x = random_matrix(c.tokens, c.in, 3);
  Matrix y = Matrix::Zero(c.tokens, c.out);
  const mora::ConstMap<float> in = detail::map_of(x);
  const mora::ConstMap<float> m = detail::map_of(std::as_const(adapter.matrix().value));
  alternate(
      state,
      [&] {
        detail::add_frozen_forward(frozen, in, detail::map_of(y));
        adapter.add_forward(in, detail::map_of(y), nullptr);
      },
      [&] {
        const Update update(adapter.compressor(), adapter.decompressor(), m, 1.0F);
        detail::FrozenAccess::add_updated_product<detail::Operand::transposed>(
            frozen, detail::map_of(y), in, update);
      });
  state.counters["work"] = Update::work(adapter.compressor(), adapter.decompressor(), c.tokens);
}

const std::vector<std::pair<Index, Index>> shapes = {
    {4096, 4096}, {4096, 11008}, {11008, 4096}, {768, 2560}};

template <class Body>
void register_case(const std::string& name, const Body& body) {
  benchmark::RegisterBenchmark(name.c_str(), body)->UseManualTime()->Unit(benchmark::kMillisecond);
}

std::string name_of(Index in, Index out) { return std::to_string(in) + "x" + std::to_string(out); }

void register_products() {
  for (const auto& [in, out] : shapes) {
    for (const Index tokens : {1, 8, 64, 512, 2048}) {
      const Case c{in, out, 0, tokens};
      register_case("product/" + name_of(in, out) + "/tokens:" + std::to_string(tokens),
                    [c](benchmark::State& state) { product(state, c); });
    }
  }
}

template <class F>
void register_small_weights(const std::string& format) {
  for (const auto& [in, out] : shapes) {
    for (const Index tokens : {1, 8, 64, 256, 512, 2048}) {
      const Case c{in, out, 0, tokens};
      const std::string rest =
          name_of(in, out) + "/tokens:" + std::to_string(tokens) + "/" + format;
      for (const bool backward : {false, true}) {
        register_case((backward ? "backward_small/" : "forward_small/") + rest,
                      [=](benchmark::State& state) { small_weight<F>(state, c, backward); });
      }
    }
  }
}

template <class Op>
void register_updates(const std::string& name) {
  for (const auto& [in, out] : std::vector<std::pair<Index, Index>>{
           {128, 128}, {128, 344}, {768, 768}, {768, 2560}, {4096, 4096}}) {
    for (const Index rank : {8, 128}) {
      if (rank >= in) continue;
      for (const Index tokens : {16, 64, 256, 2048}) {
        const Case c{in, out, rank, tokens};
        register_case("update/" + name_of(in, out) + "/r:" + std::to_string(rank) +
                          "/tokens:" + std::to_string(tokens) + "/" + name,
                      [c](benchmark::State& state) { update<Op>(state, c); });
      }
    }
  }
}

template <class Method>
void register_method(const Method& method) {
  for (const auto& [in, out] : shapes) {
    for (const Index rank : {8, 128, 256}) {
      const std::string layer = name_of(in, out) + "/r:" + std::to_string(rank);
      for (const Index tokens : {1, 64, 512, 2048}) {
        const Case c{in, out, rank, tokens};
        const std::string rest = layer + "/tokens:" + std::to_string(tokens) + "/" + method.name;
        register_case("forward/" + rest,
                      [=](benchmark::State& state) { forward(state, method, c); });
        register_case("train/" + rest, [=](benchmark::State& state) { train(state, method, c); });
      }
      const Case c{in, out, rank, 0};
      register_case("merge/" + layer + "/" + method.name,
                    [=](benchmark::State& state) { merge(state, method, c); });
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  register_products();
  register_small_weights<mora::BFloat16>("bf16");
  register_small_weights<mora::Float16>("f16");
  register_updates<mora::Sharing>("sharing");
  register_updates<mora::Rotation>("rotation");
  experiment::for_each_method([]<class Method>(const Method& method) {
    if constexpr (!experiment::is_full<Method>) register_method(method);
  });
  experiment::for_each_relative([](const auto& method) { register_method(method); });
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
