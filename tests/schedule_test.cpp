// SPDX-License-Identifier: MIT
#include <functional>
#include <limits>
#include <mora/optim/schedule.hpp>
#include <numbers>
#include <string>
#include <vector>

#include "support/fixture.hpp"
#include "support/misuse.hpp"
#include "support/not_finite.hpp"

/// \file
/// The schedules against transformers' tables, and at the edges that those do not have.

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::ConstantSchedule;
using mora::CosineSchedule;
using mora::JaggedSchedule;
using mora::LinearSchedule;
using mora::Matrix;

static_assert(mora::Schedule<ConstantSchedule> && mora::Schedule<LinearSchedule> &&
              mora::Schedule<CosineSchedule> && mora::Schedule<JaggedSchedule> &&
              mora::Schedule<std::function<double(Index)>>);

template <class S>
[[nodiscard]] mora::RowVector<double> table(const S& schedule, Index steps) {
  schedule.validate();
  mora::RowVector<double> factors(steps);
  for (Index step = 0; step < steps; ++step) factors(step) = schedule(step);
  return factors;
}

TEST(Schedule, HasTransformersFactors) {
  const Fixture fixture("schedules.safetensors");
  const auto whole = [&](const std::string& name) {
    return fixture.integer(name + ".num_training_steps");
  };
  const auto warm_up = [&](const std::string& name) {
    return fixture.integer(name + ".num_warmup_steps");
  };
  const auto expect_table = [&](const std::string& name, const auto& schedule) {
    EXPECT_TRUE(near(table(schedule, 40), fixture.tensor(name))) << name;
  };
  expect_table("constant", ConstantSchedule{.warm_up = warm_up("constant")});
  expect_table("linear", LinearSchedule{.steps = whole("linear"), .warm_up = warm_up("linear")});
  expect_table("cosine", CosineSchedule{.steps = whole("cosine"), .warm_up = warm_up("cosine")});
  expect_table("cosine_min", CosineSchedule{.steps = whole("cosine_min"),
                                            .warm_up = warm_up("cosine_min"),
                                            .minimum = fixture.number("cosine_min.min_lr_rate")});
  expect_table("jagged",
               JaggedSchedule{.steps = whole("jagged"),
                              .warm_up = warm_up("jagged"),
                              .restart_every = fixture.integer("jagged.restart_every"),
                              .restart_warm_up = fixture.integer("jagged.restart_warmup_steps"),
                              .minimum = fixture.number("jagged.min_lr_rate")});
}

// By hand: the cosine is at 1, 3/4, 1/2, 1/4 and 0 of its way down where it is at 0, 60, 90, 120
// and 180 degrees.
TEST(Schedule, HasFactorsThatAHandCanCompute) {
  const CosineSchedule cosine{.steps = 8, .warm_up = 2, .minimum = 0.2};
  const auto down = [](double way) { return 0.2 + 0.8 * way; };
  mora::RowVector<double> expected(9);
  expected << 0.0, 0.5, 1.0, 0.5 + 0.25 * std::sqrt(3.0), 0.75, 0.5, 0.25,
      0.5 - 0.25 * std::sqrt(3.0), 0.0;
  for (Index step = 2; step < 9; ++step) expected(step) = down(expected(step));
  EXPECT_TRUE(near(table(cosine, 9), expected));

  const JaggedSchedule jagged{
      .steps = 8, .warm_up = 2, .restart_every = 4, .restart_warm_up = 2, .minimum = 0.2};
  expected(4) = 0.0;
  expected(5) = 0.5 * expected(6);
  EXPECT_TRUE(near(table(jagged, 8), expected.leftCols(8)));

  mora::RowVector<double> line(7);
  line << 0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0;
  EXPECT_TRUE(near(table(LinearSchedule{.steps = 6, .warm_up = 2}, 7), line));
}

TEST(Schedule, StaysAtItsEndAfterTheRun) {
  const Index far = std::numeric_limits<Index>::max();
  for (const Index step : {Index{10}, Index{11}, Index{1000}, far}) {
    EXPECT_EQ((LinearSchedule{.steps = 10, .warm_up = 3}(step)), 0.0);
    EXPECT_TRUE(near<double>(CosineSchedule{.steps = 10, .minimum = 0.1}(step), 0.1, 1.0));
    EXPECT_EQ(ConstantSchedule{.warm_up = 3}(step), 1.0);
  }
}

TEST(Schedule, MayHaveNoWarmUpOrNothingElse) {
  EXPECT_EQ(ConstantSchedule{}(0), 1.0);
  EXPECT_EQ(LinearSchedule{.steps = 5}(0), 1.0);
  EXPECT_EQ(CosineSchedule{.steps = 5}(0), 1.0);
  const LinearSchedule only_warm_up{.steps = 4, .warm_up = 4};
  mora::RowVector<double> expected(5);
  expected << 0.0, 0.25, 0.5, 0.75, 0.0;
  EXPECT_TRUE(near(table(only_warm_up, 5), expected));
}

// Between the restarts it is the cosine, and without a warm-up of its own everywhere.
TEST(Schedule, IsTheCosineBetweenRestarts) {
  for (const Index warm_up : {0, 2, 7, 20}) {
    const CosineSchedule cosine{.steps = 90, .warm_up = warm_up, .minimum = 0.1};
    JaggedSchedule jagged{
        .steps = 90, .warm_up = warm_up, .restart_every = 20, .restart_warm_up = 4};
    for (Index step = 0; step < 95; ++step) {
      const Index since = step % 20;
      if (step < 20 || since >= 4) {
        EXPECT_EQ(jagged(step), cosine(step)) << step;
      } else {
        const double expected = double(since) / 4 * cosine(step - since + 4);
        EXPECT_TRUE(near<double>(jagged(step), expected, 1.0)) << step;
      }
    }
    jagged.restart_warm_up = 0;
    EXPECT_TRUE(same_bits(table(jagged, 95), table(cosine, 95)));
  }
}

TEST(Schedule, RefusesSettingsOutOfRange) {
  const auto refused = [](const auto& schedule, std::initializer_list<std::string_view> parts) {
    EXPECT_TRUE(throws<ArgumentError>(parts, [&] { schedule.validate(); }));
  };
  refused(ConstantSchedule{.warm_up = -1}, {"warm_up", "0", "-1"});
  refused(LinearSchedule{.steps = 0}, {"steps", "1", "found 0"});
  refused(LinearSchedule{.steps = 5, .warm_up = 6}, {"warm_up", "found 6"});
  refused(CosineSchedule{.steps = 5, .warm_up = -2}, {"warm_up", "found -2"});
  for (const double minimum : {-0.1, 1.1, nan<double>}) {
    refused(CosineSchedule{.steps = 5, .minimum = minimum}, {"minimum"});
    refused(JaggedSchedule{.steps = 5, .minimum = minimum}, {"minimum"});
  }
  refused(JaggedSchedule{.steps = 0, .restart_every = 5}, {"steps", "1", "found 0"});
  refused(JaggedSchedule{.steps = 3, .warm_up = 4, .restart_every = 5},
          {"warm_up", "3", "found 4"});
  refused(JaggedSchedule{.steps = 9, .restart_every = 0}, {"restart_every", "found 0"});
  refused(JaggedSchedule{.steps = 9, .warm_up = 4, .restart_every = 3}, {"warm_up", "found 4"});
  refused(JaggedSchedule{.steps = 9, .restart_every = 3, .restart_warm_up = 3},
          {"restart_warm_up", "found 3"});
}

// Nobody has to call validate().
TEST(Schedule, RefusesToGiveAFactorOutOfRange) {
  const auto refused = [](const auto& schedule, Index step,
                          std::initializer_list<std::string_view> parts) {
    EXPECT_TRUE(throws<ArgumentError>(parts, [&] { (void)schedule(step); }));
  };
  refused(ConstantSchedule{.warm_up = -1}, 5, {"warm_up", "found -1"});
  refused(LinearSchedule{.steps = 0}, 5, {"steps", "found 0"});
  refused(CosineSchedule{.steps = 5, .warm_up = 6}, 5, {"warm_up", "found 6"});
  refused(JaggedSchedule{.restart_every = 0}, 5, {"restart_every", "found 0"});
  refused(ConstantSchedule{}, -1, {"step", "found -1"});
  refused(LinearSchedule{}, -1, {"step", "found -1"});
  refused(CosineSchedule{}, -1, {"step", "found -1"});
  refused(JaggedSchedule{}, -1, {"step", "found -1"});
}

TEST(Schedule, CountsToTheLastNumber) {
  const Index far = std::numeric_limits<Index>::max();
  const LinearSchedule linear{.steps = far, .warm_up = far};
  EXPECT_NO_THROW(linear.validate());
  EXPECT_EQ(linear(far), 0.0);
  // The end of the run, in the warm-up after a restart that has no end.
  for (const Index left : {1, 2, 3}) {
    const Index every = far / 2 - 1;  // far = 2 every + 3
    const JaggedSchedule jagged{.steps = 9,
                                .warm_up = 0,
                                .restart_every = every,
                                .restart_warm_up = 3 + left,
                                .minimum = 0.5};
    const double part = 3.0 / static_cast<double>(3 + left);
    EXPECT_TRUE(near<double>(jagged(far), part * 0.5, 1.0)) << left;
  }
}

}  // namespace
}  // namespace mora_tests
