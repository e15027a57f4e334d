// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <istream>
#include <map>
#include <mutex>
#include <ostream>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <utility>

#include "mora/io/atomic_file.hpp"
#include "mora/io/error.hpp"

namespace experiment {

/// A number that is read back with the same bits.
[[nodiscard]] inline std::string exact(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

/// The outcome of a run that fits on a line: `put_run` writes it, `get_run` reads it back, and
/// leaves the stream failed where it cannot.
template <class Run>
concept JournalledRun = std::default_initializable<Run> &&
    requires(std::ostream& out, std::istream& in, const Run& run, Run& into) {
  put_run(out, run);
  get_run(in, into);
};

/// The runs that are done, in a file that grows by a line a run: an experiment that was interrupted
/// goes on where it was, since a run depends on its settings alone. Safe from any thread.
template <JournalledRun Run>
class Journal {
 public:
  /// With the runs that the file has, if there is one. A last line without an end is left out.
  explicit Journal(std::filesystem::path path) : path_(std::move(path)) {
    std::ifstream old(path_);
    for (std::string line; std::getline(old, line) && !old.eof();) {
      const std::size_t tab = line.find('\t');
      if (tab == std::string::npos) throw mora::FormatError(path_, "expected a tab in every line");
      known_[line.substr(0, tab)] = parse(line.substr(tab + 1));
    }
    old.close();
    // Whole lines only, also where the last one was cut.
    std::ostringstream lines;
    for (const auto& [key, run] : known_) {
      lines << key << '\t';
      put_run(lines, run);
      lines << '\n';
    }
    const std::string text = lines.str();
    mora::AtomicFile file(path_);
    file.write(std::as_bytes(std::span(text)));
    file.commit();
    file_.open(path_, std::ios::app);
    require_written();
  }

  [[nodiscard]] std::size_t size() const { return known_.size(); }

  /// The run of that key, which `make()` makes unless it is there. A key says all that a run
  /// depends on, and has no tab or newline.
  template <class Make>
  [[nodiscard]] Run run(const std::string& key, const Make& make) {
    if (const auto found = known_.find(key); found != known_.end()) {
      const std::lock_guard lock(mutex_);
      used_.insert(key);
      return found->second;
    }
    Run result = make();
    const std::lock_guard lock(mutex_);
    file_ << key << '\t';
    put_run(file_, result);
    file_ << std::endl;
    require_written();
    return result;
  }

  /// Once all results are in files of their own. Where it had runs that were not asked for, of a
  /// larger grid say, it stays for them.
  void remove() {
    file_.close();
    if (used_.size() == known_.size()) std::filesystem::remove(path_);
  }

 private:
  [[nodiscard]] Run parse(const std::string& line) const {
    std::istringstream text(line);
    Run run;
    get_run(text, run);
    if (!text) throw mora::FormatError(path_, "a line that is no run");
    return run;
  }
  void require_written() const {
    if (!file_) throw mora::FileError(path_, "cannot write");
  }

  std::filesystem::path path_;
  std::map<std::string, Run> known_;  // not changed after construction
  std::set<std::string> used_;        // of these
  std::ofstream file_;
  std::mutex mutex_;
};

}  // namespace experiment
