// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <functional>
#include <ostream>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "experiment/table.hpp"

namespace experiment {

/// A piece of work that depends on no other of its stage.
struct Job {
  std::string name;           ///< Unique; a job that is planned already is not added again.
  double cost = 0;            ///< Roughly, in seconds of a core.
  std::function<void()> run;  ///< Called once, from any thread; writes to a place of its own.
};

/// Jobs of the second stage need results of the first.
enum class Stage { first, second };

/// Runs the jobs of all benchmarks together, one a core: single jobs are too small to share.
class Plan {
 public:
  void add(Stage stage, Job job) {
    if (!names_.insert(job.name).second) return;
    total_ += job.cost;
    ++count_;
    jobs_[static_cast<std::size_t>(stage)].push_back(std::move(job));
  }

  /// Longest jobs first. What a job throws is thrown here after the others have ended.
  void run(int threads, std::ostream& log) {
    if (count_ == 0) return;
    log << count_ << " runs on " << threads << (threads == 1 ? " thread" : " threads")
        << ", roughly " << duration(total_ / threads) << '\n';
    start_ = printed_ = Clock::now();
    for (std::vector<Job>& stage : jobs_) {
      std::stable_sort(stage.begin(), stage.end(),
                       [](const Job& a, const Job& b) { return a.cost > b.cost; });
      run_stage(stage, threads, log);
    }
    log << "done in " << duration(seconds_since(start_)) << std::endl;
  }

 private:
  using Clock = std::chrono::steady_clock;

  static double seconds_since(Clock::time_point time) {
    return std::chrono::duration<double>(Clock::now() - time).count();
  }
  static std::string duration(double seconds) {
    const auto whole = static_cast<long long>(seconds + 0.5);
    if (whole < 60) return std::to_string(whole) + " s";
    return std::to_string(whole / 60) + " min " + std::to_string(whole % 60) + " s";
  }

  void run_stage(const std::vector<Job>& jobs, [[maybe_unused]] int threads, std::ostream& log) {
    std::exception_ptr failure;
#if defined(_OPENMP)
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
#endif
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      try {
        jobs[i].run();
      } catch (...) {
#if defined(_OPENMP)
#pragma omp critical(experiment_plan)
#endif
        failure = std::current_exception();
      }
#if defined(_OPENMP)
#pragma omp critical(experiment_plan)
#endif
      report(jobs[i], log);
    }
    if (failure) std::rethrow_exception(failure);
  }

  void report(const Job& job, std::ostream& log) {
    done_ += job.cost;
    ++ended_;
    if (seconds_since(printed_) < 5.0) return;
    printed_ = Clock::now();
    const double elapsed = seconds_since(start_);
    log << number("%3.0f", 100.0 * done_ / total_) << " %, " << ended_ << " of " << count_
        << " runs, about " << duration(elapsed * (total_ - done_) / done_) << " left; " << job.name
        << std::endl;
  }

  std::array<std::vector<Job>, 2> jobs_;
  std::set<std::string> names_;
  double total_ = 0;
  double done_ = 0;
  std::size_t count_ = 0;
  std::size_t ended_ = 0;
  Clock::time_point start_;
  Clock::time_point printed_;
};

}  // namespace experiment
