// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mora/adapters/any_adapter.hpp"
#include "mora/adapters/full.hpp"
#include "mora/models/batch.hpp"
#include "mora/models/layers/dropout.hpp"
#include "mora/models/llama/tensors.hpp"

namespace mora::inline MORA_ABI::detail {

/// An adapter on one linear layer.
template <Real T>
struct AdaptedModule {
  AnyAdapter<T> adapter;
  double dropout = 0.0;            ///< On the adapter's input, while it trains.
  std::vector<std::string> names;  ///< Of its parameters, within the model.
};

/// A norm or an embedding that trains: a copy of the frozen one.
template <Real T>
struct TrainedTensor {
  Parameter<T> parameter;
  std::string name;
};

/// What is switched on together under one name; by place in LlamaTensors.
template <Real T>
struct LlamaAdapterSet {
  std::string name;
  std::vector<std::optional<AdaptedModule<T>>> linear;
  std::vector<std::optional<TrainedTensor<T>>> trained;

  [[nodiscard]] bool trains(std::size_t place) const {
    return linear[place].has_value() || trained[place].has_value();
  }

  /// Calls `f(name, parameter)` for all parameters, by place.
  template <class F>
  void visit(F&& f) {
    visit_all(*this, f);
  }
  template <class F>
  void visit(F&& f) const {
    visit_all(*this, [&](std::string_view each, const Parameter<T>& p) { f(each, p); });
  }

 private:
  template <class Self, class F>
  static void visit_all(Self& self, F&& f) {
    for (std::size_t place = 0; place < self.linear.size(); ++place) {
      if (auto& module = self.linear[place]) {
        const auto& parameters = module->adapter.parameters();
        for (std::size_t i = 0; i < parameters.size(); ++i) {
          f(std::string_view(module->names[i]), *parameters[i].parameter);
        }
      } else if (auto& trained = self.trained[place]) {
        f(std::string_view(trained->name), trained->parameter);
      }
    }
  }
};

template <Real T>
class StepWeights;

/// What a pass reads: frozen (or merged) weights, and the adapters on top of them.
template <Real T>
struct LlamaParts {
  const LlamaConfig& config;
  const LlamaTensors& tensors;
  const std::vector<FrozenLinear<T>>& weights;
  const LlamaAdapterSet<T>* set = nullptr;  ///< Null: none.
  const StepWeights<T>* step = nullptr;     ///< Instead of the layers' weights, unless null.

  [[nodiscard]] const AdaptedModule<T>* adapter(std::size_t place) const {
    return set && set->linear[place] ? &*set->linear[place] : nullptr;
  }
  [[nodiscard]] bool trains(std::size_t place) const { return set && set->trains(place); }
  /// The copy of a norm's weight or of the embedding that trains, or null.
  [[nodiscard]] const Matrix<T>* trained(std::size_t place) const {
    return set && set->trained[place] ? &set->trained[place]->parameter.value : nullptr;
  }
  /// A norm's weight.
  [[nodiscard]] const T* vector(std::size_t place) const {
    const Matrix<T>* const own = trained(place);
    return own ? own->data() : weights[place].weight().data();
  }
  /// x = row `token` of the embedding.
  void embed(Token token, MutableMap<T> x) const {
    constexpr std::size_t place = LlamaTensors::embedding();
    if (const Matrix<T>* const own = trained(place)) {
      x = own->row(token);
    } else {
      FrozenAccess::read_rows(weights[place], token, x);
    }
  }
  /// c += a op(E), E the embedding.
  template <Operand Op>
  void add_embedding_product(MutableMap<T> c, const ConstMap<T>& a) const {
    constexpr std::size_t place = LlamaTensors::embedding();
    if (const Matrix<T>* const own = trained(place)) {
      add_product<Operand::plain, Op, T>(c, T(1), a, map_of(*own));
    } else {
      FrozenAccess::add_product<Op>(weights[place], c, a);
    }
  }
};

/// Which gradients a backward pass has to compute: no others are.
struct LlamaNeeds {
  /// In memory that is kept from one pass to the next.
  template <Real T>
  void find(const LlamaParts<T>& parts) {
    stream.clear();
    block.clear();
    bool below = parts.trains(LlamaTensors::embedding());
    for (Index layer = 0; layer < parts.config.num_hidden_layers; ++layer) {
      stream.push_back(below);
      bool here = false;
      for (std::size_t slot = 0; slot < llama_slots; ++slot) {
        here = here || parts.trains(LlamaTensors::at(layer, static_cast<LlamaSlot>(slot)));
      }
      below = below || here;
      block.push_back(below);
    }
    stream.push_back(below);
    hidden = below || parts.trains(parts.tensors.norm());
    anything = hidden || parts.trains(parts.tensors.head());
  }
  std::vector<bool> stream;  ///< [layers + 1]: the gradient by the input of the layer.
  std::vector<bool> block;   ///< [layers]: anything at all in the layer or below it.
  bool hidden = false;       ///< By the final norm's output.
  bool anything = false;
};

}  // namespace mora::inline MORA_ABI::detail
