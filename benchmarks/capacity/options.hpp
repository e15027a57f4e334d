// SPDX-License-Identifier: MIT
#pragma once

#include <charconv>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "mora/core/parallel.hpp"

namespace capacity {

/// The command line: what is ours, and the rest for Google Benchmark.
struct Options {
  bool full = false;
  bool help = false;
  std::string out = "results";
  int threads = 1;
  bool tables = true;  ///< On stdout; otherwise something else has it: JSON, CSV or a list.
  bool list = false;   ///< Only the names.
  std::vector<std::string> others;  ///< Of Google Benchmark, --benchmark_out among them.
};

inline constexpr const char* usage =
    R"(What adapters with a given number of parameters can learn: LoRA, MoRA's operators, full training.

  rank_capacity [--full] [--out=FOLDER] [--threads=N] [--benchmark_...]

  --full        the large grid (about an hour on 2 cores) in place of the default (3 minutes)
  --out=FOLDER  where results.json and the CSV files go (default: results)
  --threads=N   runs at a time (default: one a core, as OpenMP counts them)

Options of Google Benchmark work as usual, for example:
  --benchmark_list_tests                      the names of everything that is measured
  --benchmark_filter='memorise/(lora|rotation)/'   some of it
  --benchmark_format=json                     figures on stdout as JSON; the tables on stderr
)";

/// Throws std::invalid_argument for a value that cannot be.
[[nodiscard]] inline Options parse_options(int argc, char** argv) {
  Options options;
  options.threads = static_cast<int>(mora::detail::thread_count());
  std::string benchmark_out;
  const auto parse_threads = [&](std::string_view text) {
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), options.threads);
    if (error != std::errc{} || end != text.data() + text.size() || options.threads < 1) {
      throw std::invalid_argument("--threads needs a number of at least 1");
    }
  };
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const std::string_view name = argument.substr(0, argument.find('='));
    const auto value = [&]() -> std::string_view {
      if (name.size() < argument.size()) return argument.substr(name.size() + 1);
      if (i + 1 == argc) throw std::invalid_argument(std::string(name) + " needs a value");
      return argv[++i];
    };
    if (argument == "--full") {
      options.full = true;
    } else if (argument == "--help" || argument == "-h") {
      options.help = true;
    } else if (name == "--out") {
      options.out = value();
      if (options.out.empty()) throw std::invalid_argument("--out needs a folder");
    } else if (name == "--threads") {
      parse_threads(value());
    } else {
      if (name == "--benchmark_out") benchmark_out = argument;
      if (name == "--benchmark_format") options.tables = argument.ends_with("=console");
      if (name == "--benchmark_list_tests") options.list = !argument.ends_with("=false");
      options.others.emplace_back(argument);
    }
  }
  if (options.list) {
    options.tables = false;
  } else if (benchmark_out.empty()) {
    options.others.push_back("--benchmark_out=" + options.out + "/results.json");
    options.others.emplace_back("--benchmark_out_format=json");
  }
  return options;
}

}  // namespace capacity
