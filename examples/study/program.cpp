// SPDX-License-Identifier: MIT
#include "study/program.hpp"

#include <algorithm>
#include <filesystem>
#include <iostream>

#include "mora/core/parallel.hpp"
#include "programs/command_line.hpp"
#include "study/report.hpp"

namespace study {

namespace {

struct Options {
  std::string out = "results", cache;
  int threads = static_cast<int>(mora::detail::thread_count());
  bool full = false, tiny = false, cost = false;
  Files files;
  // Each over what the grid has.
  std::vector<std::string> methods;
  std::vector<Index> ranks;
  std::vector<double> rates;
  int seeds = 0;
  Index steps = 0, base_steps = 0;
};

void add_options(CLI::App& app, const Experiment& experiment, Options& o) {
  CLI::Option* const full = app.add_flag("--full", o.full, "The large grid");
  app.add_flag("--tiny", o.tiny, "Seconds, to see that it works")->excludes(full);
  app.add_flag("--cost", o.cost, "Only measure a step's time and memory: cost.csv");
  app.add_option("--out", o.out, "Folder for CSV files; what was interrupted goes on from there")
      ->capture_default_str();
  app.add_option("--cache", o.cache,
                 "Folder where trained bases are kept (default: that of --out)");
  app.add_option("--threads", o.threads, "Runs at a time")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  if (experiment.reads_files) {
    const std::string form = experiment.reads_responses ? "JSON lines" : "Text";
    if (experiment.reads_general) {
      CLI::Option* const general =
          app.add_option("--general", o.files.general, "Text that the base is trained on");
      if (!experiment.reads_responses) {
        CLI::Option* const kept =
            app.add_option("--general-held-out", o.files.general_held_out, "The same, held out");
        general->needs(kept);
        kept->needs(general);
      }
    }
    CLI::Option* const train = app.add_option("--train", o.files.train, form + " to learn");
    CLI::Option* const test =
        app.add_option("--held-out", o.files.held_out, form + " to test with");
    train->needs(test);
    test->needs(train);
    if (experiment.reads_responses) {
      app.add_option("--prompt", o.files.keys.prompt, "Keys of the prompt")
          ->delimiter(',')
          ->needs(train);
      app.add_option("--response", o.files.keys.response, "Key of the response")->needs(train);
    }
  }
  app.add_option("--methods", o.methods, "In place of the grid's")->delimiter(',');
  app.add_option("--ranks", o.ranks, "LoRA's, whose number of parameters is the budget of all")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  app.add_option("--rates", o.rates, "Learning rates, ascending")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  app.add_option("--seeds", o.seeds, "Of the results")->check(CLI::PositiveNumber);
  app.add_option("--steps", o.steps, "Of every run")->check(CLI::PositiveNumber);
  if (experiment.reads_general || !experiment.reads_files) {
    app.add_option("--base-steps", o.base_steps, "Of the base's training")
        ->check(CLI::PositiveNumber);
  }
}

/// What is asked for twice would be counted twice.
template <class T>
void require_different(const char* option, const std::vector<T>& values) {
  for (auto one = values.begin(); one != values.end(); ++one) {
    if (std::find(values.begin(), one, *one) == one) continue;
    throw mora::ArgumentError(mora::detail::concat(option, ": ", *one, " is there twice"));
  }
}

[[nodiscard]] Grid grid_of(const Experiment& experiment, const Options& o) {
  Grid grid = o.full ? experiment.full : experiment.quick;
  if (o.tiny) grid = tiny(grid);
  if (!o.methods.empty()) grid.methods = o.methods;
  if (!o.ranks.empty()) grid.ranks = o.ranks;
  if (!o.rates.empty()) grid.rates = o.rates;
  require_different("--methods", grid.methods);
  require_different("--ranks", grid.ranks);
  if (o.seeds > 0) grid.seeds = o.seeds;
  if (o.base_steps > 0) grid.task.base.steps = o.base_steps;
  if (o.steps > 0) {
    // Restarts stay at the same parts of the run.
    const auto scaled = [&](Index value) {
      return std::max<Index>(1, value * o.steps / grid.training.steps);
    };
    Training& t = grid.training;
    t = {.batch = t.batch,
         .steps = o.steps,
         .warm_up = scaled(t.warm_up),
         .restart_every = scaled(t.restart_every),
         .restart_warm_up = scaled(t.restart_warm_up),
         .curve_points = t.curve_points};
  }
  for (std::size_t i = 1; i < grid.rates.size(); ++i) {
    if (grid.rates[i] > grid.rates[i - 1]) continue;
    throw mora::ArgumentError(mora::detail::concat("--rates: expected ascending numbers, found ",
                                                   grid.rates[i], " behind ", grid.rates[i - 1]));
  }
  return grid;
}

void run(const Experiment& experiment, const Options& o) {
  const Grid grid = grid_of(experiment, o);
  for (const std::string& name : grid.methods) (void)experiment::decoder_method(name);
  std::filesystem::create_directories(o.out);
  const Task task =
      experiment.task(grid.task, o.files, {o.cache.empty() ? o.out : o.cache, &std::cerr});
  if (o.cost) {
    const std::map<Case, Cost> costs = measure_costs(grid, task);
    write_costs(grid, costs, o.out);
    return print_costs(grid, costs, std::cout);
  }
  const std::filesystem::path unfinished =
      std::filesystem::path(o.out) / (o.full ? "unfinished_full_runs.txt" : "unfinished_runs.txt");
  Journal journal(unfinished);
  if (journal.size() > 0) std::cerr << journal.size() << " runs are done already\n";
  Study study(grid, task, journal);
  study.run(o.threads, std::cerr);
  const std::map<Case, Cost> costs = measure_costs(grid, task);
  write_csv(study, o.out);
  write_costs(grid, costs, o.out);
  journal.remove();
  std::cout << task.name << '\n';
  print(study, costs, std::cout);
  std::cout << "\nResults: " << o.out << '\n';
}

}  // namespace

namespace {

/// Further up than the quick grid, at whose upper edge small budgets end.
const std::vector<double> full_rates = {1e-3, 3e-3, 1e-2, 3e-2, 1e-1};

}  // namespace

Grid quick_fine_tuning() {
  return {.training =
              {.batch = 8, .steps = 200, .warm_up = 10, .restart_every = 50, .restart_warm_up = 5},
          .methods = {"lora", "sharing", "rotation", "full"},
          .ranks = {2, 8},
          .rates = {1e-3, 3e-3, 1e-2, 3e-2}};
}

Grid full_fine_tuning() {
  Grid grid = quick_fine_tuning();
  grid.task.base.steps = 4000;
  grid.training.steps = 240;
  grid.training.warm_up = 12;
  grid.training.restart_every = 60;
  grid.training.restart_warm_up = 6;
  grid.methods = fine_tuning_methods();
  grid.rates = full_rates;
  return grid;
}

Experiment response_experiment() {
  Experiment experiment{
      .quick = quick_fine_tuning(), .full = full_fine_tuning(), .reads_responses = true};
  for (Grid* const grid : {&experiment.quick, &experiment.full}) {
    grid->task.length = 320;
    grid->training.batch = 6;
  }
  experiment.full.task.held_out = 128;
  return experiment;
}

Experiment arithmetic_experiment() {
  Experiment experiment{.quick = quick_fine_tuning(), .reads_files = false, .reads_general = false};
  Grid& quick = experiment.quick;
  quick.task = {.base = {.steps = 4000}, .length = 24, .batch = 64, .held_out = 512};
  quick.training = {
      .batch = 64, .steps = 400, .warm_up = 20, .restart_every = 100, .restart_warm_up = 10};
  experiment.full = quick;
  experiment.full.training.steps = 600;
  experiment.full.training.warm_up = 30;
  experiment.full.training.restart_every = 150;
  experiment.full.training.restart_warm_up = 8;
  experiment.full.methods = fine_tuning_methods();
  experiment.full.rates = full_rates;
  experiment.task = [](const TaskSettings& settings, const Files&, const Workplace& place) {
    return arithmetic(settings, place);
  };
  return experiment;
}

Grid tiny(Grid grid) {
  grid.task.shape = {.width = 32, .inner = 40, .layers = 1, .heads = 2};
  grid.task.base.steps = 20;
  grid.task.length = std::min<Index>(grid.task.length, 192);
  grid.task.batch = 4;
  grid.task.held_out = 8;
  grid.training = {.batch = 4,
                   .steps = 20,
                   .warm_up = 2,
                   .restart_every = 8,
                   .restart_warm_up = 2,
                   .curve_points = 2};
  grid.ranks = {2};
  grid.rates = {1e-3, 1e-2};
  grid.seeds = 2;
  return grid;
}

int run_program(const Experiment& experiment, int count, char** arguments) {
  Options options;
  CLI::App app(experiment.description, experiment.name);
  add_options(app, experiment, options);
  return programs::run(app, count, arguments, [&] { run(experiment, options); });
}

}  // namespace study
