// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "mora/adapters/named_adapter.hpp"
#include "mora/models/llama/parts.hpp"
#include "mora/models/targets.hpp"

namespace mora::inline MORA_ABI::detail {

inline void require_shape(const LlamaTensor& tensor, Index rows, Index cols) {
  if (rows != tensor.rows || cols != tensor.cols) {
    throw ShapeError(concat(tensor.name, ": expected ", tensor.rows, " x ", tensor.cols, ", found ",
                            rows, " x ", cols));
  }
}

/// Parameters may be changed freely, so they may have been given another shape.
template <Real T>
void require_shapes(const LlamaTensors& tensors, const LlamaAdapterSet<T>& set) {
  for (std::size_t place = 0; place < tensors.size(); ++place) {
    const LlamaTensor& tensor = tensors[place];
    if (const auto& module = set.linear[place]) {
      try {
        module->adapter.require_shapes();
      } catch (const ShapeError& error) {
        throw ShapeError(concat(tensor.module(), ": ", error.what()));
      }
      require_shape(tensor, module->adapter.out_features(), module->adapter.in_features());
    } else if (const auto& trained = set.trained[place]) {
      require_shape(tensor, trained->parameter.value.rows(), trained->parameter.value.cols());
    }
  }
}

/// What takes the place of an adapter that was folded into its weight.
template <Real T>
void require_restartable(const LlamaTensor& tensor, const AnyAdapter<T>& adapter) {
  require_shape(tensor, adapter.out_features(), adapter.in_features());
  if (!adapter.additive()) {
    throw ArgumentError(concat(tensor.module(), ": expected an additive adapter"));
  }
}

template <Real T>
[[nodiscard]] AdaptedModule<T> adapted_module(const LlamaTensor& tensor, AnyAdapter<T> adapter,
                                              double dropout) {
  AdaptedModule<T> module{std::move(adapter), dropout, {}};
  for (const auto& parameter : module.adapter.parameters()) {
    module.names.push_back(concat(tensor.module(), ".", parameter.name));
  }
  return module;
}

/// The adapters of a model, in sets by name, one of which may be switched on. What throws has
/// changed nothing.
template <Real T>
class LlamaAdapterSets {
 public:
  using Set = LlamaAdapterSet<T>;

  /// See Llama::attach.
  template <class Settings, class G>
  void attach(const LlamaParts<T>& model, const std::string& name, const Settings& settings,
              const Targets& targets, G& generator, double dropout) {
    if (targets.matches("lm_head", false, -1)) require_untied(model.config);
    require_dropout(dropout);
    Set set = copy_or_new(name, model.tensors.size());
    bool any = false;
    for (std::size_t place = 0; place < model.tensors.size(); ++place) {
      const LlamaTensor& tensor = model.tensors[place];
      if (!targets.matches(tensor.module(), tensor.linear, tensor.layer)) continue;
      require_free(set, place, tensor);
      add_adapter(set, place, tensor, model.weights[place], settings, generator, dropout);
      any = true;
    }
    if (!any) throw ArgumentError(nothing_matches(model.tensors));
    switch_on(std::move(set));
  }
  /// The same with adapters that exist already.
  void attach(const LlamaParts<T>& model, const std::string& name,
              std::vector<NamedAdapter<T>> adapters) {
    if (adapters.empty()) throw ArgumentError("attach: expected adapters, found none");
    Set set = copy_or_new(name, model.tensors.size());
    for (NamedAdapter<T>& each : adapters) {
      if (each.module == "lm_head") require_untied(model.config);
      const std::size_t place = model.tensors.place_of(each.module);
      const LlamaTensor& tensor = model.tensors[place];
      require_free(set, place, tensor);
      require_dropout(each.dropout);
      require_no_bias(tensor, each.adapter);
      if (tensor.linear) {
        put_adapter(set, place, tensor, std::move(each.adapter), each.dropout);
      } else {
        put_trained(set, place, tensor, each);
      }
    }
    require_shapes(model.tensors, set);
    switch_on(std::move(set));
  }
  void detach(const std::string& name) {
    (void)at(name);
    sets_.erase(name);
    if (active_ == name) active_.clear();  // last: `name` may be it
  }
  void activate(const std::string& name) {
    (void)at(name);
    active_ = name;
  }
  void deactivate() { active_.clear(); }

  /// Empty when all are off.
  [[nodiscard]] const std::string& active() const { return active_; }
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& [name, set] : sets_) all.push_back(name);
    return all;
  }
  [[nodiscard]] const Set& at(const std::string& name) const {
    const auto set = sets_.find(name);
    if (set == sets_.end()) throw ArgumentError(concat("no adapter has the name '", name, "'"));
    return set->second;
  }
  /// Null when all are off.
  [[nodiscard]] Set* switched_on() {
    return active_.empty() ? nullptr : &sets_.find(active_)->second;
  }
  [[nodiscard]] const Set* switched_on() const {
    return active_.empty() ? nullptr : &sets_.find(active_)->second;
  }

 private:
  static void require_untied(const LlamaConfig& config) {
    if (!config.tie_word_embeddings) return;
    throw ArgumentError(
        "attach: lm_head is the embedding (tie_word_embeddings) and has no adapter of its own; "
        "FullSettings on model.embed_tokens train both");
  }
  static void require_dropout(double dropout) {
    if (!(dropout >= 0.0 && dropout < 1.0)) {
      throw ArgumentError(concat("dropout: expected 0 <= dropout < 1, found ", dropout));
    }
  }
  /// No layer of a LLaMA has one, so that it would have no place when the adapter is merged.
  static void require_no_bias(const LlamaTensor& tensor, const AnyAdapter<T>& adapter) {
    const auto* const full = adapter.template get_if<FullAdapter<T>>();
    if (!full || full->bias().value.size() == 0) return;
    throw ShapeError(
        concat(tensor.module(), ": bias, length: expected 0, found ", full->bias().value.size()));
  }
  static void require_free(const Set& set, std::size_t place, const LlamaTensor& tensor) {
    if (!set.trains(place)) return;
    throw ArgumentError(
        concat("attach: '", set.name, "' has an adapter on ", tensor.module(), " already"));
  }

  [[nodiscard]] Set copy_or_new(const std::string& name, std::size_t tensors) const {
    if (name.empty()) throw ArgumentError("attach: the name is empty");
    if (const auto old = sets_.find(name); old != sets_.end()) return old->second;
    Set set;
    set.name = name;
    set.linear.resize(tensors);
    set.trained.resize(tensors);
    return set;
  }
  void switch_on(Set set) {
    std::string active = set.name;  // after these nothing can fail half-way
    std::string name = set.name;
    sets_.insert_or_assign(std::move(name), std::move(set));
    active_ = std::move(active);
  }

  template <class Settings, class G>
  static void add_adapter(Set& set, std::size_t place, const LlamaTensor& tensor,
                          const FrozenLinear<T>& weight, const Settings& settings, G& generator,
                          double dropout) {
    using Adapter = AdapterOf<T, Settings>;
    if (!tensor.linear) {
      if constexpr (std::same_as<Settings, FullSettings>) {
        if (dropout > 0.0) throw no_dropout(tensor);
        TrainedTensor<T>& trained = set.trained[place].emplace();
        trained.name = tensor.name;
        trained.parameter.value = weight.read_weight();
        return;
      }
      throw only_full(tensor);
    }
    put_adapter(set, place, tensor,
                AnyAdapter<T>(fresh_adapter<Adapter>(weight, settings, generator)), dropout);
  }
  static void put_adapter(Set& set, std::size_t place, const LlamaTensor& tensor,
                          AnyAdapter<T> adapter, double dropout) {
    if (dropout > 0.0 && !adapter.additive()) throw no_dropout(tensor);
    set.linear[place] = adapted_module(tensor, std::move(adapter), dropout);
  }
  static void put_trained(Set& set, std::size_t place, const LlamaTensor& tensor,
                          const NamedAdapter<T>& each) {
    const auto* const full = each.adapter.template get_if<FullAdapter<T>>();
    if (!full) throw only_full(tensor);
    if (each.dropout > 0.0) throw no_dropout(tensor);
    TrainedTensor<T>& trained = set.trained[place].emplace();
    trained.name = tensor.name;
    trained.parameter.value = full->weight().value;
  }

  [[nodiscard]] static ArgumentError only_full(const LlamaTensor& tensor) {
    return ArgumentError(
        concat("attach: ", tensor.module(), " is no linear layer; only FullSettings fit"));
  }

  [[nodiscard]] static ArgumentError no_dropout(const LlamaTensor& tensor) {
    return ArgumentError(concat("dropout: expected 0 on ", tensor.module(),
                                ", as its adapter is no addition to what is frozen"));
  }
  [[nodiscard]] static std::string nothing_matches(const LlamaTensors& tensors) {
    std::string text = "attach: no module matches; there are";
    for (std::size_t place = 0; place < std::min<std::size_t>(tensors.size(), 10); ++place) {
      text += concat(place == 0 ? " " : ", ", tensors[place].module());
    }
    return text + ", ...";
  }

  std::map<std::string, Set> sets_;
  std::string active_;
};

}  // namespace mora::inline MORA_ABI::detail
