// SPDX-License-Identifier: MIT
//
// Continues a prompt with a LLaMA, with an adapter or without.

#include <charconv>
#include <filesystem>
#include <iostream>
#include <mora/io/peft/attach.hpp>
#include <mora/models/llama/generate.hpp>
#include <mora/train/byte_tokenizer.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "programs/language_model.hpp"
#include "programs/training_data.hpp"

namespace {

using Bytes = mora::ByteTokenizer;

/// "5 17 3"
[[nodiscard]] std::vector<mora::Token> numbers_in(const std::string& text) {
  std::istringstream in(text);
  std::vector<mora::Token> tokens;
  for (std::string word; in >> word;) {
    const char* const end = word.data() + word.size();
    const auto [rest, error] = std::from_chars(word.data(), end, tokens.emplace_back());
    if (error != std::errc() || rest != end) {
      throw mora::ArgumentError("prompt: expected numbers of tokens, separated by blanks, found " +
                                word);
    }
  }
  return tokens;
}

/// As finetune's prompts are.
[[nodiscard]] std::vector<mora::Token> text_tokens(const std::string& text) {
  std::vector<mora::Token> tokens = Bytes().encode(text);
  tokens.insert(tokens.begin(), Bytes::bos);
  return tokens;
}

}  // namespace

int main(int count, char** arguments) {
  CLI::App app(
      "Continues a prompt with a Hugging Face LLaMA folder, with a PEFT adapter or "
      "without. The prompt is text for models whose tokens are bytes, as finetune trains them; "
      "with --tokens it is the numbers of tokens, and so is what is printed.",
      "generate");
  std::string model_path, prompt;
  std::optional<std::string> adapter;
  mora::GenerationSettings settings;
  std::uint64_t seed = 0;
  bool tokens = false, transposed = false;
  programs::ModelSettings model_settings;
  app.add_option("model", model_path, "Folder with config.json and weights, or a config.json")
      ->required();
  app.add_option("prompt", prompt, "Text, or numbers of tokens")->required();
  app.add_option("--adapter", adapter, "Folder with adapter_config.json");
  app.add_flag("--transposed", transposed, "The adapter is a MoRA of PaddleNLP");
  app.add_flag("--tokens", tokens, "The prompt is numbers of tokens");
  app.add_option("--most", settings.max_new_tokens, "New tokens at most")->capture_default_str();
  app.add_option("--temperature", settings.sampling.temperature, "0: the likeliest token always")
      ->capture_default_str();
  app.add_option("--top-p", settings.sampling.top_p, "Share of the likeliest tokens to draw from")
      ->capture_default_str();
  app.add_option("--stop", settings.stop, "Tokens that end the text, besides the model's own")
      ->delimiter(',')
      ->allow_extra_args(false);
  programs::add_model_options(app, model_settings);
  app.add_option("--seed", seed, "Of drawing, and of a config's random weights")
      ->capture_default_str();
  return programs::run(app, count, arguments, [&] {
    const auto refuse = [&app](bool idle, const char* option, const char* needs) {
      programs::refuse_idle(app, idle, option, needs);
    };
    const bool greedy = settings.sampling.temperature == 0.0;
    refuse(!adapter, "--transposed", "--adapter");
    refuse(greedy, "--top-p", "a --temperature above 0");
    refuse(greedy && !std::filesystem::is_regular_file(model_path), "--seed",
           "a --temperature above 0, or random weights of a config.json");
    auto [model, file] = programs::language_model(model_path, seed, model_settings);
    if (!tokens) programs::require_bytes(model.config().vocab_size);
    if (adapter) {
      const mora::PeftFolder folder(*adapter, {.transposed = transposed});
      programs::print_warnings(folder.warnings());
      programs::warn_of_another_base(folder, model_path);
      mora::attach_peft(model, "adapter", folder);
    }
    std::vector<mora::Token> start = tokens ? numbers_in(prompt) : text_tokens(prompt);
    mora::SplitMix64 generator(seed);
    const mora::Index vocabulary = model.config().vocab_size;
    for (const mora::Token token : settings.stop) {
      if (token >= 0 && token < vocabulary) continue;
      throw mora::ArgumentError("--stop: expected 0 to " + std::to_string(vocabulary - 1) +
                                ", found " + std::to_string(token));
    }
    for (const mora::Index token : file.eos_token_id) {
      if (token < vocabulary) settings.stop.push_back(static_cast<mora::Token>(token));
    }
    if (!tokens) settings.stop.push_back(Bytes::eos);
    const auto text = mora::generate(model, start, settings, generator);
    if (tokens) {
      for (const mora::Token token : text) std::cout << token << ' ';
      std::cout << '\n';
    } else {
      std::cout << Bytes().decode(text) << '\n';
    }
  });
}
