// SPDX-License-Identifier: MIT
//
// Trains an adapter on a LLaMA: text, prompts with responses, or token files; a PEFT folder comes
// out, and a run that was interrupted goes on where its last checkpoint is.

#include <fstream>
#include <functional>
#include <iostream>
#include <mora/io/checkpoint_folder.hpp>
#include <mora/io/peft/save.hpp>
#include <mora/io/train/training_state.hpp>
#include <mora/mora.hpp>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "programs/language_model.hpp"
#include "programs/training_data.hpp"

namespace {

using Model = mora::Llama<float>;
using mora::Index;

constexpr const char* adapter_name = "adapter";

struct Options {
  std::string model, data, out;
  std::string method = "rotation", schedule = "cosine";
  std::vector<std::string> targets;
  std::optional<std::string> evaluation, merged, log, run;
  programs::DataSettings form;
  Index rank = 8, steps = 1000, batch = 8, warm_up = 50, every = 500;
  std::optional<double> alpha;
  double scale = 1.0, dropout = 0.0, least = 0.0;
  mora::AdamWSettings optimizer{.learning_rate = 3e-4};
  mora::TrainSettings train{.clip_norm = 1.0};
  std::uint64_t seed = 0;
  bool resume = false;
};

void attach(Model& model, const Options& o) {
  mora::Targets targets;
  targets.modules = o.targets;
  targets.all_linear = o.targets.empty();
  mora::SplitMix64 generator(o.seed + 1);
  const auto with = [&](const auto& settings) {
    model.attach(adapter_name, settings, targets, generator, o.dropout);
  };
  if (o.method == "full") return with(mora::FullSettings());
  if (o.method == "lora" || o.method == "rslora") {
    mora::LoraSettings settings{.rank = o.rank};
    settings.alpha = o.alpha.value_or(static_cast<double>(o.rank));
    if (o.method == "rslora") settings.scaling = mora::LoraScaling::rank_stabilized;
    return with(settings);
  }
  const auto op = mora::peft_operator(o.method);
  if (!op) {
    throw mora::ArgumentError("--method: expected lora, rslora, full or an operator, found " +
                              o.method);
  }
  std::visit(
      [&]<class Op>(const Op& each) {
        with(mora::MoraSettings<Op>{.rank = o.rank, .scale = o.scale, .op = each});
      },
      *op);
}

/// Any of the library's schedules.
struct AnySchedule {
  std::function<double(Index)> factor;
  double operator()(Index step) const { return factor(step); }
};

[[nodiscard]] AnySchedule schedule_of(const Options& o) {
  const auto checked = [](const auto& schedule) {
    schedule.validate();
    return AnySchedule{schedule};
  };
  if (o.schedule == "constant") return checked(mora::ConstantSchedule{.warm_up = o.warm_up});
  if (o.schedule == "linear") {
    return checked(mora::LinearSchedule{.steps = o.steps, .warm_up = o.warm_up});
  }
  return checked(mora::CosineSchedule{.steps = o.steps, .warm_up = o.warm_up, .minimum = o.least});
}

/// All examples of a file, in order.
class HeldOut {
 public:
  HeldOut(const Options& o, Index vocabulary) {
    mora::Batches<programs::TrainingData> source(
        programs::read_data(*o.evaluation, vocabulary, o.form),
        {.batch_size = o.batch, .shuffle = false});
    for (Index i = 0; i < source.batches_per_epoch(); ++i) batches_.push_back(source.next());
  }
  [[nodiscard]] std::string_view name() const { return "held out"; }
  [[nodiscard]] mora::LossSum evaluate(const Model& model) const {
    return mora::evaluate(model, batches_);
  }
  void on_evaluation(const mora::EvaluationInfo& info) const {
    std::cout << info.state.step << ',' << info.loss.mean() << '\n' << std::flush;
  }

 private:
  std::vector<mora::Batch> batches_;
};

/// The rows of a log up to a step, for a run that goes on there.
void cut_log(const std::string& path, Index step) {
  std::ifstream in(path);
  std::string kept, line;
  for (Index row = 0; row <= step && std::getline(in, line); ++row) kept += line + '\n';
  in.close();
  std::ofstream(path, std::ios::trunc) << kept;
}

/// What must be the same when a run goes on.
[[nodiscard]] mora::TextMap description_of(const Options& o, Index examples) {
  return {{"method", o.method},
          {"rank", std::to_string(o.rank)},
          {"examples", std::to_string(examples)},
          {"batch", std::to_string(o.batch)},
          {"steps", std::to_string(o.steps)},
          {"seed", std::to_string(o.seed)}};
}

void finetune(Options& o) {
  Model model = programs::language_model(o.model, o.seed);
  const Index vocabulary = model.config().vocab_size;
  std::optional<HeldOut> held_out;
  if (o.evaluation) held_out.emplace(o, vocabulary);
  mora::Batches<programs::TrainingData> batches(programs::read_data(o.data, vocabulary, o.form),
                                                {.batch_size = o.batch, .seed = o.seed});
  attach(model, o);
  model.set_dropout({.seed = o.seed, .passes = 0});
  mora::AdamW<float> optimizer(o.optimizer);
  const mora::TextMap description = description_of(o, batches.dataset().size());
  o.train.steps = o.steps;

  if (o.run) {
    const auto found = mora::find_checkpoint(*o.run);
    programs::print_warnings(found.passed_over);
    if (found.newest && !o.resume) {
      throw mora::ArgumentError(found.newest->path.string() +
                                ": is there already; go on from it with --resume, or name another "
                                "folder");
    }
    if (found.newest) {
      const auto position =
          mora::load_training_state(found.newest->path, model, optimizer, description);
      batches.seek(position.data);
      o.train.start = position.state;
      model.set_dropout({.seed = o.seed, .passes = position.counters.at("dropout.passes")});
      std::cerr << "going on after step " << position.state.step << '\n';
    }
  }

  const bool go_on = o.train.start.step > 0;
  if (o.log && go_on) cut_log(*o.log, o.train.start.step);
  const std::string log_path = o.log.value_or("/dev/null");
  std::ofstream log(log_path, go_on ? std::ios::app : std::ios::trunc);
  if (!log) throw mora::FileError(log_path, "cannot write");
  mora::CsvLog csv(log, go_on ? mora::CsvHeader::leave_out : mora::CsvHeader::write);
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
    (void)mora::train(model, optimizer, schedule_of(o), batches, o.train, more...,
                      mora::Progress(std::cerr), csv, checkpoints);
  };
  if (held_out) {
    run(*held_out);
  } else {
    run();
  }
  const bool whole = o.method == "full";
  if (!whole) mora::save_peft(model, adapter_name, o.out, {.base_model = o.model});
  model.merge();
  if (whole) mora::save_llama(model, o.out);
  if (o.merged) mora::save_llama(model, *o.merged);
}

}  // namespace

int main(int count, char** arguments) {
  CLI::App app(
      "Trains an adapter (MoRA, LoRA) or the weights themselves on a Hugging Face LLaMA, by AdamW, "
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
      ->delimiter(',');
  app.add_option("--response", o.form.keys.response, "Key of the response")->capture_default_str();
  app.add_option("--evaluate", o.evaluation, "Held-out data of the same form");
  app.add_option("--evaluate-every", o.train.evaluate_every, "Steps; 0: at the end")
      ->capture_default_str();

  app.add_option("--method", o.method,
                 "lora, rslora, full, or MoRA's operator: rotation, covering_rotation, sharing, "
                 "random_sharing, adjacent_sharing, truncation, decoupling, ...")
      ->capture_default_str();
  app.add_option("--rank", o.rank, "r: LoRA's; MoRA's M has as many parameters")
      ->capture_default_str();
  app.add_option("--alpha", o.alpha, "LoRA's alpha; else r");
  app.add_option("--scale", o.scale, "MoRA's scale")->capture_default_str();
  app.add_option("--targets", o.targets, "Modules: q_proj,v_proj; else all linear layers")
      ->delimiter(',');
  app.add_option("--dropout", o.dropout, "On the adapters' inputs")->capture_default_str();

  app.add_option("--steps", o.steps)->capture_default_str();
  app.add_option("--batch", o.batch, "Examples of a batch")->capture_default_str();
  app.add_option("--accumulate", o.train.accumulate, "Batches of a step")->capture_default_str();
  app.add_option("--learning-rate", o.optimizer.learning_rate)->capture_default_str();
  app.add_option("--weight-decay", o.optimizer.weight_decay)->capture_default_str();
  app.add_option("--schedule", o.schedule)
      ->check(CLI::IsMember({"constant", "linear", "cosine"}))
      ->capture_default_str();
  app.add_option("--warm-up", o.warm_up, "Steps")->capture_default_str();
  app.add_option("--minimum", o.least, "Of the cosine, as a part of the rate")
      ->capture_default_str();
  app.add_option("--clip", o.train.clip_norm, "Norm of all gradients; 0: never")
      ->capture_default_str();
  app.add_option("--seed", o.seed)->capture_default_str();

  app.add_option("--run", o.run, "Folder for checkpoints");
  app.add_option("--every", o.every, "Steps between checkpoints")->capture_default_str();
  app.add_flag("--resume", o.resume, "Go on from the newest checkpoint of --run");
  app.add_option("--log", o.log, "CSV file with a row for every step");
  app.add_option("--merged", o.merged, "Folder for the whole model with the update in it");
  return programs::run(app, count, arguments, [&] { finetune(o); });
}
