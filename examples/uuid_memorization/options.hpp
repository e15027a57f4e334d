// SPDX-License-Identifier: MIT
#pragma once

#include <charconv>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "mora/core/error.hpp"
#include "mora/core/parallel.hpp"
#include "uuid_memorization/grid.hpp"

namespace uuid_memorization {

struct Options {
  bool help = false;
  std::string out = "results";
  std::string cache;  ///< Empty: like `out`.
  int threads = 1;
  Grid grid;

  [[nodiscard]] const std::string& cache_folder() const { return cache.empty() ? out : cache; }
};

inline constexpr const char* usage =
    R"(How many random UUID pairs a frozen LLaMA learns through LoRA, MoRA's operators and full training.

  uuid_memorization [--full | --tiny] [--out=FOLDER] [--cache=FOLDER] [--threads=N] [...]

  --full          all methods, four budgets, four set sizes (within 2 hours on 2 cores) in place of
                  the default (minutes)
  --tiny          seconds, to see that it works
  --out=FOLDER    where the CSV files go (default: results); when interrupted, the same command
                  goes on with what unfinished_runs.txt there has
  --cache=FOLDER  where the trained base is kept (default: that of --out)
  --threads=N     runs at a time (default: one a core, as OpenMP counts them)

Parts of the grid, each over what the grid has:
  --methods=lora,sharing,rotation,full   and truncation, decoupling, covering_rotation,
                  random_sharing, adjacent_sharing, adjacent_strided, strided_adjacent
  --ranks=2,8     LoRA's, whose number of parameters all methods get
  --pairs=32,64   set sizes; rates are searched at the one in --search-pairs=N
  --rates=0.003,0.01   ascending
  --seeds=N       of the results; --steps=N of training; --base-steps=N of the base's
)";

namespace detail {

template <class Number>
[[nodiscard]] Number parse_number(std::string_view name, std::string_view text, Number least) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || !(number >= least)) {
    throw mora::ArgumentError(mora::detail::concat(name, ": expected a number of at least ", least,
                                                   ", found '", text, "'"));
  }
  return number;
}

/// The parts between commas, each of which is there.
[[nodiscard]] inline std::vector<std::string_view> parse_list(std::string_view name,
                                                              std::string_view text) {
  std::vector<std::string_view> parts;
  for (bool more = true; more;) {
    const std::size_t comma = text.find(',');
    more = comma != std::string_view::npos;
    parts.push_back(text.substr(0, comma));
    if (parts.back().empty()) {
      throw mora::ArgumentError(
          mora::detail::concat(name, ": expected values with commas between them"));
    }
    if (more) text.remove_prefix(comma + 1);
  }
  return parts;
}

template <class Number>
[[nodiscard]] std::vector<Number> parse_ascending(std::string_view name, std::string_view text,
                                                  Number least) {
  std::vector<Number> numbers;
  for (const std::string_view part : parse_list(name, text)) {
    const Number number = parse_number(name, part, least);
    if (!numbers.empty() && !(number > numbers.back())) {
      throw mora::ArgumentError(mora::detail::concat(name, ": expected ascending numbers, found ",
                                                     number, " behind ", numbers.back()));
    }
    numbers.push_back(number);
  }
  return numbers;
}

}  // namespace detail

/// Throws mora::ArgumentError for an option that is not there or a value that cannot be.
[[nodiscard]] inline Options parse_options(int argc, const char* const* argv) {
  Options options;
  options.threads = static_cast<int>(mora::detail::thread_count());
  options.grid = quick_grid();
  // Whatever the order, a part is over the grid.
  for (int i = 1; i < argc; ++i) {
    if (argv[i] == std::string_view("--full")) options.grid = full_grid();
    if (argv[i] == std::string_view("--tiny")) options.grid = tiny_grid();
  }
  Grid& grid = options.grid;
  bool search_given = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const std::string_view name = argument.substr(0, argument.find('='));
    const auto value = [&]() -> std::string_view {
      if (name.size() < argument.size()) return argument.substr(name.size() + 1);
      if (i + 1 == argc) throw mora::ArgumentError(std::string(name) + " needs a value");
      return argv[++i];
    };
    if (argument == "--full" || argument == "--tiny") continue;
    if (argument == "--help" || argument == "-h") {
      options.help = true;
    } else if (name == "--out") {
      options.out = value();
      if (options.out.empty()) throw mora::ArgumentError("--out needs a folder");
    } else if (name == "--cache") {
      options.cache = value();
    } else if (name == "--threads") {
      options.threads = detail::parse_number<int>(name, value(), 1);
    } else if (name == "--methods") {
      grid.methods.clear();
      for (const auto method : detail::parse_list(name, value())) grid.methods.emplace_back(method);
    } else if (name == "--ranks") {
      grid.ranks = detail::parse_ascending<Index>(name, value(), 1);
    } else if (name == "--pairs") {
      grid.pairs = detail::parse_ascending<Index>(name, value(), 1);
      if (!search_given) grid.search_pairs = grid.pairs[(grid.pairs.size() - 1) / 2];
    } else if (name == "--search-pairs") {
      grid.search_pairs = detail::parse_number<Index>(name, value(), 1);
      search_given = true;
    } else if (name == "--rates") {
      grid.rates = detail::parse_ascending<double>(name, value(), 0.0);
    } else if (name == "--seeds") {
      grid.seeds = detail::parse_number<int>(name, value(), 1);
    } else if (name == "--steps") {
      grid.training.steps = detail::parse_number<Index>(name, value(), 1);
    } else if (name == "--base-steps") {
      grid.base.steps = detail::parse_number<Index>(name, value(), 1);
    } else {
      throw mora::ArgumentError("no option is called '" + std::string(argument) + "'; see --help");
    }
  }
  return options;
}

}  // namespace uuid_memorization
