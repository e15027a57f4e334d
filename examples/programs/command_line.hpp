// SPDX-License-Identifier: MIT
#pragma once

#include <CLI/CLI.hpp>
#include <csignal>
#include <exception>
#include <functional>
#include <iostream>
#include <mora/io/in_quotes.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace programs {

/// What is wrong with a command line, after the program's name. A misspelt option comes first,
/// because it may be the one that is missing.
inline std::string command_line_failure(const CLI::App* app, const CLI::Error& error) {
  std::string text = app->get_name() + ": ";
  if (const std::vector<std::string> unknown = app->remaining(); unknown.empty()) {
    text += mora::detail::without_controls(error.what());
  } else {
    text += "not known:";
    for (const std::string& each : unknown) text += ' ' + mora::detail::in_quotes(each);
  }
  return text + "\nRun with --help for more information.\n";
}

/// Parses the command line and calls `work`. Exit codes: 0 done, 1 a file or an argument's value is
/// at fault (one line on stderr says which), 2 the command line itself.
inline int run(CLI::App& app, int count, char** arguments, const std::function<void()>& work) {
  app.failure_message(command_line_failure);
  try {
    app.parse(count, arguments);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  // Beyond a limit of a file's size a call fails then, and says so, instead of ending the program.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    work();
    std::cout.flush();
    if (!std::cout) throw std::runtime_error("cannot write to the standard output");
    return 0;
  } catch (const std::exception& error) {
    std::cerr << app.get_name() << ": " << mora::detail::without_controls(error.what()) << '\n';
    return 1;
  }
}

}  // namespace programs
