// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/core/elementwise.hpp"
#include "mora/core/parallel.hpp"
#include "mora/core/parameter.hpp"
#include "mora/optim/parameter_group.hpp"
#include "mora/optim/update_rule.hpp"

namespace mora::inline MORA_ABI {

/// An optimizer over named parameters; AdamW and Sgd are it.
///
/// A parameter belongs to the first group whose rule its name fits, and else to the settings of the
/// optimizer itself. What is remembered of a parameter is kept by its name. Copies are independent.
template <UpdateRule Rule>
class Optimizer {
 public:
  using Scalar = typename Rule::Scalar;
  using Settings = typename Rule::Settings;
  using Group = ParameterGroup<Settings>;
  static constexpr auto moment_names = Rule::moments;

  /// What is remembered of a parameter: its number of steps, and moments of its shape in the order
  /// of `moment_names`.
  struct State {
    std::int64_t steps = 0;
    std::array<Matrix<Scalar>, Rule::moments.size()> moments;
  };

  /// Throws ArgumentError for a setting out of its range, or beyond Scalar.
  explicit Optimizer(const Settings& settings = {}, std::vector<Group> groups = {}) {
    set(settings);
    set_groups(std::move(groups));
  }
  Optimizer(const Optimizer&) = default;
  Optimizer(Optimizer&&) = default;
  Optimizer& operator=(const Optimizer& other) { return *this = Optimizer(other); }
  Optimizer& operator=(Optimizer&&) = default;
  ~Optimizer() = default;

  /// Those of the parameters that no group takes.
  [[nodiscard]] const Settings& settings() const { return settings_; }
  void set(const Settings& settings) {
    require_usable(settings);
    settings_ = settings;
  }
  [[nodiscard]] const std::vector<Group>& groups() const { return groups_; }
  void set_groups(std::vector<Group> groups) {
    for (const Group& group : groups) require_usable(group.settings);
    group_marks_.assign(groups.size(), 0);
    groups_ = std::move(groups);
  }
  /// Those that hold for a parameter of this name.
  [[nodiscard]] const Settings& settings_for(std::string_view name) const {
    const std::size_t group = group_of(name);
    return group < groups_.size() ? groups_[group].settings : settings_;
  }

  /// One step for every parameter of the module that has a gradient, with `factor` times each
  /// learning rate: a schedule's factor, 0 <= factor < infinity. Throws NumericError, naming the
  /// parameter, for a gradient that is not finite or that the rule does not accept, see its
  /// `accepts`; ArgumentError for a factor out of range or that takes a learning rate beyond
  /// Scalar, when a group takes no parameter of the module, as its settings would be lost without a
  /// word, and for two parameters of one name or two names of one; ShapeError for a gradient or
  /// moment of another shape. What throws has changed nothing. Allocates nothing once every
  /// parameter has had a step.
  template <Module M>
  void step(M& module, double factor = 1.0) {
    detail::require_range("factor", factor, 0.0, std::numeric_limits<double>::infinity());
    collect(module, factor);
    require_usable_gradients();
    for_each_piece([](const Work& work, Index first, Index count) { update(work, first, count); });
    for (const Work& work : work_) ++work.memory->second.state.steps;
  }

  /// Visits what is remembered, `f(name, state)`, sorted by name. Who changes a moment keeps its
  /// shape.
  template <class F>
  void visit_state(F&& f) {
    for (auto& [name, memory] : memories_) {
      if (memory.state.steps > 0) f(std::string_view(name), memory.state);
    }
  }
  template <class F>
  void visit_state(F&& f) const {
    for (const auto& [name, memory] : memories_) {
      if (memory.state.steps > 0) f(std::string_view(name), memory.state);
    }
  }

  /// Puts back what visit_state has shown. Throws ArgumentError for less than one step, ShapeError
  /// for moments of different shapes, NumericError for one that is not finite.
  void set_state(std::string_view name, State state) {
    detail::require_at_least<std::int64_t>("optimizer state, steps", 1, state.steps);
    for (std::size_t i = 0; i < moment_names.size(); ++i) {
      detail::require_same_shape(moment_names[i].data(), name, state.moments[0], state.moments[i]);
      if (!detail::all_finite(state.moments[i])) {
        throw NumericError(detail::concat(moment_names[i], " of ", name, ": not finite"));
      }
    }
    memories_.insert_or_assign(std::string(name), Memory{std::move(state)});
  }

  /// Forgets the parameters that the rule means, as if they had never been stepped. Returns the
  /// number of those that had been.
  std::size_t reset_state(const NameRule& which) {
    std::size_t count = 0;
    std::erase_if(memories_, [&](const auto& memory) {
      const bool meant = which(memory.first);
      if (meant && memory.second.state.steps > 0) ++count;
      return meant;
    });
    return count;
  }
  void reset_state() { memories_.clear(); }

  /// Sets all but the largest numbers of the moments to zero, `share` of them, for the parameters
  /// that the rule means; their numbers of steps stay (ReLoRA prunes 99 % where it restarts
  /// adapters). Entries are ordered by their last moment, AdamW's mean square, and lose all of them
  /// together: a mean without its square would be divided by epsilon alone. (The reference prunes
  /// each moment by an order of its own.) Returns the number of parameters. Throws ArgumentError
  /// unless 0 <= share <= 1; nothing has changed then.
  std::size_t prune_state(const NameRule& which, double share) {
    detail::require_between("share", share, 0.0, 1.0);
    std::vector<State*> meant;
    Index largest = 0;
    for (auto& [name, memory] : memories_) {
      if (memory.state.steps == 0 || !which(name)) continue;
      meant.push_back(&memory.state);
      largest = std::max(largest, memory.state.moments.back().size());
    }
    std::vector<Index> order(static_cast<std::size_t>(largest));
    for (State* const state : meant) prune(*state, share, order);
    return meant.size();
  }

 private:
  struct Memory {
    State state;
    std::uint64_t mark = 0;  // the step that has seen the name last
  };
  using Memories = std::map<std::string, Memory, std::less<>>;

  /// The part of a step that one parameter is.
  struct Work {
    typename Memories::iterator memory;
    Parameter<Scalar>* parameter;
    Rule rule;
    Index first_piece;
  };
  static constexpr Index piece_size = Index{1} << 14;
  static constexpr Index tile_size = 512;  // a tile of all that a step reads is in the first cache

  /// Their coefficients have to be numbers in Scalar, too.
  static void require_usable(const Settings& settings) {
    settings.validate();
    (void)Rule(settings, 1.0, 1);
  }

  /// `order` is memory for as many entries.
  static void prune(State& state, double share, std::vector<Index>& order) {
    const Matrix<Scalar>& rank_by = state.moments.back();
    const std::span<Index> entries(order.data(), static_cast<std::size_t>(rank_by.size()));
    const auto lost = static_cast<std::ptrdiff_t>(std::llround(share * double(entries.size())));
    std::iota(entries.begin(), entries.end(), Index{0});
    std::ranges::nth_element(entries, entries.begin() + lost, [&](Index a, Index b) {
      const Scalar first = std::abs(rank_by.data()[a]);
      const Scalar second = std::abs(rank_by.data()[b]);
      return first < second || (first == second && a > b);
    });
    for (const Index i : entries.first(static_cast<std::size_t>(lost))) {
      for (Matrix<Scalar>& moment : state.moments) moment.data()[i] = Scalar(0);
    }
  }

  [[nodiscard]] std::size_t group_of(std::string_view name) const {
    std::size_t group = 0;
    while (group < groups_.size() && !groups_[group].parameters(name)) ++group;
    return group;
  }

  /// Everything that can fail without looking at the numbers, and all memory that is needed.
  template <class M>
  void collect(M& module, double factor) {
    work_.clear();
    pieces_ = 0;
    ++mark_;
    module.visit_parameters([&](std::string_view name, Parameter<Scalar>& p) {
      const std::size_t group = group_of(name);
      if (group < groups_.size()) group_marks_[group] = mark_;
      if (p.gradient.size() == 0) return;
      detail::require_gradient(name, p);
      const auto memory = remember(name, p.value);
      const Settings& settings = group < groups_.size() ? groups_[group].settings : settings_;
      const Rule rule(settings, factor, memory->second.state.steps + 1);
      work_.push_back({memory, &p, rule, pieces_});
      pieces_ += (p.value.size() + piece_size - 1) / piece_size;
    });
    require_each_once();
    for (std::size_t i = 0; i < groups_.size(); ++i) {
      if (group_marks_[i] == mark_) continue;
      throw ArgumentError(detail::concat("parameter group ", i, " (", groups_[i].parameters.text(),
                                         "): no parameter of the module belongs to it"));
    }
  }

  /// A parameter of two names would be stepped twice.
  void require_each_once() {
    sorted_.clear();
    for (const Work& work : work_) sorted_.push_back(&work);
    const auto parameter = [](const Work* work) { return work->parameter; };
    std::ranges::sort(sorted_, std::less<>(), parameter);
    const auto twice = std::ranges::adjacent_find(sorted_, std::equal_to<>(), parameter);
    if (twice == sorted_.end()) return;
    throw ArgumentError(detail::concat("one parameter of the module has two names: ",
                                       twice[0]->memory->first, " and ", twice[1]->memory->first));
  }

  [[nodiscard]] typename Memories::iterator remember(std::string_view name,
                                                     const Matrix<Scalar>& value) {
    auto memory = memories_.find(name);
    if (memory == memories_.end()) memory = memories_.emplace(std::string(name), Memory{}).first;
    State& state = memory->second.state;
    for (Matrix<Scalar>& moment : state.moments) {
      if (state.steps == 0) {  // new, or of a step that threw, whatever shape that had
        detail::resize(moment, value.rows(), value.cols());
        moment.setZero();
      }
      detail::require_same_shape("optimizer state", name, value, moment);
    }
    if (std::exchange(memory->second.mark, mark_) == mark_) {
      throw ArgumentError(detail::concat("two parameters of the module are named ", name));
    }
    return memory;
  }

  /// `f(work, first, count)` for pieces of all parameters in one parallel loop: adapters are many
  /// small matrices.
  template <class F>
  void for_each_piece(const F& f) const {
    const Index grain = pieces_ <= 2 ? 2 : 1;  // too little for a second thread
    detail::parallel_pieces(pieces_, grain, [&](Index from, Index number) {
      for (Index piece = from; piece < from + number; ++piece) {
        const auto after = std::upper_bound(
            work_.begin(), work_.end(), piece,
            [](Index value, const Work& work) { return value < work.first_piece; });
        const Work& work = *std::prev(after);
        const Index first = (piece - work.first_piece) * piece_size;
        f(work, first, std::min(piece_size, work.parameter->value.size() - first));
      }
    });
  }

  /// Names the first parameter whose gradient cannot be used.
  void require_usable_gradients() const {
    std::atomic<const Work*> bad{nullptr};
    for_each_piece([&](const Work& work, Index first, Index count) {
      if (Rule::accepts(gradient(work, first, count))) return;
      const Work* other = bad.load();
      while ((other == nullptr || &work < other) && !bad.compare_exchange_weak(other, &work)) {
      }
    });
    if (const Work* const work = bad.load()) {
      const bool finite = detail::all_finite(work->parameter->gradient);
      throw NumericError(
          detail::concat("gradient of ", work->memory->first,
                         finite ? ": too large, a moment is not finite then" : ": not finite"));
    }
  }

  [[nodiscard]] static detail::ConstNumbers<Scalar> gradient(const Work& work, Index first,
                                                             Index count) {
    return {work.parameter->gradient.data() + first, count};
  }

  /// One pass over memory: everything happens to a tile before the next one.
  static void update(const Work& work, Index first, Index count) {
    const Index end = first + count;
    for (Index at = first; at < end; at += tile_size) {
      const Index size = std::min(tile_size, end - at);
      detail::Numbers<Scalar> w(work.parameter->value.data() + at, size);
      auto moments = moments_of(work.memory->second.state, at, size,
                                std::make_index_sequence<Rule::moments.size()>());
      work.rule.update(w, gradient(work, at, size), moments);
    }
  }
  template <std::size_t... I>
  [[nodiscard]] static std::array<detail::Numbers<Scalar>, sizeof...(I)> moments_of(
      State& state, Index first, Index count, std::index_sequence<I...>) {
    return {detail::Numbers<Scalar>(state.moments[I].data() + first, count)...};
  }

  Settings settings_;
  std::vector<Group> groups_;
  Memories memories_;
  std::uint64_t mark_ = 0;  // the number of the step under way
  std::vector<std::uint64_t> group_marks_;
  // Of the step under way; kept for its memory.
  std::vector<Work> work_;
  std::vector<const Work*> sorted_;  // by parameter
  Index pieces_ = 0;
};

}  // namespace mora::inline MORA_ABI
