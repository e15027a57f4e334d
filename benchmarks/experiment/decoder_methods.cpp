// SPDX-License-Identifier: MIT
#include "experiment/decoder_methods.hpp"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "adapter_work.hpp"
#include "experiment/decompositions_once.hpp"
#include "experiment/methods.hpp"
#include "mora/adapters/named_adapter.hpp"
#include "mora/adapters/side.hpp"
#include "mora/analysis/pissa.hpp"
#include "mora/optim/parameter_group.hpp"

namespace experiment {

namespace {

using mora::AnyAdapter;
using mora::FrozenLinear;
using mora::MoraAdapter;

/// `f(place, tensor)` for those that adapters are put on.
template <class F>
void for_each_layer(const Decoder& model, const F& f) {
  const mora::Targets linear_layers{.all_linear = true};
  for (std::size_t place = 0; place < model.tensors().size(); ++place) {
    const mora::LlamaTensor& tensor = model.tensors()[place];
    if (linear_layers.matches(tensor.module(), tensor.linear, tensor.layer)) f(place, tensor);
  }
}

template <class Settings>
[[nodiscard]] Index work_of(const AnyAdapter<float>& adapter) {
  return adapter_work(*adapter.get_if<mora::AdapterOf<float, Settings>>());
}

/// For a layer, with LoRA's number of parameters at most where the method can.
template <class M>
[[nodiscard]] auto settings_for(const M& method, const MethodUse& use,
                                const mora::LlamaTensor& tensor) {
  if constexpr (requires { method.fit(1, 1, 1); }) {
    return method.fit(use.rank, tensor.cols, tensor.rows);
  } else {
    return method.settings(use.rank, use.seed);
  }
}

/// A method of the other experiments, as it is.
template <class M>
[[nodiscard]] DecoderMethod from(const M& method) {
  return {.name = method.name,
          .full = is_full<M>,
          .attach =
              [method](Decoder& model, const std::string& name, const MethodUse& use) {
                mora::SplitMix64 generator(use.numbers);
                for_each_layer(model, [&](std::size_t, const mora::LlamaTensor& tensor) {
                  model.attach(name, settings_for(method, use, tensor),
                               {.modules = {std::string(tensor.module())}}, generator);
                });
              },
          .work = work_of<decltype(method.settings(1, 1))>};
}

/// LoRA+ with the ratio that its paper recommends.
[[nodiscard]] DecoderMethod lora_plus() {
  DecoderMethod method = from(Lora{"lora_plus"});
  method.optimizer = [](double learning_rate) {
    const mora::AdamWSettings settings{.learning_rate = learning_rate};
    return DecoderOptimizer(settings, {mora::lora_plus(settings, 16.0)});
  };
  return method;
}

/// LoRA that starts from each weight's largest singular values, on top of what is left of it.
[[nodiscard]] DecoderMethod pissa() {
  DecoderMethod method = from(Lora{"pissa"});
  method.attach = [](Decoder& model, const std::string& name, const MethodUse& use) {
    const mora::LoraSettings settings = Lora{}.settings(use.rank, use.seed);
    mora::SplitMix64 generator(use.numbers);
    std::vector<FrozenLinear<float>> weights = model.weights();
    std::vector<mora::NamedAdapter<float>> adapters;
    for_each_layer(model, [&](std::size_t place, const mora::LlamaTensor& tensor) {
      auto start = mora::pissa<float>(weights[place], settings, generator);
      weights[place] = std::move(start.residual);
      adapters.push_back(
          {std::string(tensor.module()), AnyAdapter<float>(std::move(start.adapter))});
    });
    model.set_weights(std::move(weights));
    model.attach(name, std::move(adapters));
  };
  return method;
}

/// `make(weight)` gives the adapter that is put on a weight; the optimizer forgets the parameters
/// with these names.
template <class Make>
void restart(Decoder& model, DecoderOptimizer& optimizer,
             std::initializer_list<const char*> parameters, const Make& make) {
  model.restart([&](const std::string&, const FrozenLinear<float>& weight) {
    return AnyAdapter<float>(make(weight));
  });
  for (const char* const name : parameters) optimizer.reset_state(name);
}

/// Lialin et al. 2023, arXiv 2307.05695.
[[nodiscard]] DecoderMethod relora() {
  DecoderMethod method = from(Lora{"relora"});
  method.restart = [](Decoder& model, DecoderOptimizer& optimizer, Index number,
                      const MethodUse& use) {
    mora::SplitMix64 generator(use.seed + 1000 * static_cast<std::uint64_t>(number));
    restart(model, optimizer, {"A", "B"}, [&](const FrozenLinear<float>& weight) {
      return mora::LoraAdapter<float>(weight, Lora{}.settings(use.rank, use.seed), generator);
    });
  };
  return method;
}

template <class Op>
[[nodiscard]] MoraAdapter<float, Op> fresh_mora(const FrozenLinear<float>& weight, Index rank,
                                                std::uint64_t seed) {
  return MoraAdapter<float, Op>(weight, Mora<Op>{}.settings(rank, seed));
}

/// ReMoRA as published: strided and adjacent groups (types 1 and 2) by turns.
[[nodiscard]] DecoderMethod remora() {
  DecoderMethod method = from(Mora<mora::Sharing>{"remora"});
  method.restart = [](Decoder& model, DecoderOptimizer& optimizer, Index number,
                      const MethodUse& use) {
    if (number % 2 == 1) {
      restart(model, optimizer, {"M"}, [&](const FrozenLinear<float>& weight) {
        return fresh_mora<mora::AdjacentSharing>(weight, use.rank, use.seed);
      });
    } else {
      restart(model, optimizer, {"M"}, [&](const FrozenLinear<float>& weight) {
        return fresh_mora<mora::Sharing>(weight, use.rank, use.seed);
      });
    }
  };
  return method;
}

/// ReMoRA with new random groups every time, whose ranks add up.
[[nodiscard]] DecoderMethod remora_fresh() {
  DecoderMethod method = from(Mora<mora::RandomSharing>{"remora_fresh"});
  method.restart = [](Decoder& model, DecoderOptimizer& optimizer, Index number,
                      const MethodUse& use) {
    const std::uint64_t seed = use.seed + 1000 * static_cast<std::uint64_t>(number);
    restart(model, optimizer, {"M"}, [&](const FrozenLinear<float>& weight) {
      return fresh_mora<mora::RandomSharing>(weight, use.rank, seed);
    });
  };
  return method;
}

[[nodiscard]] std::vector<DecoderMethod> make_methods() {
  std::vector<DecoderMethod> methods;
  const auto add = [&](const auto& method) { methods.push_back(from(method)); };
  for_each_method(add);
  for_each_relative(add);
  methods.push_back(lora_plus());
  methods.push_back(pissa());
  methods.push_back(relora());
  methods.push_back(remora());
  methods.push_back(remora_fresh());
  return methods;
}

}  // namespace

Index decoder_work(const Decoder& model, const DecoderMethod& method, const std::string& name) {
  Index work = 0;
  for_each_layer(model, [&](std::size_t, const mora::LlamaTensor& tensor) {
    work += method.work(*model.adapter(name, tensor.module()));
  });
  return work;
}

Index decoder_budget(const Decoder& model, Index rank) {
  Index budget = 0;
  for_each_layer(model, [&](std::size_t, const mora::LlamaTensor& tensor) {
    budget += mora::lora_budget(tensor.cols, tensor.rows, rank);
  });
  return budget;
}

const std::vector<DecoderMethod>& decoder_methods() {
  static const std::vector<DecoderMethod> methods = make_methods();
  return methods;
}

const DecoderMethod& decoder_method(const std::string& name) {
  const auto& all = decoder_methods();
  const auto found = std::ranges::find(all, name, &DecoderMethod::name);
  if (found != all.end()) return *found;
  std::string names;
  for (const DecoderMethod& method : all) names += (names.empty() ? "" : ", ") + method.name;
  throw mora::ArgumentError("no method is called '" + name + "'; there are " + names);
}

}  // namespace experiment
