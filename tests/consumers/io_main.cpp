// SPDX-License-Identifier: MIT
#include <filesystem>
#include <mora/io/json_lines.hpp>
#include <mora/io/write_token_file.hpp>

int main() {
  const std::vector<mora::Token> tokens = {1, 2, 3};
  mora::write_token_file("consumer_tokens", tokens, mora::TokenType::uint16);
  const mora::TokenFile file("consumer_tokens", {.vocabulary = 4});
  std::filesystem::remove("consumer_tokens");
  try {
    (void)mora::read_json_lines("consumer_tokens");
  } catch (const mora::FileError&) {
    return file.size() == 3 && file[2] == 3 ? 0 : 1;
  }
  return 1;
}
