// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <mora/adapters/linear.hpp>
#include <mora/core/concurrent_use.hpp>
#include <mora/models/llama/llama.hpp>
#include <string_view>
#include <thread>
#include <utility>

#include "support/llama.hpp"
#include "support/misuse.hpp"
#include "support/throws.hpp"

/// \file
/// Cases 78 and 79: calls that need an object to themselves, beside others.

namespace mora_tests {
namespace {

using mora::StateError;
using mora::detail::Access;
using Counted = mora::detail::ConcurrentUse<true>;
using InUse = mora::detail::InUse<true>;

/// Calls `during()` while another thread is inside `call`, in the moment of its `pause()`.
void meanwhile(const std::function<void(const std::function<void()>& pause)>& call,
               const std::function<void()>& during) {
  std::atomic<bool> inside{false};
  std::atomic<bool> go_on{false};
  std::thread other([&] {
    call([&] {
      inside = true;
      while (!go_on) std::this_thread::yield();
    });
  });
  while (!inside) std::this_thread::yield();
  const auto end = [&] {
    go_on = true;
    other.join();
  };
  try {
    during();
  } catch (...) {
    end();
    throw;
  }
  end();
}

TEST(ConcurrentUse, IsOfAnyNumberThatReadOrOneThatChanges) {
  Counted use;
  const auto begin = [&](Access access) { return [&use, access] { InUse(use, access, "call"); }; };
  const auto held = [&](Access access) {
    return [&use, access](const std::function<void()>& pause) {
      const InUse in_use(use, access, "other");
      pause();
    };
  };
  meanwhile(held(Access::reading), [&] {
    EXPECT_NO_THROW(begin(Access::reading)());
    EXPECT_TRUE(throws<StateError>({"call", "reading the object"}, begin(Access::changing)));
    EXPECT_NO_THROW(begin(Access::reading)());
  });
  EXPECT_NO_THROW(begin(Access::changing)());
  meanwhile(held(Access::changing), [&] {
    EXPECT_TRUE(throws<StateError>({"call", "changing the object"}, begin(Access::reading)));
    EXPECT_TRUE(throws<StateError>({"call", "changing the object"}, begin(Access::changing)));
    Counted copy(use);  // of its own
    EXPECT_NO_THROW(InUse(copy, Access::changing, "call"));
  });
  EXPECT_NO_THROW(begin(Access::reading)());
  EXPECT_NO_THROW(begin(Access::changing)());
}

TEST(ConcurrentUse, InsideACallThatChangesIsAPartOfIt) {
  Counted use;
  {
    const InUse outer(use, Access::changing, "outer");
    { const InUse inner(use, Access::changing, "inner"); }
    EXPECT_NO_THROW(InUse(use, Access::reading, "inner"));
    std::thread([&] {
      EXPECT_TRUE(throws<StateError>({"changing"}, [&] { InUse(use, Access::reading, "x"); }));
    }).join();
  }
  EXPECT_NO_THROW(InUse(use, Access::changing, "after"));
}

TEST(ConcurrentUse, InsideACallThatReadsMayOnlyRead) {
  Counted use;
  const InUse outer(use, Access::reading, "outer");
  EXPECT_NO_THROW(InUse(use, Access::reading, "inner"));
  EXPECT_TRUE(throws<StateError>({"inner", "another call is reading"},
                                 [&] { InUse(use, Access::changing, "inner"); }));
}

/// Whether builds with asserts refuse the call; where nothing is counted it is not made, as it
/// would be a data race.
void expect_noticed(const Call& call) {
  if constexpr (mora::detail::notices_concurrent_use) {
    EXPECT_TRUE(throws<StateError>({"another call"}, call));
  }
}

TEST(ConcurrentUse, OfALayerIsNoticed) {
  using Layer = mora::MoraLinear<float>;
  Layer layer = make_layer<Layer>(9, 7, 2);
  const auto x = random_numbers<float>(3, 9);
  const mora::Matrix<float> expected = layer.forward(x);
  const Layer::AdapterType fresh(layer.base(), {.rank = 2});
  const auto paused = [](auto& visited) {
    return [&visited](const std::function<void()>& pause) {
      visited.visit_parameters([&](std::string_view, const auto&) { pause(); });
    };
  };
  meanwhile(paused(std::as_const(layer)), [&] {
    EXPECT_TRUE(same_bits(layer.forward(x), expected));
    expect_noticed([&] { layer.merge(); });
    expect_noticed([&] { layer.unmerge(); });
    expect_noticed([&] { layer.restart(fresh); });
    expect_noticed([&] { layer.visit_parameters([](auto, auto&) {}); });
    mora::Matrix<float> target = layer.base().weight();
    expect_noticed([&] { layer.merge_into(target); });
    Layer::Saved saved;
    (void)layer.forward(x, saved);
    expect_noticed([&] { (void)layer.backward(expected, saved); });
    expect_noticed([&] { layer.backward_parameters(expected, saved); });
    mora::Matrix<float> dx(3, 9);
    expect_noticed([&] { layer.backward(expected, saved, dx); });
  });
  EXPECT_FALSE(layer.merged());
  meanwhile(paused(layer), [&] {
    expect_noticed([&] { (void)layer.forward(x); });
    mora::Matrix<float> y(3, 7);
    expect_noticed([&] { layer.forward(x, y); });
    expect_noticed([&] { (void)layer.update(); });
    expect_noticed([&] { layer.merge(); });
  });
  EXPECT_TRUE(layer.merge());
  EXPECT_TRUE(near(layer.forward(x), expected));
}

TEST(ConcurrentUse, OfAModelIsNoticed) {
  auto model = random_model<double>();
  attach(model, "a", Kind::rotation, {.all_linear = true});
  const Batch batch = random_batch();
  const mora::Matrix<double> expected = model.logits(batch);
  // One parameter is enough.
  const auto paused = [](auto& visited) {
    return [&visited](const std::function<void()>& pause) {
      bool done = false;
      visited.visit_parameters([&](std::string_view, const auto&) {
        if (!std::exchange(done, true)) pause();
      });
    };
  };
  meanwhile(paused(std::as_const(model)), [&] {
    EXPECT_TRUE(same_bits(model.logits(batch), expected));
    expect_noticed([&] { model.merge(); });
    expect_noticed([&] { model.unmerge(); });
    expect_noticed([&] { model.detach("a"); });
    expect_noticed([&] { model.deactivate(); });
    expect_noticed([&] { model.activate("a"); });
    expect_noticed([&] { attach(model, "b", Kind::sharing, {.all_linear = true}); });
    expect_noticed([&] { model.set_weights(model.weights()); });
    expect_noticed([&] { model.set_recompute(true); });
    expect_noticed([&] { model.set_dropout({}); });
    expect_noticed([&] { (void)model.accumulate_gradients(batch, 1.0); });
  });
  EXPECT_EQ(model.active(), "a");
  EXPECT_TRUE(same_bits(model.logits(batch), expected));
  meanwhile(paused(model), [&] {
    expect_noticed([&] { (void)model.logits(batch); });
    expect_noticed([&] { (void)model.loss(batch); });
    expect_noticed([&] { (void)model.attached("a"); });
    expect_noticed([&] { model.merge(); });
    auto cache = model.cache();
    mora::RowVector<double> logits;
    expect_noticed([&] { model.next_logits(Tokens{1}, cache, logits); });
  });
  EXPECT_TRUE(model.merge());
}

}  // namespace
}  // namespace mora_tests
