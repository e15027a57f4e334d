// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/adapters/merging.hpp"

namespace mora::inline MORA_ABI {

/// An adapter of any type behind one, for models whose layers have different ones. A value: copies
/// are independent; one that was moved from throws StateError. One virtual call a layer and pass,
/// none inside.
///
/// Sizes are checked, once a call: ShapeError with both numbers, and nothing has changed. Results
/// must not overlap what is read; AdaptedLinear checks that, this does not.
template <Real T>
class AnyAdapter {
 public:
  /// What an adapter keeps for its backward pass; made by the first training forward pass.
  class Saved {
   public:
    virtual ~Saved() = default;
  };
  using SavedPointer = std::unique_ptr<Saved>;

  /// An adapter's update as it is merged a few rows at a time, for a weight that is not in memory
  /// as a whole. Valid while the adapter lives and its parameters stay.
  class RowMerge {
   public:
    virtual ~RowMerge() = default;
    /// `rows` [count, in] hold W from row `first` on, and get those of W + Delta W. Throws
    /// ShapeError for rows that the layer does not have; that the result is finite is not checked.
    /// Several threads may do it at once.
    virtual void merge_rows(Index first, MutableMap<T> rows) const = 0;
  };

  /// A parameter under the name that its adapter gives it: "A", "M".
  struct Named {
    std::string name;
    Parameter<T>* parameter;
  };

  template <Adapter A>
  requires std::same_as<typename A::Scalar, T>
  explicit AnyAdapter(A adapter) : self_(std::make_unique<Model<A>>(std::move(adapter))) {
    list_parameters();
  }
  AnyAdapter(const AnyAdapter& other) : self_(other.self().copy()) { list_parameters(); }
  AnyAdapter& operator=(const AnyAdapter& other) {
    if (this != &other) *this = AnyAdapter(other);
    return *this;
  }
  AnyAdapter(AnyAdapter&&) noexcept = default;
  AnyAdapter& operator=(AnyAdapter&&) noexcept = default;
  ~AnyAdapter() = default;

  [[nodiscard]] Index in_features() const { return self().in_features(); }
  [[nodiscard]] Index out_features() const { return self().out_features(); }
  [[nodiscard]] bool additive() const { return self().additive(); }
  [[nodiscard]] bool saves_input() const { return self().saves_input(); }
  [[nodiscard]] std::vector<std::string> warnings() const { return self().warnings(); }
  void require_shapes() const { self().require_shapes(); }
  /// In the adapter's order; valid for as long as this object is not assigned to.
  [[nodiscard]] const std::vector<Named>& parameters() const {
    (void)self();
    return parameters_;
  }

  /// The adapter itself, or null when it is of another type.
  template <class A>
  [[nodiscard]] const A* get_if() const {
    const auto* const model = dynamic_cast<const Model<A>*>(&self());
    return model ? &model->adapter : nullptr;
  }
  template <class A>
  [[nodiscard]] A* get_if() {
    return const_cast<A*>(std::as_const(*this).template get_if<A>());
  }

  /// y [tokens, out] += the update's output alone; `saved` is null, or where to keep what backward
  /// needs. Throws StateError for an adapter that is not additive.
  void add_forward(const ConstMap<T>& x, MutableMap<T> y, SavedPointer* saved) const {
    self().add_forward(x, y, saved);
  }
  /// Adds to the parameters' gradients, and to dx [tokens, in] unless that is null; x may be empty
  /// unless saves_input(). Uses up what was saved; throws StateError also where that was done, and
  /// for what an adapter of another type saved.
  void add_backward(const ConstMap<T>& x, const ConstMap<T>& dy, Saved& saved, MutableMap<T>* dx) {
    self().add_backward(x, dy, saved, dx);
  }
  /// Whether add_backward can follow `save` alone, whatever computes the output.
  [[nodiscard]] bool can_save() const { return self().can_save(); }
  /// What add_forward(x, y, &saved) saves. Throws StateError unless can_save().
  void save(const ConstMap<T>& x, SavedPointer& saved) const { self().save(x, saved); }
  /// weight [out, in] += Delta W, on this thread, in working memory that is kept. Throws StateError
  /// for an adapter that is not additive, ShapeError for another size; that the result is finite is
  /// not checked.
  void add_update(MutableMap<T> weight) const { self().add_update(weight); }
  /// The same with the frozen layer's part, for any adapter.
  void add_forward(const FrozenLinear<T>& base, const ConstMap<T>& x, MutableMap<T> y,
                   SavedPointer* saved) const {
    self().add_forward(base, x, y, saved);
  }
  void add_backward(const FrozenLinear<T>& base, const ConstMap<T>& x, const ConstMap<T>& dy,
                    Saved& saved, MutableMap<T>* dx) {
    self().add_backward(base, x, dy, saved, dx);
  }

  /// W + Delta W in memory of its own; throws NumericError when a number of it is not finite.
  [[nodiscard]] FrozenLinear<T> merged(const FrozenLinear<T>& base) const {
    return self().merged(base);
  }
  /// The same by rows.
  [[nodiscard]] std::unique_ptr<const RowMerge> row_merge() const { return self().row_merge(); }
  /// Delta W [out, in].
  [[nodiscard]] Matrix<T> update(const FrozenLinear<T>& base) const { return self().update(base); }

 private:
  struct Interface {
    virtual ~Interface() = default;
    [[nodiscard]] virtual std::unique_ptr<Interface> copy() const = 0;
    [[nodiscard]] virtual Index in_features() const = 0;
    [[nodiscard]] virtual Index out_features() const = 0;
    [[nodiscard]] virtual bool additive() const = 0;
    [[nodiscard]] virtual bool saves_input() const = 0;
    [[nodiscard]] virtual std::vector<std::string> warnings() const = 0;
    virtual void require_shapes() const = 0;
    virtual void list_parameters(std::vector<Named>& list) = 0;
    virtual void add_forward(const ConstMap<T>& x, MutableMap<T> y, SavedPointer*) const = 0;
    virtual void add_backward(const ConstMap<T>& x, const ConstMap<T>& dy, Saved&,
                              MutableMap<T>* dx) = 0;
    [[nodiscard]] virtual bool can_save() const = 0;
    virtual void save(const ConstMap<T>& x, SavedPointer&) const = 0;
    virtual void add_update(MutableMap<T> weight) const = 0;
    virtual void add_forward(const FrozenLinear<T>&, const ConstMap<T>& x, MutableMap<T> y,
                             SavedPointer*) const = 0;
    virtual void add_backward(const FrozenLinear<T>&, const ConstMap<T>& x, const ConstMap<T>& dy,
                              Saved&, MutableMap<T>* dx) = 0;
    [[nodiscard]] virtual FrozenLinear<T> merged(const FrozenLinear<T>&) const = 0;
    [[nodiscard]] virtual std::unique_ptr<const RowMerge> row_merge() const = 0;
    [[nodiscard]] virtual Matrix<T> update(const FrozenLinear<T>&) const = 0;
  };

  template <class A>
  struct Model final : Interface {
    struct UpdatePlan;
    struct SavedOf final : Saved {
      typename A::Saved value;
      Index tokens = -1;  // -1: no forward pass to go back through
    };
    struct RowMergeOf final : RowMerge {
      explicit RowMergeOf(const A& a) : adapter(a), plan(a.plan_merge()) {}
      void merge_rows(Index first, MutableMap<T> rows) const override {
        detail::require_size("merge_rows, columns (in_features)", adapter.in_features(),
                             rows.cols());
        if (first < 0 || rows.rows() > adapter.out_features() - first) {
          throw ShapeError(detail::concat("merge_rows: expected rows of ", adapter.out_features(),
                                          ", found ", rows.rows(), " from ", first, " on"));
        }
        adapter.require_shapes();
        adapter.merge_rows(plan, first, rows);
      }
      const A& adapter;
      decltype(std::declval<const A&>().plan_merge()) plan;
    };
    static constexpr bool changes_bias = requires(const A& c, const RowVector<T>& bias) {
      c.merged_bias(bias);
    };
    static constexpr bool saves_alone =
        A::additive && !changes_bias &&
        requires(const A& c, const ConstMap<T>& x, typename A::Saved& saved) {
      c.save(x, saved);
    };
    explicit Model(A a) : adapter(std::move(a)) {}

    std::unique_ptr<Interface> copy() const override { return std::make_unique<Model>(adapter); }
    Index in_features() const override { return adapter.in_features(); }
    Index out_features() const override { return adapter.out_features(); }
    bool additive() const override { return A::additive; }
    bool saves_input() const override { return A::saves_input; }
    std::vector<std::string> warnings() const override { return adapter.warnings(); }
    void require_shapes() const override { adapter.require_shapes(); }
    void list_parameters(std::vector<Named>& list) override {
      adapter.visit_parameters([&](std::string_view name, Parameter<T>& p) {
        list.push_back({std::string(name), &p});
      });
    }
    void add_forward(const ConstMap<T>& x, MutableMap<T> y, SavedPointer* saved) const override {
      if constexpr (A::additive) {
        adapter.require_shapes();
        forward(x, y, saved, [&](auto* own) { adapter.add_forward(x, y, own); });
      } else {
        throw StateError("adapter: it computes whole layers, not a part to add");
      }
    }
    void add_backward(const ConstMap<T>& x, const ConstMap<T>& dy, Saved& saved,
                      MutableMap<T>* dx) override {
      if constexpr (A::additive) {
        adapter.require_shapes();
        adapter.add_backward(x, dy, checked(x, dy, saved, dx), dx);
      } else {
        throw StateError("adapter: it computes whole layers, not a part to add");
      }
    }
    bool can_save() const override { return saves_alone; }
    void save(const ConstMap<T>& x, SavedPointer& saved) const override {
      if constexpr (saves_alone) {
        adapter.require_shapes();
        detail::require_size("save, columns of x (in_features)", adapter.in_features(), x.cols());
        keep(x, saved, [&](auto* own) { adapter.save(x, *own); });
      } else {
        throw StateError("adapter: what it saves comes with its output");
      }
    }
    void add_update(MutableMap<T> weight) const override {
      if (!A::additive) throw StateError("adapter: its update depends on the frozen weight");
      adapter.require_shapes();
      detail::require_size("add_update, rows (out_features)", adapter.out_features(),
                           weight.rows());
      detail::require_size("add_update, columns (in_features)", adapter.in_features(),
                           weight.cols());
      adapter.merge_rows(detail::kept_plan<UpdatePlan>(adapter), 0, weight);
    }
    void add_forward(const FrozenLinear<T>& base, const ConstMap<T>& x, MutableMap<T> y,
                     SavedPointer* saved) const override {
      detail::require_fits(adapter, base);
      forward(x, y, saved, [&](auto* own) { detail::add_forward_layer(adapter, base, x, y, own); });
    }
    void add_backward(const FrozenLinear<T>& base, const ConstMap<T>& x, const ConstMap<T>& dy,
                      Saved& saved, MutableMap<T>* dx) override {
      detail::require_fits(adapter, base);
      detail::add_backward_layer(adapter, base, x, dy, checked(x, dy, saved, dx), dx);
    }
    FrozenLinear<T> merged(const FrozenLinear<T>& base) const override {
      detail::require_fits(adapter, base);
      return detail::merged_layer(adapter, base);
    }
    std::unique_ptr<const RowMerge> row_merge() const override {
      adapter.require_shapes();
      return std::make_unique<RowMergeOf>(adapter);
    }
    Matrix<T> update(const FrozenLinear<T>& base) const override {
      detail::require_fits(adapter, base);
      return detail::dense_update(adapter, base);
    }

    /// `add(saved)`, where sizes fit; what is saved is made where there is none, or another
    /// adapter's.
    template <class Add>
    void forward(const ConstMap<T>& x, const MutableMap<T>& y, SavedPointer* saved,
                 const Add& add) const {
      detail::require_size("forward, columns of x (in_features)", adapter.in_features(), x.cols());
      detail::require_size("result, rows (tokens)", x.rows(), y.rows());
      detail::require_size("result, columns (out_features)", adapter.out_features(), y.cols());
      if (!saved) return add(static_cast<typename A::Saved*>(nullptr));
      keep(x, *saved, add);
    }
    template <class Add>
    void keep(const ConstMap<T>& x, SavedPointer& saved, const Add& add) const {
      if (!dynamic_cast<SavedOf*>(saved.get())) saved = std::make_unique<SavedOf>();
      auto& own = static_cast<SavedOf&>(*saved);
      own.tokens = -1;  // for when it throws
      add(&own.value);
      own.tokens = x.rows();
    }
    /// What this adapter has saved, once it is known to fit with all else.
    typename A::Saved& checked(const ConstMap<T>& x, const ConstMap<T>& dy, Saved& saved,
                               const MutableMap<T>* dx) {
      auto* const own = dynamic_cast<SavedOf*>(&saved);
      if (!own) throw StateError("backward: what was saved is another adapter's");
      detail::require_kept(own->tokens, dy.rows());
      detail::require_size("backward, columns of dy (out_features)", adapter.out_features(),
                           dy.cols());
      if (A::saves_input) {
        detail::require_size("backward, rows of x (tokens)", dy.rows(), x.rows());
        detail::require_size("backward, columns of x (in_features)", adapter.in_features(),
                             x.cols());
      }
      if (dx) {
        detail::require_size("result, rows (tokens)", dy.rows(), dx->rows());
        detail::require_size("result, columns (in_features)", adapter.in_features(), dx->cols());
      }
      adapter.visit_parameters([](std::string_view name, const Parameter<T>& parameter) {
        detail::require_gradient(name, parameter);
      });
      if constexpr (requires { adapter.require_saved(own->value); }) {
        adapter.require_saved(own->value);
      }
      own->tokens = -1;  // used up: a second pass would count gradients twice
      return own->value;
    }
    A adapter;
  };

  void list_parameters() { self_->list_parameters(parameters_); }
  [[nodiscard]] const Interface& self() const {
    if (!self_) throw StateError("adapter: used after it was moved from");
    return *self_;
  }
  [[nodiscard]] Interface& self() { return const_cast<Interface&>(std::as_const(*this).self()); }

  std::unique_ptr<Interface> self_;
  std::vector<Named> parameters_;
};

}  // namespace mora::inline MORA_ABI
