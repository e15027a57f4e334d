// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <string>

#include "study/study.hpp"

namespace study {

/// One of the paper's experiments as a program.
struct Experiment {
  std::string name = "";
  std::string description = "";
  Grid quick = {}, full = {};
  bool reads_files = true;
  bool reads_general = true;     ///< General text, for a decoder that is trained before.
  bool reads_responses = false;  ///< JSON lines; else text.
  std::function<Task(const TaskSettings&, const Files&, const Workplace&)> task = {};
};

/// Grids of tasks on top of a decoder that is trained before.
[[nodiscard]] Grid quick_fine_tuning();
[[nodiscard]] Grid full_fine_tuning();

/// What the experiments on prompts with responses have in common, and those on arithmetic; the rest
/// is for the program to say.
[[nodiscard]] Experiment response_experiment();
[[nodiscard]] Experiment arithmetic_experiment();

/// The grid that shows in seconds that a program works.
[[nodiscard]] Grid tiny(Grid grid);

/// Command line, runs, tables and files. Exit codes: 0 done, 1 a file or a value is at fault, 2 the
/// command line itself.
[[nodiscard]] int run_program(const Experiment& experiment, int count, char** arguments);

/// The paper's methods of fine-tuning and their high-rank relatives.
[[nodiscard]] inline std::vector<std::string> fine_tuning_methods() {
  return {"lora",         "lora_plus", "asylora", "dora", "pissa", "relora", "sharing",
          "remora_fresh", "rotation",  "hira",    "miss", "lokr",  "full"};
}

}  // namespace study
