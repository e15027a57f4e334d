// SPDX-License-Identifier: MIT
#include "study/tasks.hpp"

#include <initializer_list>
#include <ostream>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "experiment/cached_weights.hpp"
#include "mora/adapters/full.hpp"
#include "mora/io/text_file.hpp"
#include "mora/optim/schedule.hpp"
#include "mora/train/batches.hpp"
#include "mora/train/byte_tokenizer.hpp"
#include "mora/train/callbacks/progress.hpp"
#include "mora/train/prompt_responses.hpp"
#include "mora/train/token_windows.hpp"
#include "mora/train/train.hpp"
#include "study/chains.hpp"
#include "study/generated_text.hpp"

namespace study {

namespace {

using Bytes = mora::ByteTokenizer;
using Tokens = std::vector<mora::Token>;
using TextExamples = std::vector<mora::TextExample>;
using mora::detail::concat;

constexpr std::uint64_t general_language = 1;
constexpr std::uint64_t new_language = 2;

/// Examples with a name that changes where they do.
struct Data {
  std::string name;
  Examples examples;
};

[[nodiscard]] std::string checksum_of(std::span<const mora::Token> tokens) {
  return mora::detail::concat(experiment::checksum(std::as_bytes(tokens)));
}

[[nodiscard]] Data text_data(Tokens tokens, Index length) {
  std::string name = concat("text:", checksum_of(tokens), " length:", length);
  return {
      std::move(name),
      programs::any_data(mora::TokenWindows<Tokens>(
          std::move(tokens), {.length = length, .rest = mora::TokenWindowsSettings::Rest::drop}))};
}

/// A file's text, or else one in an invented language.
[[nodiscard]] Tokens read_text(const std::optional<std::string>& file, std::uint64_t language,
                               std::uint64_t seed) {
  if (file) return mora::read_text_tokens(*file, Bytes());
  Generator generator(seed);
  return Bytes().encode(InventedLanguage(language).text(400'000, generator));
}

/// With the tokens that begin and end a text around what blank lines separate, so that a decoder
/// whose embedding is frozen later knows them.
[[nodiscard]] Tokens as_documents(const Tokens& text) {
  Tokens documents = {Bytes::bos};
  bool blank = false;
  for (const mora::Token token : text) {
    documents.push_back(token);
    if (token != '\n') {
      blank = blank && token == ' ';
      continue;
    }
    if (blank) documents.insert(documents.end(), {Bytes::eos, Bytes::bos});
    blank = true;
  }
  return documents;
}

/// Those that are no longer than `length`: a response that is cut has no result.
[[nodiscard]] Data response_data(const TextExamples& all, Index length, std::ostream& log) {
  mora::PromptResponses examples({.begin = Bytes::bos,
                                  .end = Bytes::eos,
                                  .max_length = length,
                                  .vocabulary = Bytes::vocabulary});
  Tokens read;
  for (const mora::TextExample& each : all) {
    constexpr std::size_t ends = 3;  // begin, a newline, end
    if (each.prompt.size() + each.response.size() + ends > static_cast<std::size_t>(length)) {
      continue;
    }
    const Tokens prompt = Bytes().encode(each.prompt + "\n");
    const Tokens response = Bytes().encode(each.response);
    examples.add(prompt, response);
    read.insert(read.end(), prompt.begin(), prompt.end());
    read.insert(read.end(), response.begin(), response.end());
  }
  if (examples.size() == 0) {
    throw mora::ArgumentError(concat("of ", all.size(), " examples none has at most ", length,
                                     " bytes with its response"));
  }
  if (examples.size() < std::ssize(all)) {
    log << examples.size() << " of " << all.size() << " examples have at most " << length
        << " bytes and are used" << std::endl;
  }
  std::string name = concat("responses:", checksum_of(read), " length:", length);
  return {std::move(name), programs::any_data(std::move(examples))};
}

/// A decoder's weights after full training on the data.
[[nodiscard]] experiment::FrozenWeights base_weights(const TaskSettings& settings, const Data& data,
                                                     const std::string& name,
                                                     const Workplace& place) {
  const mora::LlamaConfig config = settings.shape.config(settings.length);
  const BaseTraining& base = settings.base;
  const auto train = [&] {
    *place.log << "training the base: " << name << std::endl;
    mora::SplitMix64 generator(base.seed);
    Model model(config, generator, 0.05);
    model.attach(
        learner, mora::FullSettings{},
        {.modules = {"embed_tokens", "input_layernorm", "post_attention_layernorm", "norm"},
         .all_linear = true});
    Optimizer optimizer({.learning_rate = base.learning_rate});
    mora::Batches<Examples> batches(data.examples,
                                    {.batch_size = settings.batch, .seed = base.seed});
    mora::train(model, optimizer,
                mora::CosineSchedule{.steps = base.steps, .warm_up = base.steps / 20}, batches,
                {.steps = base.steps, .clip_norm = 1.0}, mora::Progress(*place.log));
    model.merge();
    return model.weights();
  };
  const std::string file =
      concat("base-", experiment::checksum(std::as_bytes(std::span(name))), ".bin");
  return experiment::cached_weights(place.cache / file, "mora study " + name, config, *place.log,
                                    train);
}

/// A task on top of a base.
[[nodiscard]] Task on_base(std::string name, const TaskSettings& settings, const Data& general,
                           const Workplace& place) {
  const std::string base = concat(settings.shape.name(), " steps:", settings.base.steps,
                                  " batch:", settings.batch, " rate:", settings.base.learning_rate,
                                  " seed:", settings.base.seed, ' ', general.name);
  Task task;
  task.name = concat(name, ' ', base);
  task.start = [config = settings.shape.config(settings.length),
                weights = base_weights(settings, general, base, place)](std::uint64_t) {
    return Model(config, weights);
  };
  return task;
}

void set_data(Task& task, const TaskSettings& settings, const Data& train,
              std::initializer_list<std::pair<const char*, const Data*>> held_out_sets) {
  task.train = train.examples;
  task.name += " train:" + train.name;
  for (const auto& [name, data] : held_out_sets) {
    task.held_out.push_back(held_out(name, data->examples, settings.held_out, settings.batch));
    if (task.held_out.back().results.empty()) {
      throw mora::ArgumentError(concat("held out, ", name, ": expected 2 examples or more, found ",
                                       data->examples.size()));
    }
    task.name += concat(' ', name, ':', data->name, " of:", settings.held_out);
  }
}

/// Training and held-out data of one form: from files, or of `make(generator)`.
template <class Make>
[[nodiscard]] Task of_responses(const char* name, const TaskSettings& settings, const Files& files,
                                const Workplace& place, const Make& make) {
  std::set<std::string> known;  // no prompt that was trained on is held out
  const auto read = [&](const std::optional<std::string>& file, Index count, std::uint64_t seed,
                        bool held_out) {
    TextExamples all;
    if (file) {
      Index left_out = 0;
      for (mora::TextExample& example : mora::read_json_lines(*file, files.keys)) {
        const bool is_new = known.insert(example.prompt).second;
        if (is_new || !held_out) {
          all.push_back(std::move(example));
        } else {
          ++left_out;
        }
      }
      if (left_out > 0) {
        *place.log << *file << ": left out " << left_out
                   << " examples whose prompts are trained on or are there twice\n";
      }
    } else {
      Generator generator(seed);
      for (Index i = 0; i < count; ++i) {
        mora::TextExample example = make(generator);
        if (known.insert(example.prompt).second) all.push_back(std::move(example));
      }
    }
    return response_data(all, settings.length, *place.log);
  };
  const Tokens general = read_text(files.general, general_language, 10);
  const Data base = text_data(as_documents(general), settings.length);
  Task task = on_base(name, settings, base, place);
  const Data train = read(files.train, 4000, 11, false);
  const Data test = read(files.held_out, 6 * settings.held_out, 12, true);
  const Index wanted = 2 * settings.held_out;
  if (const Index found = test.examples.size(); found < wanted) {
    *place.log << "held out: " << found << " examples instead of " << wanted
               << ", half of them for the search of rates\n";
  }
  set_data(task, settings, train, {{"responses", &test}});
  return task;
}

}  // namespace

mora::LlamaConfig Shape::config(Index positions) const {
  return {.vocab_size = Bytes::vocabulary,
          .hidden_size = width,
          .intermediate_size = inner,
          .num_hidden_layers = layers,
          .num_attention_heads = heads,
          .max_position_embeddings = positions,
          .tie_word_embeddings = true};
}

std::string Shape::name() const {
  return concat("width:", width, " inner:", inner, " layers:", layers, " heads:", heads);
}

Task pretraining(const TaskSettings& settings, const Files& files) {
  Task task;
  task.name = concat("pretraining ", settings.shape.name());
  task.trains_embedding = true;
  task.start = [config = settings.shape.config(settings.length)](std::uint64_t seed) {
    mora::SplitMix64 generator(~seed);  // the adapters have the seed itself
    return Model(config, generator, 0.05);
  };
  const auto read = [&](const auto& file, std::uint64_t seed) {
    return text_data(read_text(file, general_language, seed), settings.length);
  };
  const Data train = read(files.train, 20);
  const Data test = read(files.held_out, 21);
  set_data(task, settings, train, {{"text", &test}});
  return task;
}

Task continual_pretraining(const TaskSettings& settings, const Files& files,
                           const Workplace& place) {
  const auto read = [&](const auto& file, std::uint64_t language, std::uint64_t seed) {
    return text_data(read_text(file, language, seed), settings.length);
  };
  const Data general = read(files.general, general_language, 10);
  Task task = on_base("continual", settings, general, place);
  const Data train = read(files.train, new_language, 30);
  const Data learnt = read(files.held_out, new_language, 31);
  const Data kept = read(files.general_held_out, general_language, 32);
  set_data(task, settings, train, {{"new", &learnt}, {"general", &kept}});
  return task;
}

Task mathematics(const TaskSettings& settings, const Files& files, const Workplace& place) {
  return of_responses("mathematics", settings, files, place,
                      [](Generator& generator) { return word_problem(generator); });
}

Task instructions(const TaskSettings& settings, const Files& files, const Workplace& place) {
  return of_responses("instructions", settings, files, place,
                      [language = InventedLanguage(general_language)](Generator& generator) {
                        return instruction(language, generator);
                      });
}

Task arithmetic(const TaskSettings& settings, const Workplace& place) {
  Generator generator(40);
  std::set<std::string> known;
  const auto draw = [&](const ChainSettings& chains, Index count) {
    return response_data(draw_chains(chains, count, known, generator), settings.length, *place.log);
  };
  // The base sees products as well, as tokens that it has never seen could not be learnt with its
  // embedding frozen.
  const ChainSettings with_noise{.operations = "++--*", .noise = "*"};
  const ChainSettings sums{.operations = "+-"};
  const ChainSettings products{.operations = "+-*", .needed = "*"};
  const Data before = draw(with_noise, 20'000);
  Task task = on_base("arithmetic", settings, before, place);
  const Data train = draw(products, 4'000);
  const Data learnt = draw(products, 2 * settings.held_out);
  const Data kept = draw(sums, 2 * settings.held_out);
  set_data(task, settings, train, {{"products", &learnt}, {"sums", &kept}});
  task.exact = true;
  return task;
}

}  // namespace study
