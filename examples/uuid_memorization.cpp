// SPDX-License-Identifier: MIT
//
// The paper's experiment on memory at the size of a CPU: how many random pairs of UUIDs a frozen
// LLaMA learns through LoRA, through MoRA with each of its operators, and by full training, at the
// same number of trainable parameters and steps, with each method's learning rate searched.
//
//   uuid_memorization --out=results
//
// The frozen model is trained here first, on other pairs, and kept in a file. Tables go to the
// console and CSV files to the folder; scripts/plot_uuid.py draws those and fits the law of memory.

#include <exception>
#include <filesystem>
#include <iostream>

#include "uuid_memorization/files.hpp"
#include "uuid_memorization/options.hpp"
#include "uuid_memorization/report.hpp"

namespace {

void run(const uuid_memorization::Options& options) {
  using namespace uuid_memorization;
  std::filesystem::create_directories(options.out);
  const Base base = cached_base(options.grid.base, options.cache_folder(), std::cerr);
  const BaseCheck base_check = check(base);
  print_check(base_check, std::cerr);
  Journal journal(std::filesystem::path(options.out) / "unfinished_runs.txt");
  if (journal.size() > 0) std::cerr << journal.size() << " runs are done already\n";
  Memorisation memorisation(options.grid, base, journal);
  memorisation.run(options.threads, std::cerr);
  write_csv(memorisation, base_check, options.out);
  journal.remove();
  print(memorisation, base_check, std::cout);
  std::cout << "\nResults: " << options.out << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const uuid_memorization::Options options = uuid_memorization::parse_options(argc, argv);
    if (options.help) {
      std::cout << uuid_memorization::usage;
      return 0;
    }
    run(options);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "uuid_memorization: " << error.what() << '\n';
    return 1;
  }
}
