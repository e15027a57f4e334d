// SPDX-License-Identifier: MIT
#pragma once

#include <benchmark/benchmark.h>

#include <functional>
#include <iostream>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "capacity/shared.hpp"
#include "experiment/plan.hpp"

namespace capacity {

/// A reporter that shows nothing.
class SilentReporter : public benchmark::BenchmarkReporter {
 public:
  SilentReporter() : nowhere_(nullptr) {
    SetOutputStream(&nowhere_);
    SetErrorStream(&nowhere_);
  }
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>&) override {}

 private:
  std::ostream nowhere_;
};

/// The registered benchmarks. Google Benchmark goes through those that its filter selects twice:
/// first each adds its jobs to the plan, then, when all cores together have done the jobs, each
/// reports its figures as counters, and as its time the mean time of a run.
class Suite {
 public:
  using AddJobs = std::function<void(Plan&)>;
  using Report = std::function<double(benchmark::UserCounters&)>;  ///< Returns seconds.

  void add(const std::string& name, AddJobs add_jobs, Report report) {
    const auto body = [this, add_jobs = std::move(add_jobs),
                       report = std::move(report)](benchmark::State& state) {
      double seconds = 0;
      if (planning_) {
        add_jobs(plan_);
      } else {
        seconds = report(state.counters);
      }
      for (auto _ : state) state.SetIterationTime(seconds);
    };
    benchmark::RegisterBenchmark(name.c_str(), body)
        ->Iterations(1)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  }

  /// The names that the filter selects, on stdout.
  void list() { benchmark::RunSpecifiedBenchmarks(); }

  /// `quiet`: the console shows nothing of Google Benchmark's, as tables follow.
  void run(int threads, bool quiet) {
    SilentReporter silent;
    SilentReporter silent_file;
    planning_ = true;
    // Google Benchmark refuses a reporter for a file that no --benchmark_out names.
    benchmark::RunSpecifiedBenchmarks(&silent, &silent_file);
    planning_ = false;
    plan_.run(threads, std::cerr);
    benchmark::RunSpecifiedBenchmarks(quiet ? &silent : nullptr);
  }

 private:
  Plan plan_;
  bool planning_ = true;
};

}  // namespace capacity
