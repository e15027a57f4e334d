// SPDX-License-Identifier: MIT
//
// Trains an adapter on a LLaMA: text, prompts with responses, or token files; a PEFT folder comes
// out, and a run that was interrupted goes on where its last checkpoint is.

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iomanip>
#include <iostream>
#include <limits>
#include <mora/io/atomic_file.hpp>
#include <mora/io/atomic_folder.hpp>
#include <mora/io/checkpoint_folder.hpp>
#include <mora/io/json_text.hpp>
#include <mora/io/mapped_file.hpp>
#include <mora/io/peft/save.hpp>
#include <mora/io/train/training_state.hpp>
#include <mora/mora.hpp>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <variant>
#include <vector>

#include "programs/language_model.hpp"
#include "programs/training_data.hpp"

namespace {

using Model = mora::Llama<float>;
using mora::Index;

constexpr const char* adapter_name = "adapter";
/// Besides MoRA's operators.
constexpr std::string_view methods = "lora, rslora, asylora, dora, hira, lokr, miss, full";

struct Options {
  std::string model, data, out;
  std::string method = "rotation", schedule = "cosine";
  std::vector<std::string> targets;
  std::optional<std::string> evaluation, merged, log, run;
  programs::DataSettings form;
  Index rank = 8, steps = 1000, batch = 8, every = 500;
  std::optional<Index> warm_up;
  std::optional<double> alpha, scale, least;
  double dropout = 0.0;
  mora::AdamWSettings optimizer{.learning_rate = 3e-4};
  mora::TrainSettings train{.clip_norm = 1.0};
  std::uint64_t seed = 0;
  bool resume = false;
  bool reference_side = false;
  programs::ModelSettings reading;
};

/// LoRA in any form.
[[nodiscard]] bool is_lora(const Options& o) {
  return o.method == "lora" || o.method == "rslora" || o.method == "asylora" || o.method == "dora";
}
[[nodiscard]] bool is_mora(const Options& o) { return mora::peft_operator(o.method).has_value(); }
[[nodiscard]] bool is_full(const Options& o) { return o.method == "full"; }

/// Throws for an option that would have no effect.
void require_sense(const CLI::App& app, const Options& o) {
  const auto refuse = [&app](bool idle, const char* option, const char* needs) {
    programs::refuse_idle(app, idle, option, needs);
  };
  const bool is_lokr = o.method == "lokr";
  refuse(!is_lora(o) && !is_lokr, "--alpha", "LoRA and LoKr; MoRA has --scale");
  refuse(!is_mora(o), "--scale", "MoRA; LoRA has --alpha");
  refuse(!is_mora(o), "--reference-side", "MoRA");
  refuse(is_full(o), "--rank", "adapters");
  // DoRA and HiRA are no additions, and no folder of LoKr's says it.
  const bool drops = !is_full(o) && o.method != "dora" && o.method != "hira" && !is_lokr;
  refuse(!drops, "--dropout", "LoRA, MiSS and MoRA");
  refuse(o.schedule != "cosine", "--minimum", "the cosine");
  refuse(!o.evaluation, "--evaluate-every", "--evaluate");
  refuse(!o.run, "--every", "--run");
  const auto has_keys = [&o](const std::string& file) {
    return programs::form_of(file, o.form) == "jsonl";
  };
  const bool keys = has_keys(o.data) || (o.evaluation && has_keys(*o.evaluation));
  for (const char* const option : {"--prompt", "--response"}) refuse(!keys, option, "JSON lines");
}

/// Throws for names that the results could not be written with.
void require_names(const Options& o) {
  if (!is_full(o) || o.run) (void)mora::detail::json_text(o.model, "model");
  if (o.run) (void)mora::detail::json_text(o.data, "data");
}

/// The first line of a log.
constexpr std::string_view log_header = "step,loss,factor,gradient_norm,targets,tokens,skipped";

/// A run that goes on writes into its log; nothing else that is there is written over.
void require_log(const Options& o) {
  if (!o.log || !std::filesystem::exists(*o.log)) return;
  if (!std::filesystem::is_regular_file(*o.log)) {
    throw mora::FileError(*o.log, "expected a file or nothing, found something else");
  }
  if (std::filesystem::is_empty(*o.log)) return;
  // Without the run's folder there is nothing to go on from: its name is a wrong one.
  if (!o.resume || !std::filesystem::exists(*o.run)) {
    throw mora::FileError(*o.log, "is there already; name another place");
  }
  std::string line;
  std::getline(std::ifstream(*o.log), line);
  if (line == log_header) return;
  throw mora::FormatError(
      *o.log, "line 1",
      mora::detail::concat("expected the header of a log, found ", mora::detail::in_quotes(line)));
}

void attach(Model& model, const Options& o) {
  mora::Targets targets;
  targets.modules = o.targets;
  targets.all_linear = o.targets.empty();
  mora::SplitMix64 generator(o.seed + 1);
  const auto with = [&](const auto& settings) {
    model.attach(adapter_name, settings, targets, generator, o.dropout);
  };
  if (is_full(o)) {
    with(mora::FullSettings());
  } else if (is_lora(o)) {
    mora::LoraSettings settings{.rank = o.rank};
    settings.alpha = o.alpha.value_or(static_cast<double>(o.rank));
    if (o.method == "rslora") settings.scaling = mora::LoraScaling::rank_stabilized;
    if (o.method == "asylora") {
      settings.init = mora::LoraInit::orthonormal;
      settings.train_a = false;
    }
    if (o.method == "dora") {
      with(mora::DoraSettings<mora::LoraSettings>{.direction = settings});
    } else {
      with(settings);
    }
  } else if (o.method == "hira") {
    with(mora::HiraSettings{.rank = o.rank});
  } else if (o.method == "lokr") {
    with(
        mora::LokrSettings{.rank = o.rank, .alpha = o.alpha.value_or(static_cast<double>(o.rank))});
  } else if (o.method == "miss") {
    with(mora::MissSettings{.rank = o.rank});
  } else if (const auto op = mora::peft_operator(o.method)) {
    const auto with_operator = [&]<class Op>(Op each) {
      if constexpr (requires { each.seed; }) each.seed = o.seed;
      with(mora::MoraSettings<Op>{
          .rank = o.rank,
          .rounding = o.reference_side ? mora::SideRounding::reference : mora::SideRounding::paper,
          .scale = o.scale.value_or(1.0),
          .op = each});
    };
    std::visit(with_operator, *op);
  } else {
    throw mora::ArgumentError(mora::detail::concat(
        "--method: expected ", methods, ", ", mora::peft_operator_names(), ", found ", o.method));
  }
  const auto attached = model.attached(adapter_name);
  for (const std::string& name : o.targets) {
    const bool found = std::ranges::any_of(attached, [&](const auto& each) {
      return mora::Targets{.modules = {name}}.matches(each.module, true, 0);
    });
    if (!found) throw mora::ArgumentError("--targets: no module is named " + name);
  }
  std::set<std::string> warnings;
  for (const auto& each : attached) {
    if (!each.adapter) continue;
    for (const std::string& warning : each.adapter->warnings()) warnings.insert(warning);
  }
  programs::print_warnings({warnings.begin(), warnings.end()});
}

/// Any of the library's schedules.
struct AnySchedule {
  std::function<double(Index)> factor;
  double operator()(Index step) const { return factor(step); }
};

[[nodiscard]] AnySchedule schedule_of(const Options& o) {
  const Index warm_up = o.warm_up.value_or(std::min<Index>(50, o.steps / 10));
  const auto checked = [](const auto& schedule) {
    schedule.validate();
    return AnySchedule{schedule};
  };
  if (o.schedule == "constant") return checked(mora::ConstantSchedule{.warm_up = warm_up});
  if (o.schedule == "linear") {
    return checked(mora::LinearSchedule{.steps = o.steps, .warm_up = warm_up});
  }
  return checked(
      mora::CosineSchedule{.steps = o.steps, .warm_up = warm_up, .minimum = o.least.value_or(0.0)});
}

/// All examples of a file, in order.
[[nodiscard]] std::vector<mora::Batch> batches_of(const std::string& file, const Options& o,
                                                  const mora::LlamaConfig& config) {
  mora::Batches<programs::TrainingData> source(programs::read_data(file, config, o.form),
                                               {.batch_size = o.batch, .shuffle = false});
  std::vector<mora::Batch> all;
  for (Index i = 0; i < source.batches_per_epoch(); ++i) all.push_back(source.next());
  return all;
}

/// Leaves the rows up to a step in a log, for a run that goes on there. Returns whether there is a
/// header.
[[nodiscard]] mora::CsvHeader cut_log(const std::filesystem::path& path, Index step) {
  std::ifstream in(path);
  std::string kept, line;
  for (Index number = 1; std::getline(in, line); ++number) {
    if (number > 1) {
      Index found = 0;
      const char* const end = line.data() + line.size();
      const auto [rest, error] = std::from_chars(line.data(), end, found);
      if (error != std::errc() || rest == end || *rest != ',') {
        if (in.eof()) break;  // a process died while it wrote this row
        throw mora::FormatError(
            path, mora::detail::concat("line ", number),
            mora::detail::concat("expected a row that begins with its step, found ",
                                 mora::detail::in_quotes(line)));
      }
      if (found > step) continue;
    }
    kept += line + '\n';
  }
  mora::AtomicFile file(path);
  file.write(std::as_bytes(std::span(kept)));
  file.commit();
  return kept.empty() ? mora::CsvHeader::write : mora::CsvHeader::leave_out;
}

/// An empty folder that the results will replace, put there as they will be: where that cannot be
/// done it is known before the training.
void make_new(const std::filesystem::path& folder) {
  mora::detail::take_place(folder);
  if (!std::filesystem::exists(folder)) mora::AtomicFolder(folder).commit();
}

/// Whether both folders have the same files, byte for byte.
[[nodiscard]] bool same_files(const std::filesystem::path& a, const std::filesystem::path& b) {
  const auto names = mora::detail::names_in(a);
  if (names != mora::detail::names_in(b)) return false;
  return std::ranges::all_of(names, [&](const std::string& name) {
    const mora::MappedFile one(a / name), other(b / name);
    return std::ranges::equal(one.bytes(), other.bytes());
  });
}

/// Results appear whole: `save(folder)` fills one. Where a run was killed between its results the
/// first are there already, and stay if they are the same.
template <class Save>
void write_results(const std::filesystem::path& folder, const Save& save) {
  mora::AtomicFolder fresh(folder);
  save(fresh.path());
  if (std::filesystem::exists(folder) && !std::filesystem::is_empty(folder)) {
    if (same_files(fresh.path(), folder)) return;
    throw mora::FileError(folder, "is there already, and is not what this run gives");
  }
  fresh.commit();
}

/// Results replace their folders: nothing else can be in one.
void require_outside(const std::string& option, const std::filesystem::path& place,
                     const std::string& name, const std::filesystem::path& folder) {
  const auto whole = std::filesystem::weakly_canonical(mora::detail::absolute_folder(place));
  const auto around = std::filesystem::weakly_canonical(mora::detail::absolute_folder(folder));
  const auto [end, rest] = std::mismatch(around.begin(), around.end(), whole.begin(), whole.end());
  if (end != around.end()) return;
  throw mora::ArgumentError(option + ": expected a place outside of " + name + ", found " +
                            place.string());
}
void require_apart(const Options& o) {
  if (o.log) require_outside("--log", *o.log, "OUT", o.out);
  if (o.run) require_outside("--run", *o.run, "OUT", o.out);
  if (!o.merged) return;
  require_outside("--merged", *o.merged, "OUT", o.out);
  require_outside("OUT", o.out, "--merged", *o.merged);
  if (o.log) require_outside("--log", *o.log, "--merged", *o.merged);
  if (o.run) require_outside("--run", *o.run, "--merged", *o.merged);
}

/// What must be the same when a run goes on: all that its result depends on.
[[nodiscard]] mora::TextMap description_of(const Options& o, const Model& model, Index examples) {
  const auto text = [](const auto& number) {
    std::ostringstream out;
    out << std::setprecision(std::numeric_limits<double>::max_digits10) << number;
    return out.str();
  };
  const auto or_none = [&](const auto& number) { return number ? text(*number) : "none"; };
  // A product with one row rounds otherwise over 16 bits.
  const bool small = std::ranges::any_of(
      model.weights(), [](const auto& weight) { return weight.weight_bits() == 16; });
  const std::string weights = small ? "of 16 bits" : "of 32 bits";
  std::string targets, prompt;
  for (const std::string& name : o.targets) targets += name + ' ';
  for (const std::string& key : o.form.keys.prompt) prompt += key + ' ';
  return {{"model", o.model},
          {"model's files", programs::model_fingerprint(o.model)},
          {"weights", weights},
          {"data", o.data},
          {"data's file", programs::fingerprint(o.data)},
          {"form", o.form.form.value_or("by name")},
          {"prompt", prompt},
          {"response", o.form.keys.response},
          {"length", text(o.form.length)},
          {"examples", text(examples)},
          {"method", o.method},
          {"rank", text(o.rank)},
          {"alpha", or_none(o.alpha)},
          {"scale", or_none(o.scale)},
          {"side", o.reference_side ? "the reference's" : "the paper's"},
          {"targets", targets},
          {"dropout", text(o.dropout)},
          {"batch", text(o.batch)},
          {"accumulate", text(o.train.accumulate)},
          {"steps", text(o.steps)},
          {"schedule", o.schedule},
          {"warm-up", or_none(o.warm_up)},
          {"minimum", or_none(o.least)},
          {"learning rate", text(o.optimizer.learning_rate)},
          {"weight decay", text(o.optimizer.weight_decay)},
          {"clip", text(o.train.clip_norm)},
          {"seed", text(o.seed)}};
}

/// Puts everything where the newest checkpoint was; at the start where there is none.
void resume(Options& o, Model& model, mora::AdamW<float>& optimizer,
            mora::Batches<programs::TrainingData>& batches, const mora::TextMap& description) {
  const auto found = mora::find_checkpoint(*o.run);
  programs::print_warnings(found.passed_over);
  if (!found.newest) {
    if (!found.passed_over.empty()) {
      throw mora::FileError(*o.run,
                            "no checkpoint in it is whole; to begin at the start move them away, "
                            "or name another folder");
    }
    if (o.resume) std::cerr << "no checkpoint in " << *o.run << ", beginning at the start\n";
    return;
  }
  const std::filesystem::path& checkpoint = found.newest->path;
  if (!o.resume) {
    throw mora::ArgumentError(checkpoint.string() +
                              ": is there already; go on from it with --resume, or name another "
                              "folder");
  }
  const auto position = mora::load_training_state(checkpoint, model, optimizer, description);
  for (const auto& leftover : mora::remove_leftovers(*o.run)) {
    std::cerr << "removed " << leftover.string() << ", left by a process that ended\n";
  }
  const auto passes = position.counters.find("dropout.passes");
  if (passes == position.counters.end()) {
    throw mora::FormatError(checkpoint, "expected a counter dropout.passes, found none");
  }
  batches.seek(position.data);
  o.train.start = position.state;
  model.set_dropout({.seed = o.seed, .passes = passes->second});
  std::cerr << "going on after step " << position.state.step << '\n';
}

void finetune(const CLI::App& app, Options& o) {
  require_sense(app, o);
  require_names(o);
  const AnySchedule schedule = schedule_of(o);
  o.train.steps = o.steps;
  o.train.validate();
  require_log(o);
  require_apart(o);
  if (o.run && o.every < 1) {
    throw mora::ArgumentError(
        mora::detail::concat("--every: expected at least 1, found ", o.every));
  }
  if (!o.resume) programs::require_new(o.out);
  if (o.merged && !o.resume) programs::require_new(*o.merged);

  auto base = programs::language_model(o.model, o.seed, o.reading);
  Model& model = base.model;
  if (std::filesystem::is_regular_file(o.model)) {
    std::cerr << "warning: a config.json has random weights, and the embedding, the head and the "
                 "norms stay as they are drawn: it is for trying things out, and learns little\n";
  }
  std::vector<mora::Batch> held_out;
  if (o.evaluation) held_out = batches_of(*o.evaluation, o, model.config());
  mora::Batches<programs::TrainingData> batches(programs::read_data(o.data, model.config(), o.form),
                                                {.batch_size = o.batch, .seed = o.seed});
  attach(model, o);
  model.set_dropout({.seed = o.seed, .passes = 0});
  mora::AdamW<float> optimizer(o.optimizer);
  mora::TextMap description;
  if (o.run) description = description_of(o, model, batches.dataset().size());
  if (o.run) resume(o, model, optimizer, batches, description);
  const bool go_on = o.train.start.step > 0;
  auto header = mora::CsvHeader::write;
  if (o.log && go_on) header = cut_log(*o.log, o.train.start.step);
  if (o.run) mora::make_folder(*o.run);
  const std::string log_path = o.log.value_or("/dev/null");
  std::ofstream log(log_path, go_on ? std::ios::app : std::ios::trunc);
  if (!log) throw mora::FileError(log_path, "cannot write", errno);
  // After all that may fail for a wrong argument, so that no empty folder is left behind. A run
  // that was trained to its end may have been killed among its results.
  const bool trained = o.train.start.step == o.steps && o.steps > 0;
  if (!trained) make_new(o.out);
  if (o.merged && !trained) make_new(*o.merged);
  mora::CsvLog csv(log, header);
  mora::CheckpointEvery checkpoints(o.every, model, [&](const mora::TrainState& state) {
    if (!o.run) return;
    mora::CheckpointWriter writer(*o.run, state.step);
    mora::save_training_state(writer, model, optimizer,
                              {.state = state,
                               .data = batches.position(),
                               .counters = {{"dropout.passes", model.dropout().passes}}},
                              description);
    writer.commit();
    mora::prune_checkpoints(*o.run);
  });
  Index parameters = 0;
  model.visit_parameters([&](std::string_view, const auto& p) { parameters += p.value.size(); });
  std::cerr << parameters << " parameters train, " << batches.dataset().size() << " examples\n";
  const auto run = [&](auto&... more) {
    (void)mora::train(model, optimizer, schedule, batches, o.train, more...,
                      mora::Progress(std::cerr), csv, checkpoints);
  };
  if (o.evaluation) {
    mora::EvaluateOn evaluation("held out", held_out);
    mora::EvaluationCsvLog table(std::cout);
    run(evaluation, table);
  } else {
    run();
  }
  if (!is_full(o)) {
    write_results(o.out, [&](const auto& folder) {
      mora::save_peft(model, adapter_name, folder, {.base_model = o.model});
    });
  }
  if (!is_full(o) && !o.merged) return;
  model.merge();
  const auto save_whole = [&](const auto& folder) {
    mora::save_llama(model, folder,
                     {.eos_token_id = base.file.eos_token_id,
                      .bos_token_id = base.file.bos_token_id,
                      .pad_token_id = base.file.pad_token_id});
  };
  if (is_full(o)) write_results(o.out, save_whole);
  if (o.merged) write_results(*o.merged, save_whole);
}

}  // namespace

int main(int count, char** arguments) {
  CLI::App app(
      "Trains an adapter or linear layers themselves on a Hugging Face LLaMA, by "
      "AdamW, "
      "and writes a PEFT folder. Text and JSON lines are read as bytes, for models with such a "
      "vocabulary (259: bytes, begin, end, padding); models with another tokenizer take files of "
      "token numbers. Prints the held-out loss, progress on stderr.",
      "finetune");
  Options o;
  app.add_option("model", o.model,
                 "Folder with config.json and weights, or a config.json alone: "
                 "random weights")
      ->required();
  app.add_option("data", o.data, "Text, JSON lines or tokens")->required();
  app.add_option("out", o.out, "Folder for the adapter; for the whole model with --method full")
      ->required();

  app.add_option("--form", o.form.form, "text, jsonl, uint16 or uint32; else by the file's name")
      ->check(CLI::IsMember({"text", "jsonl", "uint16", "uint32"}));
  app.add_option("--length", o.form.length, "Tokens of an example")->capture_default_str();
  app.add_option("--prompt", o.form.keys.prompt, "Keys of JSON lines that make the prompt")
      ->delimiter(',')
      ->allow_extra_args(false);
  app.add_option("--response", o.form.keys.response, "Key of the response")->capture_default_str();
  app.add_option("--evaluate", o.evaluation, "Held-out data of the same form");
  app.add_option("--evaluate-every", o.train.evaluate_every, "Steps; 0: at the end")
      ->capture_default_str();

  app.add_option("--method", o.method,
                 std::string(methods) + ", or MoRA's operator: " + mora::peft_operator_names())
      ->capture_default_str();
  app.add_option("--rank", o.rank, "r: LoRA's; MoRA's M has as many parameters")
      ->capture_default_str();
  app.add_option("--alpha", o.alpha, "LoRA's and LoKr's alpha; else r");
  app.add_option("--scale", o.scale, "MoRA's scale; else 1");
  app.add_flag(
      "--reference-side", o.reference_side,
      "M's side rounded as in the paper's code, which reads no other; else down, so that M "
      "never has more parameters than LoRA");
  app.add_option("--targets", o.targets,
                 "Modules: q_proj,v_proj; else all linear layers but the head")
      ->delimiter(',')
      ->allow_extra_args(false);
  app.add_option("--dropout", o.dropout, "On the adapters' inputs")->capture_default_str();

  app.add_option("--steps", o.steps, "Of the optimizer")->capture_default_str();
  app.add_option("--batch", o.batch, "Examples of a batch")->capture_default_str();
  app.add_option("--accumulate", o.train.accumulate, "Batches of a step")->capture_default_str();
  app.add_option("--learning-rate", o.optimizer.learning_rate, "After the warm-up")
      ->capture_default_str();
  app.add_option("--weight-decay", o.optimizer.weight_decay, "AdamW's")->capture_default_str();
  app.add_option("--schedule", o.schedule)
      ->check(CLI::IsMember({"constant", "linear", "cosine"}))
      ->capture_default_str();
  app.add_option("--warm-up", o.warm_up, "Steps; else 50, or a tenth of all if that is fewer");
  app.add_option("--minimum", o.least, "Of the cosine, as a part of the rate; else 0");
  app.add_option("--clip", o.train.clip_norm, "Norm of all gradients; 0: never")
      ->capture_default_str();
  app.add_option("--seed", o.seed,
                 "Of adapters, the order of examples, and a config's random weights")
      ->capture_default_str();

  programs::add_model_options(app, o.reading);

  CLI::Option* const run = app.add_option("--run", o.run, "Folder for checkpoints");
  app.add_option("--every", o.every, "Steps between checkpoints")->capture_default_str();
  app.add_flag("--resume", o.resume,
               "Go on from the newest checkpoint of --run, with all other options as they were")
      ->needs(run);
  app.add_option("--log", o.log, "CSV file with a row for every step");
  app.add_option("--merged", o.merged,
                 "Folder for the whole model with the update in it, in float32");
  return programs::run(app, count, arguments, [&] { finetune(app, o); });
}
