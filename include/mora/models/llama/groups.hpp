// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/models/llama/gradient_guard.hpp"
#include "mora/models/llama/head.hpp"

namespace mora::inline MORA_ABI::detail {

/// A batch cut into groups of whole sequences, for threads that take a group each through all
/// layers on their own: they wait for nobody, their activations stay in their caches, and only as
/// many groups as there are threads need memory at a time. The cut depends on the batch alone, so
/// neither do results depend on the number of threads.
class SequenceGroups {
 public:
  /// Rows of a group: enough for a fast product, few enough for the cache.
  static constexpr Index rows_wanted = 256;
  /// With fewer groups all threads work on one product at a time instead.
  static constexpr Index fewest = 4;

  /// Into one group where `whole`. The memory is kept from one batch to the next.
  void cut(const Batch& batch, bool whole) {
    ends_.clear();
    const Index wanted = std::min(batch.positions() / rows_wanted, batch.sequences());
    if (whole || wanted < fewest) {
      ends_.push_back(batch.sequences());
      return;
    }
    for (Index s = 0; s < batch.sequences(); ++s) {
      // A group ends where its share of the positions does.
      const Index end = batch.starts[static_cast<std::size_t>(s) + 1];
      const Index share = batch.positions() * (size() + 1) / wanted;
      if (end >= share || s + 1 == batch.sequences()) ends_.push_back(s + 1);
    }
  }
  [[nodiscard]] Index size() const { return std::ssize(ends_); }
  /// The sequences of a group, into memory that is reused; returns the first position.
  Index copy(const Batch& batch, Index group, Batch& into) const {
    const Index first = group == 0 ? 0 : ends_[static_cast<std::size_t>(group) - 1];
    const Index end = ends_[static_cast<std::size_t>(group)];
    const Index from = batch.starts[static_cast<std::size_t>(first)];
    const Index to = batch.starts[static_cast<std::size_t>(end)];
    into.tokens.assign(batch.tokens.begin() + from, batch.tokens.begin() + to);
    into.targets.assign(batch.targets.begin() + from, batch.targets.begin() + to);
    into.starts.clear();
    for (Index s = first; s <= end; ++s) {
      into.starts.push_back(batch.starts[static_cast<std::size_t>(s)] - from);
    }
    return from;
  }

 private:
  std::vector<Index> ends_;  // [groups]: the sequence behind the last one
};

/// Workspaces that passes borrow, one for each that runs at the same time.
template <Real T>
class WorkspacePool {
 public:
  struct Item {
    LlamaWorkspace<T> work;
    Batch batch;
  };
  WorkspacePool() = default;
  WorkspacePool(const WorkspacePool&) {}  // a copy of a model has none of its memory
  WorkspacePool& operator=(const WorkspacePool&) {
    clear();
    return *this;
  }

  template <class F>
  void borrow(const F& f) {
    std::unique_ptr<Item> item = take();
    f(*item);
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(item));
  }
  void clear() { free_.clear(); }

 private:
  std::unique_ptr<Item> take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) {
      free_.reserve(++made_);  // that giving back does not fail
      return std::make_unique<Item>();
    }
    std::unique_ptr<Item> item = std::move(free_.back());
    free_.pop_back();
    return item;
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Item>> free_;
  std::size_t made_ = 0;
};

/// Inference over a batch, group by group: `f(forward, item, group, first)` with the final norm's
/// output for the group's sequences, whose positions begin at `first`, in item.work.hidden.
template <Real T, class F>
void infer_groups(const LlamaParts<T>& parts, const Batch& batch, const F& f) {
  SequenceGroups groups;
  groups.cut(batch, false);
  WorkspacePool<T> pool;
  parallel_pieces(groups.size(), 1, [&](Index group, Index) {
    pool.borrow([&](auto& item) {
      const Index first = groups.copy(batch, group, item.batch);
      LlamaForward<T> forward(parts, item.work, nullptr);
      forward.run(item.batch, {}, Keep::nothing, nullptr);
      f(forward, item, group, first);
    });
  });
}

/// Turns of groups that add to the same gradients, in their order whichever threads they are on.
template <std::size_t lanes>
class Turns {
 public:
  /// Calls f() when the lane's earlier groups are done.
  template <class F>
  void take(Index lane, Index turn, const F& f) {
    std::atomic<Index>& done = done_[static_cast<std::size_t>(lane)];
    for (Index now = done.load(); now != turn; now = done.load()) done.wait(now);
    struct Next {  // also where f throws: nobody may wait for ever
      std::atomic<Index>& done;
      ~Next() {
        ++done;
        done.notify_all();
      }
    } next{done};
    f();
  }

 private:
  std::array<std::atomic<Index>, lanes> done_ = {};
};

/// The training pass over a batch. Groups are dealt out to lanes, which have copies of the
/// adapters: their gradients are added up in the lanes' order at the end.
template <Real T>
class LlamaTraining {
 public:
  /// Those of adapters that have changed other than in their numbers.
  void forget_adapters() { lanes_.clear(); }
  void forget_memory() {
    pool_.clear();
    lanes_.clear();
    step_.clear();
  }

  /// Adds to the gradients of `set`, of which `parts` are; all or nothing.
  LossSum run(const LlamaParts<T>& parts, LlamaAdapterSet<T>& set, const Batch& batch,
              double weight, Keep keep, const DropoutStream& dropout) {
    groups_.cut(batch, !worth_copies(parts, set, batch));
    const SequenceGroups& groups = groups_;
    if (groups.size() == 1) {
      LossSum loss;
      pool_.borrow([&](auto& item) {
        item.work.first_position = 0;
        GradientGuard<T> guard([&](const auto& f) { set.visit(f); }, gradients_);
        loss = run_group(parts, set, batch, weight, keep, dropout, item.work);
        guard.release();
      });
      return loss;
    }
    const Index lanes = std::min(most_lanes, groups.size());
    prepare_lanes(set, lanes);
    // Also where layers are computed again, whose gradients are the same bits.
    const bool stepped =
        StepWeights<T>::fits(parts.config, parts.tensors, SequenceGroups::rows_wanted) &&
        StepWeights<T>::possible(parts);
    stepped ? step_.make(parts) : step_.clear();
    losses_.assign(static_cast<std::size_t>(groups.size()), {});
    Turns<most_lanes> turns;
    parallel_pieces(groups.size(), 1, [&](Index group, Index) {
      turns.take(group % lanes, group / lanes, [&] {
        LlamaAdapterSet<T>& copy = lanes_[static_cast<std::size_t>(group % lanes)];
        LlamaParts<T> own = parts;
        own.set = &copy;
        own.step = stepped ? &step_ : nullptr;
        pool_.borrow([&](auto& item) {
          item.work.first_position = groups.copy(batch, group, item.batch);
          losses_[static_cast<std::size_t>(group)] =
              run_group(own, copy, item.batch, weight, keep, dropout, item.work);
        });
      });
    });
    add_gradients(set, lanes);
    LossSum total;
    for (const LossSum& loss : losses_) total += loss;
    return total;
  }

 private:
  static constexpr Index most_lanes = 8;

  static LossSum run_group(const LlamaParts<T>& parts, LlamaAdapterSet<T>& set, const Batch& batch,
                           double weight, Keep keep, const DropoutStream& dropout,
                           LlamaWorkspace<T>& work) {
    LlamaNeeds& needs = work.needs;
    needs.find(parts);
    LlamaForward<T>(parts, work, &dropout).run(batch, needs, keep, nullptr);
    LlamaBackward<T> backward(parts, set, work, &dropout);
    const LossSum loss =
        head_loss(parts, work, batch, &dropout, &backward, &set, weight, needs.hidden);
    backward.run(batch, needs, keep);
    return loss;
  }

  /// Whether the copies take less memory than the activations that need not be kept.
  [[nodiscard]] static bool worth_copies(const LlamaParts<T>& parts, LlamaAdapterSet<T>& set,
                                         const Batch& batch) {
    Index parameters = 0;
    set.visit([&](std::string_view, const Parameter<T>& p) { parameters += p.value.size(); });
    return 2 * most_lanes * parameters <= kept_numbers(parts.config) * batch.positions();
  }

  /// The adapters' numbers of now, in memory that is there once a batch has had as many lanes.
  void prepare_lanes(LlamaAdapterSet<T>& set, Index count) {
    while (std::ssize(lanes_) < count) lanes_.push_back(set);
    for (LlamaAdapterSet<T>& lane : first_lanes(count)) {
      for_each_pair(set, lane, [](const Parameter<T>& from, Parameter<T>& to) {
        to.value = from.value;
        to.gradient.setZero();
      });
    }
  }

  void add_gradients(LlamaAdapterSet<T>& set, Index count) {
    // Nothing can fail once all of them are there.
    set.visit([](std::string_view, Parameter<T>& p) { (void)gradient_of(p); });
    for (LlamaAdapterSet<T>& lane : first_lanes(count)) {
      for_each_pair(lane, set, [](const Parameter<T>& from, Parameter<T>& to) {
        if (from.gradient.size() != 0) to.gradient += from.gradient;
      });
    }
  }

  /// A batch of fewer groups than one before leaves the other lanes for the next.
  [[nodiscard]] std::span<LlamaAdapterSet<T>> first_lanes(Index count) {
    return std::span(lanes_).first(static_cast<std::size_t>(count));
  }

  /// The parameters of two sets that are copies of each other.
  template <class F>
  static void for_each_pair(LlamaAdapterSet<T>& from, LlamaAdapterSet<T>& to, const F& f) {
    for (std::size_t place = 0; place < from.linear.size(); ++place) {
      if (from.linear[place]) {
        const auto& sources = from.linear[place]->adapter.parameters();
        const auto& targets = to.linear[place]->adapter.parameters();
        for (std::size_t i = 0; i < sources.size(); ++i) {
          f(*sources[i].parameter, *targets[i].parameter);
        }
      } else if (from.trained[place]) {
        f(from.trained[place]->parameter, to.trained[place]->parameter);
      }
    }
  }

  WorkspacePool<T> pool_;
  std::vector<LlamaAdapterSet<T>> lanes_;
  StepWeights<T> step_;
  SequenceGroups groups_;
  std::vector<LossSum> losses_;
  GradientCopies<T> gradients_;
};

}  // namespace mora::inline MORA_ABI::detail
