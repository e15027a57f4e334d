// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "mora/adapters/concepts.hpp"
#include "mora/adapters/dora.hpp"
#include "mora/adapters/full.hpp"
#include "mora/adapters/hira.hpp"
#include "mora/adapters/lokr.hpp"
#include "mora/adapters/lora.hpp"
#include "mora/adapters/merging.hpp"
#include "mora/adapters/miss.hpp"
#include "mora/adapters/mora.hpp"
#include "mora/core/concurrent_use.hpp"

namespace mora::inline MORA_ABI {

/// What merge_into the frozen weight itself does where other handles share that.
enum class SharedWeight {
  refuse,     ///< Throws StateError.
  overwrite,  ///< Merges: they see the merged weight as theirs from then on.
};

/// A frozen linear layer with an adapter around it; MoraLinear, LoraLinear, DoraLinear, HiraLinear,
/// MissLinear, LokrLinear and FullLinear are it.
///
/// Shapes: X [tokens, in], Y [tokens, out], dY and dX like them; any number of tokens, zero too.
/// Every function throws ShapeError for other shapes (with both numbers), ArgumentError for results
/// that overlap memory which is still read, and StateError where its state forbids the call; what
/// throws has changed nothing. A layer that was moved from throws StateError.
///
/// Copies share the frozen weight and have parameters of their own. Const functions are safe from
/// any number of threads; none of the others is safe beside any other call on the same layer, and
/// builds with asserts throw StateError where they notice such a call.
template <Adapter A>
class AdaptedLinear {
 public:
  using Scalar = typename A::Scalar;
  using AdapterType = A;
  using Settings = typename A::Settings;
  using Output = MutableView<Scalar>;

  /// What a training forward pass keeps for the backward pass: x, but the compressed x alone for
  /// MiSS and for MoRA by sharing or truncation. Make one for each layer and keep it:
  /// its memory is reused. A backward pass uses it up, so that no gradient is counted twice.
  class Saved {
   public:
    Saved() = default;
    Saved(const Saved&) = default;
    Saved(Saved&&) = default;
    Saved& operator=(const Saved& other) { return *this = Saved(other); }
    Saved& operator=(Saved&&) = default;
    ~Saved() = default;

   private:
    friend class AdaptedLinear;
    Index tokens_ = -1;   // -1: no forward pass to go back through
    Index restarts_ = 0;  // the layer's, then
    Matrix<Scalar> input_;
    typename A::Saved adapter_;
  };

  /// A fresh adapter that changes nothing yet: the layer computes what the frozen one does, bit for
  /// bit, infinite numbers too (with LoKr: where all that it sums on the way is finite).
  /// Throws ArgumentError or ShapeError for settings that cannot be. A matrix that is moved in
  /// belongs to the frozen layer by then, and is gone when that is a temporary: who wants to try
  /// settings over the only copy of a weight makes the FrozenLinear first and hands a copy of it
  /// in.
  // A template: older Clangs instantiate what `requires` rules out with the whole class.
  template <detail::StartsWithoutNumbers Same = A>
  explicit AdaptedLinear(FrozenLinear<Scalar> base, const Settings& settings = {})
      : base_(std::move(base)), adapter_(base_, settings) {}

  /// The same for adapters that start with random numbers (LoRA's A).
  template <Generator64 G>
  AdaptedLinear(FrozenLinear<Scalar> base, const Settings& settings, G& generator)
      : base_(std::move(base)), adapter_(detail::fresh_adapter<A>(base_, settings, generator)) {}

  /// Around an adapter that exists already. Throws ShapeError unless it fits.
  AdaptedLinear(FrozenLinear<Scalar> base, A adapter)
      : base_(std::move(base)), adapter_(std::move(adapter)) {
    require_usable();
  }

  AdaptedLinear(const AdaptedLinear&) = default;
  AdaptedLinear(AdaptedLinear&&) = default;
  AdaptedLinear& operator=(const AdaptedLinear& other) { return *this = AdaptedLinear(other); }
  AdaptedLinear& operator=(AdaptedLinear&&) = default;
  ~AdaptedLinear() = default;

  [[nodiscard]] Index in_features() const { return base_.in_features(); }
  [[nodiscard]] Index out_features() const { return base_.out_features(); }
  /// The frozen layer, for its output without the adapter: `layer.base().forward(x)`. After
  /// merge_into the frozen weight itself its numbers are the merged ones.
  [[nodiscard]] const FrozenLinear<Scalar>& base() const { return base_; }
  [[nodiscard]] const A& adapter() const {
    require_not_moved_from();
    return adapter_;
  }
  /// The adapter to change it. Throws StateError while merged.
  [[nodiscard]] A& adapter() {
    require_trainable("adapter");
    return adapter_;
  }
  /// What is legal about the settings and yet probably not meant, a sentence each.
  [[nodiscard]] std::vector<std::string> warnings() const { return adapter().warnings(); }

  /// Visits the trainable parameters by name. Throws StateError while merged, as training then
  /// would change an adapter that the merged weight does not see.
  template <class F>
  void visit_parameters(F&& f) {
    const Use change = changing("visit_parameters");
    require_trainable("visit_parameters");
    adapter_.visit_parameters(std::forward<F>(f));
  }
  template <class F>
  void visit_parameters(F&& f) const {
    const Use read = reading("visit_parameters");
    adapter().visit_parameters(std::forward<F>(f));
  }

  /// Y = X W^T + b + the adapter's part; from the merged weight when merged. Cost: tokens in out
  /// multiply-adds, and an additive adapter's own unless merged.
  [[nodiscard]] Matrix<Scalar> forward(const MatrixView<Scalar>& x) const {
    const Use read = reading("forward");
    Matrix<Scalar> y(x.rows(), out_features());
    compute(x, detail::map_of(y), nullptr);
    return y;
  }
  void forward(const MatrixView<Scalar>& x, Output y) const {
    const Use read = reading("forward");
    compute(x, checked_output(y, x.rows(), out_features(), x), nullptr);
  }

  /// The forward pass of training: keeps in `saved` what backward needs. Throws StateError while
  /// merged.
  [[nodiscard]] Matrix<Scalar> forward(const MatrixView<Scalar>& x, Saved& saved) const {
    const Use read = reading("forward");
    Matrix<Scalar> y(x.rows(), out_features());
    compute(x, detail::map_of(y), &saved);
    return y;
  }
  void forward(const MatrixView<Scalar>& x, Saved& saved, Output y) const {
    const Use read = reading("forward");
    compute(x, checked_output(y, x.rows(), out_features(), x), &saved);
  }

  /// Adds to the gradients of the parameters and returns dX. Throws StateError unless a training
  /// forward pass filled `saved` since the last backward pass and restart, and while merged. Cost:
  /// tokens in out multiply-adds for dX, and twice an additive adapter's own (full fine-tuning:
  /// tokens in out).
  Matrix<Scalar> backward(const MatrixView<Scalar>& dy, Saved& saved) {
    const Use change = changing("backward");
    Matrix<Scalar> dx(dy.rows(), in_features());
    MutableMap<Scalar> map = detail::map_of(dx);
    differentiate(dy, saved, &map);
    return dx;
  }
  void backward(const MatrixView<Scalar>& dy, Saved& saved, Output dx) {
    const Use change = changing("backward");
    MutableMap<Scalar> map = checked_output(dx, dy.rows(), in_features(), dy);
    differentiate(dy, saved, &map);
  }
  /// The same without dX, for the lowest layer that trains: it saves a product with W.
  void backward_parameters(const MatrixView<Scalar>& dy, Saved& saved) {
    const Use change = changing("backward");
    differentiate(dy, saved, nullptr);
  }

  [[nodiscard]] bool merged() const { return merged_.has_value(); }

  /// Makes a merged weight W + Delta W of its own, [out, in]; the frozen weight stays untouched.
  /// Returns false, and does nothing, when merged already. Throws NumericError, and changes
  /// nothing, when a number of the result is not finite. Cost: a pass over W.
  bool merge() {
    const Use change = changing("merge");
    require_usable();
    if (merged()) return false;
    merged_ = detail::merged_layer(adapter_, base_);
    return true;
  }

  /// Back to the frozen weight, bit for bit, as that was never changed. Returns false when not
  /// merged. Throws StateError after merge_into the frozen weight itself: what it was is gone.
  bool unmerge() {
    const Use change = changing("unmerge");
    require_not_moved_from();
    if (!merged()) return false;
    if (merged_in_place_) {
      throw StateError("unmerge: merge_into has overwritten the frozen weight itself");
    }
    merged_.reset();
    return true;
  }

  /// Folds the update into a frozen weight of the layer's own, for good, and goes on with `fresh`,
  /// an adapter of the same type that changes nothing yet (which is not checked: an update that it
  /// has comes on top): the layer computes what it did, within rounding. Done every so often the
  /// updates add up to more than one of them can be: ReLoRA (Lialin et al. 2023, arXiv 2307.05695)
  /// and ReMoRA (MoRA's paper, section 3.3). What others share stays untouched. Throws as merge()
  /// does, StateError while merged, ShapeError where `fresh` does not fit; nothing has changed
  /// then. Cost: a merge.
  void restart(A fresh) requires(bool(A::additive)) {
    const Use change = changing("restart");
    require_trainable("restart");
    require_usable();
    detail::require_fits(fresh, base_);
    base_ = detail::merged_layer(adapter_, base_);
    adapter_ = std::move(fresh);
    ++restarts_;
  }

  /// Adds the update to `weight` [out, in], which must hold the numbers of the frozen weight (that
  /// is not checked: a second call on the same memory of the caller's adds a second time), in place
  /// and without a copy of it: for those who have memory for one matrix only. When it is the frozen
  /// weight's own memory the layer is merged from then on, without a way back; otherwise the layer
  /// is unchanged. Other layers over that memory would see the merged weight as theirs: where
  /// copies of the layer or of its FrozenLinear exist, it throws StateError unless `shared` says
  /// `overwrite`. Of layers that were made apart from one matrix of the caller's it cannot know.
  /// Throws NumericError, and changes nothing, when a number of the result is not finite. The
  /// caller sees to it that nobody reads `weight` meanwhile. A bias that trained (FullLinear) is
  /// kept in the layer where that is merged, and lost otherwise: `weight` has no place for it.
  /// Cost: a reading pass over W and one that adds, the memory traffic of W += D.
  void merge_into(Output weight, SharedWeight shared = SharedWeight::refuse) {
    const Use change = changing("merge_into");
    require_trainable("merge_into");
    require_usable();
    MutableMap<Scalar> target = detail::map_of(weight);
    detail::require_size("merge_into, rows (out_features)", out_features(), target.rows());
    detail::require_size("merge_into, columns (in_features)", in_features(), target.cols());
    detail::require_target("merge_into", target);
    const bool in_place = is_the_frozen_weight(target);
    if (!in_place) base_.require_disjoint("merge_into", target);
    if (in_place && shared == SharedWeight::refuse && base_.use_count() > 1) {
      throw StateError(detail::concat("merge_into: the frozen weight has ", base_.use_count() - 1,
                                      " other handles, which would see the merged one; pass "
                                      "SharedWeight::overwrite, or merge"));
    }
    require_disjoint_from_parameters("merge_into", target);
    RowVector<Scalar> bias = detail::merged_bias(adapter_, base_);
    std::optional<FrozenLinear<Scalar>> result;
    if (in_place) result.emplace(base_.weight(), std::move(bias));
    detail::merge_in_place(adapter_, target);
    merged_ = std::move(result);
    merged_in_place_ = in_place;
  }

  /// Delta W [out, in] as a dense matrix, at the cost of a merge: what merge adds. Throws
  /// StateError after merge_into the frozen weight itself where it is the difference to that (full
  /// fine-tuning).
  [[nodiscard]] Matrix<Scalar> update() const {
    const Use read = reading("update");
    require_usable();
    if (!A::additive && merged_in_place_) {
      throw StateError("update: merge_into has overwritten the frozen weight itself");
    }
    return detail::dense_update(adapter_, base_);
  }

 private:
  using Use = detail::InUse<detail::notices_concurrent_use>;
  [[nodiscard]] Use reading(const char* call) const {
    return {use_, detail::Access::reading, call};
  }
  [[nodiscard]] Use changing(const char* call) { return {use_, detail::Access::changing, call}; }

  void require_not_moved_from() const { base_.require_usable(); }

  [[nodiscard]] bool is_the_frozen_weight(const MutableMap<Scalar>& target) const {
    if (!base_.has_weight_in_place()) return false;
    const ConstMap<Scalar> w = base_.weight();
    return target.data() == w.data() && (target.outerStride() == w.outerStride() || w.rows() == 1);
  }

  /// That nothing was moved from, and that the adapter still fits: it may be changed freely.
  void require_usable() const { detail::require_fits(adapter_, base_); }

  void require_trainable(const char* call) const {
    require_not_moved_from();
    if (merged()) throw StateError(detail::concat(call, ": the layer is merged; unmerge it first"));
  }

  void require_disjoint_from_parameters(const char* call, const MutableMap<Scalar>& target) const {
    if constexpr (requires { adapter_.require_disjoint(call, detail::as_const(target)); }) {
      adapter_.require_disjoint(call, detail::as_const(target));
    }
    adapter_.visit_parameters([&](std::string_view, const auto& parameter) {
      detail::require_disjoint(call, detail::as_const(target), detail::map_of(parameter.value));
      detail::require_disjoint(call, detail::as_const(target), detail::map_of(parameter.gradient));
    });
  }

  MutableMap<Scalar> checked_output(Output& output, Index rows, Index cols,
                                    const ConstMap<Scalar>& input) const {
    const MutableMap<Scalar> map = detail::checked_result(output, rows, cols, input);
    base_.require_disjoint("result", map);
    require_disjoint_from_parameters("result", map);
    return map;
  }

  void compute(const ConstMap<Scalar>& x, MutableMap<Scalar> y, Saved* saved) const {
    require_usable();
    detail::require_size("forward, columns of x (in_features)", in_features(), x.cols());
    detail::require_memory("forward, x", x);
    if (saved) {
      require_trainable("forward for training");
      saved->tokens_ = -1;
    }
    detail::fill_zero(y);
    if (merged_) {
      detail::add_frozen_forward(*merged_, x, y);
      return;
    }
    detail::add_forward_layer(adapter_, base_, x, y, saved ? &saved->adapter_ : nullptr);
    if (!saved) return;
    if constexpr (A::saves_input) {
      detail::resize(saved->input_, x.rows(), x.cols());
      saved->input_ = x;
    }
    saved->tokens_ = x.rows();
    saved->restarts_ = restarts_;
  }

  void differentiate(const ConstMap<Scalar>& dy, Saved& saved, MutableMap<Scalar>* dx) {
    require_trainable("backward");
    require_usable();
    detail::require_kept(saved.tokens_, dy.rows());
    if (saved.restarts_ != restarts_) {
      throw StateError("backward: the layer was restarted since the forward pass");
    }
    detail::require_size("backward, columns of dy (out_features)", out_features(), dy.cols());
    detail::require_memory("backward, dy", dy);
    if constexpr (A::saves_input) {
      detail::require_size("backward, columns of the saved x (in_features)", in_features(),
                           saved.input_.cols());
    }
    adapter_.visit_parameters([&](std::string_view name, const auto& parameter) {
      detail::require_gradient(name, parameter);
      detail::require_disjoint("backward, gradient", detail::map_of(parameter.gradient), dy);
    });
    if constexpr (requires { adapter_.require_saved(saved.adapter_); }) {
      adapter_.require_saved(saved.adapter_);
    }
    if (dx) detail::fill_zero(*dx);
    detail::add_backward_layer(adapter_, base_, detail::map_of(std::as_const(saved.input_)), dy,
                               saved.adapter_, dx);
    saved.tokens_ = -1;
  }

  FrozenLinear<Scalar> base_;
  A adapter_;
  std::optional<FrozenLinear<Scalar>> merged_;
  bool merged_in_place_ = false;
  Index restarts_ = 0;
  [[no_unique_address]] mutable detail::ConcurrentUse<> use_;
};

/// A frozen linear layer with MoRA: `MoraLinear<float> layer(W, {.rank = 8});`
template <class T, class Op = Rotation>
using MoraLinear = AdaptedLinear<MoraAdapter<T, Op>>;

/// A frozen linear layer with LoRA: `LoraLinear<float> layer(W, {.rank = 8}, generator);`
template <class T>
using LoraLinear = AdaptedLinear<LoraAdapter<T>>;

/// A frozen linear layer with DoRA over LoRA or another additive adapter: `DoraLinear<float>
/// layer(W, {.direction = {.rank = 8}}, generator);`
template <class T, class Direction = LoraAdapter<T>>
using DoraLinear = AdaptedLinear<DoraAdapter<Direction>>;

/// A frozen linear layer with HiRA: `HiraLinear<float> layer(W, {.rank = 8}, generator);`
template <class T>
using HiraLinear = AdaptedLinear<HiraAdapter<T>>;

/// A frozen linear layer with MiSS: `MissLinear<float> layer(W, {.rank = 16});`
template <class T>
using MissLinear = AdaptedLinear<MissAdapter<T>>;

/// A frozen linear layer with LoKr: `LokrLinear<float> layer(W, {.rank = 8}, generator);`
template <class T>
using LokrLinear = AdaptedLinear<LokrAdapter<T>>;

/// A linear layer that trains in full, from the frozen weight's numbers.
template <class T>
using FullLinear = AdaptedLinear<FullAdapter<T>>;

}  // namespace mora::inline MORA_ABI
