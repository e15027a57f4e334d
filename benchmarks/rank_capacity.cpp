// SPDX-License-Identifier: MIT
//
// What adapters with a given number of trainable parameters can learn: LoRA, MoRA with each of its
// operators, and full training.
//
//   capacity/...                       parameters, rank and effective rank for common layer shapes
//   learning_rate/..., memorise/...    how much of random UUID pairs they can remember
//   approximate/...                    how close they can come to a given matrix
//
// Every figure is a counter of a Google Benchmark. Tables go to the console, results.json and CSV
// files to the results folder; scripts/plot_capacity.py draws those.

#include <benchmark/benchmark.h>

#include <exception>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "capacity/approximate_report.hpp"
#include "capacity/memorise_conclusion.hpp"
#include "capacity/memorise_files.hpp"
#include "capacity/options.hpp"
#include "capacity/shapes_report.hpp"
#include "mora/version.hpp"

namespace {

/// Google Benchmark's part of the command line; it keeps pointers to the arguments. False when
/// there is something unknown among them.
bool initialize_benchmark(std::vector<std::string>& arguments) {
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  int count = static_cast<int>(pointers.size());
  pointers.push_back(nullptr);
  benchmark::Initialize(&count, pointers.data());
  return !benchmark::ReportUnrecognizedArguments(count, pointers.data());
}

int run(const capacity::Options& options, const char* program) {
  if (!options.list) std::filesystem::create_directories(options.out);
  std::vector<std::string> arguments = options.others;
  // The name alone: it is written into results.json.
  arguments.insert(arguments.begin(), std::filesystem::path(program).filename().string());
  if (!initialize_benchmark(arguments)) return 1;
  benchmark::AddCustomContext("mora_version", std::to_string(mora::version_major) + "." +
                                                  std::to_string(mora::version_minor) + "." +
                                                  std::to_string(mora::version_patch));
  benchmark::AddCustomContext("grid", options.full ? "full" : "default");

  capacity::Suite suite;
  capacity::Shapes shapes(options.full);
  capacity::Memorise memorise(capacity::memory_grid(options.full));
  capacity::Approximate approximate(options.full);
  const auto for_each_part = [&](const auto& f) {
    f(shapes);
    f(approximate);
    f(memorise);
  };
  for_each_part([&](auto& part) { part.add_methods(suite); });

  if (options.list) {
    suite.list();
    return 0;
  }
  suite.run(options.threads, options.tables);

  for_each_part([&](const auto& part) { write_csv(part, options.out); });
  std::ostream& tables = options.tables ? std::cout : std::cerr;
  for_each_part([&](const auto& part) { print(part, tables); });
  conclude(approximate, tables);
  conclude(memorise, tables);
  tables << "\nResults: " << options.out << '\n';
  benchmark::Shutdown();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const capacity::Options options = capacity::parse_options(argc, argv);
    if (options.help) {
      std::cout << capacity::usage;
      return 0;
    }
    return run(options, argv[0]);
  } catch (const std::exception& error) {
    std::cerr << "rank_capacity: " << error.what() << '\n';
    return 1;
  }
}
