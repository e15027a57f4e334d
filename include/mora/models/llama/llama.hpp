// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "mora/adapters/full.hpp"
#include "mora/core/concurrent_use.hpp"
#include "mora/core/random.hpp"
#include "mora/models/llama/adapter_sets.hpp"
#include "mora/models/llama/groups.hpp"
#include "mora/models/llama/random_weights.hpp"

namespace mora::inline MORA_ABI {

/// A LLaMA-style decoder (Touvron et al. 2023, arXiv 2302.13971; grouped key/value heads as in
/// Llama 2 and 3), as Hugging Face's LlamaForCausalLM computes it, with adapters on any of its
/// linear layers.
///
///   mora::Llama<float> model(config, generator);
///   model.attach("mine", mora::MoraSettings<>{.rank = 8}, {.all_linear = true}, generator);
///   model.accumulate_gradients(batch, 1.0 / batch.target_count());
///   optimizer.step(model);
///
/// The weights are frozen handles that many models may share; what trains are adapters, and copies
/// of tensors where an adapter is FullSettings. Adapters are attached under a name; several names
/// may be attached, one of which is switched on. Copies share the weights and have adapters of
/// their own. Const functions are safe from any number of threads; none of the others is safe
/// beside any other call on the same model, and builds with asserts throw StateError where they
/// notice such a call. What throws has changed nothing, unless it says so.
template <Real T>
class Llama {
 public:
  using Scalar = T;
  using Batch = mora::Batch;

  /// Over given weights, in the order of LlamaTensors. Weights of 16 bits stay as they are, but for
  /// norms, which become T. Throws ShapeError naming the tensor whose shape is another,
  /// ArgumentError for one with a bias.
  Llama(const LlamaConfig& config, std::vector<FrozenLinear<T>> weights)
      : config_(config), tensors_(config), weights_(usable(std::move(weights))) {}

  /// Random weights: normal with the given deviation (Hugging Face's initializer_range), norms one.
  /// Throws ArgumentError for a deviation that is not finite.
  template <Generator64 G>
  Llama(const LlamaConfig& config, G& generator, double deviation = 0.02)
      : Llama(config, detail::random_weights<T>(config, generator, deviation)) {}

  Llama(const Llama&) = default;
  Llama(Llama&&) = default;
  Llama& operator=(const Llama& other) { return *this = Llama(other); }  // all or nothing
  Llama& operator=(Llama&&) = default;
  ~Llama() = default;

  [[nodiscard]] const LlamaConfig& config() const { return config_; }
  [[nodiscard]] const LlamaTensors& tensors() const { return tensors_; }
  /// The frozen weights, by place in tensors().
  [[nodiscard]] const std::vector<FrozenLinear<T>>& weights() const { return weights_; }
  /// Others in their place, which adapters are on top of from then on. Throws as the constructor
  /// does, and StateError while merged.
  void set_weights(std::vector<FrozenLinear<T>> weights) {
    const Use change = changing("set_weights");
    require_unmerged("set_weights");
    weights_ = usable(std::move(weights));
  }

  /// \name Adapters.
  /// @{

  /// Puts adapters with these settings (MoraSettings, LoraSettings, FullSettings, ...) on the
  /// modules that `targets` names, under `name`, and switches that on. To a name that exists they
  /// are added: so modules may have adapters of different kinds. FullSettings may also name norms
  /// and the embedding, which then train as copies. `dropout` in [0, 1): on the adapters' inputs,
  /// in training. Throws ArgumentError where nothing matches, a module has an adapter of that name
  /// already, or lm_head is named and is the embedding.
  template <class Settings, Generator64 G>
  void attach(const std::string& name, const Settings& settings, const Targets& targets,
              G& generator, double dropout = 0.0) {
    const Use change = changing("attach");
    require_unmerged("attach");
    sets_.attach(bare_parts(), name, settings, targets, generator, dropout);
    training_.forget_adapters();
  }
  template <class Settings>
  void attach(const std::string& name, const Settings& settings, const Targets& targets) {
    SplitMix64 unused(0);
    static_assert(detail::StartsWithoutNumbers<AdapterOf<T, Settings>>,
                  "mora: this adapter starts with random numbers; pass a generator");
    attach(name, settings, targets, unused);
  }

  /// The same with adapters that exist already, from a file say; all of them or none. Throws
  /// ArgumentError and ShapeError naming the module for what does not fit.
  void attach(const std::string& name, std::vector<NamedAdapter<T>> adapters) {
    const Use change = changing("attach");
    require_unmerged("attach");
    sets_.attach(bare_parts(), name, std::move(adapters));
    training_.forget_adapters();
  }

  /// Removes the adapters of that name, and gives the working memory of training passes back.
  /// Throws ArgumentError when there are none, StateError while merged.
  void detach(const std::string& name) {
    const Use change = changing("detach");
    require_unmerged("detach");
    sets_.detach(name);
    training_.forget_memory();
  }
  /// Switches the adapters of that name on, and all others off.
  void activate(const std::string& name) {
    const Use change = changing("activate");
    require_unmerged("activate");
    sets_.activate(name);
    training_.forget_adapters();
  }
  /// Switches all adapters off: the frozen model is left.
  void deactivate() {
    const Use change = changing("deactivate");
    require_unmerged("deactivate");
    sets_.deactivate();
    training_.forget_adapters();
  }
  /// Empty when all are off.
  [[nodiscard]] const std::string& active() const { return sets_.active(); }
  [[nodiscard]] std::vector<std::string> names() const { return sets_.names(); }

  /// The adapter on a module ("model.layers.0.self_attn.q_proj") under a name, or null.
  [[nodiscard]] const AnyAdapter<T>* adapter(const std::string& name,
                                             std::string_view module) const {
    const Set& set = sets_.at(name);
    const std::size_t place = tensors_.place_of(module);
    return set.linear[place] ? &set.linear[place]->adapter : nullptr;
  }

  /// All that is attached under a name, in the order of tensors().
  [[nodiscard]] std::vector<AttachedModule<T>> attached(const std::string& name) const {
    const Use read = reading("attached");
    const Set& set = sets_.at(name);
    std::vector<AttachedModule<T>> all;
    for (std::size_t place = 0; place < tensors_.size(); ++place) {
      AttachedModule<T> each{.module = tensors_[place].module(), .vector = tensors_[place].vector};
      if (const auto& module = set.linear[place]) {
        each.adapter = &module->adapter;
        each.dropout = module->dropout;
      } else if (const auto& trained = set.trained[place]) {
        each.trained = &trained->parameter.value;
      } else {
        continue;
      }
      all.push_back(each);
    }
    return all;
  }

  /// The parameters of what is switched on, by names such as "model.layers.0.mlp.up_proj.M" or
  /// "model.norm.weight". The one that may change them throws StateError while merged.
  template <class F>
  void visit_parameters(F&& f) {
    const Use change = changing("visit_parameters");
    require_unmerged("visit_parameters");
    if (Set* const set = sets_.switched_on()) set->visit(f);
  }
  template <class F>
  void visit_parameters(F&& f) const {
    const Use read = reading("visit_parameters");
    if (const Set* const set = sets_.switched_on()) set->visit(f);
  }

  /// @}
  /// \name Inference.
  /// @{

  /// [positions, vocabulary]: what the model expects after each token.
  [[nodiscard]] Matrix<T> logits(const Batch& batch) const {
    const Use read = reading("logits");
    const detail::LlamaParts<T> parts = this->parts();
    detail::require_batch(config_, batch, 0);
    Matrix<T> logits(batch.positions(), config_.vocab_size);
    detail::infer_groups(parts, batch, [&](auto& forward, auto& item, Index, Index first) {
      const ConstMap<T> hidden = detail::as_const(item.work.hidden.map());
      detail::head_logits(parts, forward, hidden,
                          detail::rows_of(detail::map_of(logits), first, hidden.rows()), nullptr);
    });
    return logits;
  }
  /// The losses of all positions that have a target.
  [[nodiscard]] LossSum loss(const Batch& batch) const {
    const Use read = reading("loss");
    const detail::LlamaParts<T> parts = this->parts();
    detail::require_batch(config_, batch, 0);
    std::vector<LossSum> losses(static_cast<std::size_t>(batch.sequences()) + 1);  // by group
    detail::infer_groups(parts, batch, [&](auto&, auto& item, Index group, Index) {
      losses[static_cast<std::size_t>(group)] =
          detail::head_loss<T>(parts, item.work, item.batch, nullptr, nullptr, nullptr, 0.0, false);
    });
    LossSum sum;
    for (const LossSum& loss : losses) sum += loss;
    return sum;
  }

  /// An empty cache for one sequence.
  [[nodiscard]] LlamaCache<T> cache() const {
    return {config_.num_hidden_layers, config_.key_value_size()};
  }
  /// Logits after the last of `tokens`, which continue the sequence in the cache. Once warmed up it
  /// allocates nothing. Throws ArgumentError for a sequence longer than max_position_embeddings,
  /// ShapeError for the cache of another model; the cache is then as it was.
  void next_logits(std::span<const Token> tokens, LlamaCache<T>& cache,
                   RowVector<T>& logits) const {
    const Use read = reading("next_logits");
    detail::LlamaWorkspace<T>& work = cache.workspace();
    Batch& batch = cache.batch();
    batch.clear();
    batch.tokens.assign(tokens.begin(), tokens.end());
    batch.targets.assign(tokens.size(), ignored);
    batch.starts.push_back(batch.positions());
    const detail::LlamaParts<T> parts = this->parts();
    cache.require_layers(config_.num_hidden_layers, config_.key_value_size());
    detail::require_batch(config_, batch, cache.length());
    detail::LlamaForward<T> forward(parts, work, nullptr);
    cache.reserve(cache.length() + batch.positions());
    forward.run(batch, {}, detail::Keep::nothing, &cache);
    detail::resize(logits, 1, config_.vocab_size);
    const ConstMap<T> hidden = detail::as_const(work.hidden.map());
    detail::head_logits(
        parts, forward, detail::rows_of(hidden, hidden.rows() - 1, 1),
        MutableMap<T>(logits.data(), 1, logits.size(), Eigen::OuterStride<>(logits.size())),
        nullptr);
    cache.advance(batch.positions());
  }

  /// @}
  /// \name Training.
  /// @{

  /// Adds weight times the gradient of the sum of the losses to the gradients of the parameters
  /// that are switched on, and returns that sum. For the mean's gradient the weight is 1 over the
  /// number of targets. Throws StateError when nothing is switched on, or while merged,
  /// ArgumentError for a weight that is not finite in T.
  LossSum accumulate_gradients(const Batch& batch, double weight) {
    const Use change = changing("accumulate_gradients");
    require_unmerged("accumulate_gradients");
    Set* const set = sets_.switched_on();
    if (!set) throw StateError("accumulate_gradients: no adapter is switched on");
    detail::require_factor<T>("weight", weight);
    const detail::LlamaParts<T> parts = this->parts();
    detail::require_batch(config_, batch, 0);
    set->visit(
        [](std::string_view name, const Parameter<T>& p) { detail::require_gradient(name, p); });
    const LossSum loss =
        training_.run(parts, *set, batch, weight,
                      recompute_ ? detail::Keep::streams : detail::Keep::blocks, dropout_);
    ++dropout_.passes;
    return loss;
  }

  /// Whether the backward pass computes each layer's activations again from its input, instead of
  /// keeping them: nearly a third more arithmetic for a fraction of the memory. The working memory
  /// of former passes is given back.
  void set_recompute(bool recompute) {
    const Use change = changing("set_recompute");
    recompute_ = recompute;
    training_.forget_memory();
  }
  /// Where dropout gets its random numbers from; to be saved with a run, and restored.
  [[nodiscard]] const DropoutStream& dropout() const { return dropout_; }
  void set_dropout(const DropoutStream& stream) {
    const Use change = changing("set_dropout");
    dropout_ = stream;
  }

  /// @}
  /// \name Merging.
  /// @{

  [[nodiscard]] bool merged() const { return !frozen_.empty(); }
  /// Folds what is switched on into weights of the model's own; the shared ones stay untouched.
  /// Returns false when merged already, or when nothing is switched on. All or nothing: throws
  /// NumericError naming the module when a number is not finite.
  bool merge() {
    const Use change = changing("merge");
    const Set* const set = sets_.switched_on();
    if (merged() || !set) return false;
    detail::require_shapes(tensors_, *set);
    std::vector<FrozenLinear<T>> result = weights_;
    for (std::size_t place = 0; place < tensors_.size(); ++place) {
      if (const auto& module = set->linear[place]) {
        result[place] = merged_module(place, module->adapter);
      } else if (const auto& trained = set->trained[place]) {
        result[place] = merged_tensor(place, trained->parameter.value);
      }
    }
    frozen_ = std::exchange(weights_, std::move(result));
    return true;
  }
  /// Back to the frozen weights, bit for bit. Returns false when not merged.
  bool unmerge() {
    const Use change = changing("unmerge");
    if (!merged()) return false;
    weights_ = std::exchange(frozen_, {});
    return true;
  }

  /// Folds what the adapters that are switched on have learnt into frozen weights of the model's
  /// own, for good, and puts `make(module, weight)` in the place of each of them, module by module:
  /// a fresh additive AnyAdapter<T> for a module's name and its new frozen layer. See
  /// AdaptedLinear::restart. What trains as a copy (norms, embeddings, FullSettings) trains on;
  /// adapters that are switched off stay, on top of the new weights. The caller resets what an
  /// optimizer remembers of the replaced parameters. Pointers to adapters end. Throws StateError
  /// when nothing is switched on, or while merged; NumericError naming the module for a number that
  /// is not finite; ShapeError and ArgumentError naming it for an adapter that does not fit or is
  /// not additive. All or nothing, so that old and new weights of the adapted modules are in memory
  /// together.
  template <class Make>
  requires std::is_invocable_r_v < AnyAdapter<T>,
  const Make&, const std::string&, const FrozenLinear<T>& > void restart(const Make& make) {
    const Use change = changing("restart");
    require_unmerged("restart");
    Set* const set = sets_.switched_on();
    if (!set) throw StateError("restart: no adapter is switched on");
    detail::require_shapes(tensors_, *set);
    std::vector<FrozenLinear<T>> weights = weights_;
    std::vector<std::pair<std::size_t, detail::AdaptedModule<T>>> fresh;
    for (std::size_t place = 0; place < tensors_.size(); ++place) {
      const auto& module = set->linear[place];
      if (!module || module->adapter.template get_if<FullAdapter<T>>()) continue;
      weights[place] = merged_module(place, module->adapter);
      const LlamaTensor& tensor = tensors_[place];
      AnyAdapter<T> adapter = make(std::string(tensor.module()), weights[place]);
      detail::require_restartable(tensor, adapter);
      fresh.emplace_back(place,
                         detail::adapted_module(tensor, std::move(adapter), module->dropout));
    }
    for (auto& [place, module] : fresh) set->linear[place] = std::move(module);
    weights_ = std::move(weights);
    training_.forget_adapters();
  }

  /// @}

 private:
  using Set = detail::LlamaAdapterSet<T>;
  using Use = detail::InUse<detail::notices_concurrent_use>;
  [[nodiscard]] Use reading(const char* call) const {
    return {use_, detail::Access::reading, call};
  }
  [[nodiscard]] Use changing(const char* call) { return {use_, detail::Access::changing, call}; }

  [[nodiscard]] std::vector<FrozenLinear<T>> usable(std::vector<FrozenLinear<T>> weights) const {
    detail::require_size("weights, number of tensors", tensors_.size(), weights.size());
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const LlamaTensor& tensor = tensors_[i];
      weights[i].require_usable();
      detail::require_shape(tensor, weights[i].out_features(), weights[i].in_features());
      if (weights[i].bias().size() != 0) {
        throw ArgumentError(detail::concat(tensor.name, ": the decoder has no biases"));
      }
      if (tensor.vector && !weights[i].has_weight_in_place()) {
        weights[i] = FrozenLinear<T>(weights[i].read_weight());
      }
    }
    return weights;
  }

  [[nodiscard]] FrozenLinear<T> merged_module(std::size_t place,
                                              const AnyAdapter<T>& adapter) const {
    try {
      return adapter.merged(weights_[place]);
    } catch (const NumericError& error) {
      throw NumericError(detail::concat(tensors_[place].module(), ": ", error.what()));
    }
  }

  [[nodiscard]] FrozenLinear<T> merged_tensor(std::size_t place, const Matrix<T>& value) const {
    if (!detail::all_finite(value)) {
      throw NumericError(detail::concat(tensors_[place].module(),
                                        ": merge: a number of the trained tensor is not finite"));
    }
    return Matrix<T>(value);
  }

  void require_unmerged(const char* call) const {
    if (merged()) throw StateError(detail::concat(call, ": the model is merged; unmerge it first"));
  }

  [[nodiscard]] detail::LlamaParts<T> parts() const {
    if (weights_.empty()) throw StateError("model: used after it was moved from");
    const Set* const set = merged() ? nullptr : sets_.switched_on();
    if (set) detail::require_shapes(tensors_, *set);
    return {config_, tensors_, weights_, set};
  }
  [[nodiscard]] detail::LlamaParts<T> bare_parts() const { return {config_, tensors_, weights_}; }

  LlamaConfig config_;
  LlamaTensors tensors_;
  std::vector<FrozenLinear<T>> weights_;  // merged ones while merged
  std::vector<FrozenLinear<T>> frozen_;   // what they were before
  detail::LlamaAdapterSets<T> sets_;
  DropoutStream dropout_;
  bool recompute_ = false;
  detail::LlamaTraining<T> training_;
  [[no_unique_address]] mutable detail::ConcurrentUse<> use_;
};

}  // namespace mora::inline MORA_ABI
