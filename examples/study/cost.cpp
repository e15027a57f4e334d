// SPDX-License-Identifier: MIT
#include "study/cost.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "mora/train/batches.hpp"
#include "mora/train/train.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace study {

namespace {

/// Memory in use, of all that was ever allocated.
[[nodiscard]] double mib_in_use() {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
  const struct mallinfo2 info = mallinfo2();
  return static_cast<double>(info.uordblks + info.hblkhd) / double(1 << 20);
#else
  return 0.0;
#endif
}

[[nodiscard]] double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// One that trains on, at a rate that changes next to nothing.
class Contender {
 public:
  Contender(const Grid& grid, const Task& task, const Case& c)
      : model_(start_of_run(task, experiment::decoder_method(c.method), settings(c))),
        optimizer_(experiment::decoder_method(c.method).make_optimizer(settings(c).learning_rate)),
        batches_(task.train, {.batch_size = grid.training.batch}) {}

  [[nodiscard]] double milliseconds(Index steps) {
    const auto begin = std::chrono::steady_clock::now();
    mora::train(model_, optimizer_, mora::ConstantSchedule{}, batches_,
                {.steps = steps, .clip_norm = 1.0});
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
    return time.count() / double(steps);
  }

 private:
  static RunSettings settings(const Case& c) {
    return {.rank = c.rank, .learning_rate = 1e-6, .seed = 1};
  }
  Model model_;
  Optimizer optimizer_;
  mora::Batches<Examples> batches_;
};

}  // namespace

std::map<Case, Cost> measure_costs(const Grid& grid, const Task& task) {
#if defined(_OPENMP)
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
#endif
  const std::vector<Case> cases = cases_of(grid);
  std::map<Case, Cost> costs;
  std::vector<std::unique_ptr<Contender>> contenders;
  for (const Case& c : cases) {
    const double before = mib_in_use();
    contenders.push_back(std::make_unique<Contender>(grid, task, c));
    (void)contenders.back()->milliseconds(2);
    costs[c].mib = mib_in_use() - before;
  }
  constexpr int rounds = 7;
  constexpr Index steps = 4;
  std::map<Case, std::vector<double>> times, ratios;
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < cases.size(); ++i) {
      times[cases[i]].push_back(contenders[i]->milliseconds(steps));
      ratios[cases[i]].push_back(times[cases[i]].back() / times[cases.front()].back());
    }
  }
  for (const Case& c : cases) {
    costs[c].step_ms = median(times[c]);
    costs[c].times_first = median(ratios[c]);
  }
#if defined(_OPENMP)
  omp_set_num_threads(threads);
#endif
  return costs;
}

}  // namespace study
