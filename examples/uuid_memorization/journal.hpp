// SPDX-License-Identifier: MIT
#pragma once

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <utility>

#include "mora/io/error.hpp"
#include "uuid_memorization/run.hpp"

namespace uuid_memorization {

/// The runs that are done, in a file that grows by a line a run: an experiment that was interrupted
/// goes on where it was, since a run depends on its settings alone. Safe from any thread.
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
    std::ofstream file(path_, std::ios::trunc);
    for (const auto& [key, run] : known_) file << key << '\t' << text_of(run) << '\n';
    file.close();
    file_.open(path_, std::ios::app);
    require_written();
  }

  [[nodiscard]] std::size_t size() const { return known_.size(); }

  /// The run of that key, which `make()` makes unless it is there. A key says all that a run
  /// depends on, and has no tab or newline.
  template <class Make>
  [[nodiscard]] RunResult run(const std::string& key, const Make& make) {
    if (const auto found = known_.find(key); found != known_.end()) return found->second;
    RunResult result = make();
    const std::lock_guard lock(mutex_);
    file_ << key << '\t' << text_of(result) << std::endl;
    require_written();
    return result;
  }

  /// Once all results are in files of their own.
  void remove() {
    file_.close();
    std::filesystem::remove(path_);
  }

 private:
  static std::string exact(double value) {
    char text[32];
    std::snprintf(text, sizeof text, " %.17g", value);
    return text;
  }
  static std::string text_of(const RunResult& run) {
    std::ostringstream text;
    const RunSettings& s = run.settings;
    text << s.rank << ' ' << s.pairs << exact(s.learning_rate) << ' ' << s.seed << ' '
         << run.parameters << ' ' << run.budget << ' ' << run.work << ' ' << run.steps << ' '
         << run.diverged << exact(run.seconds) << ' ' << run.curve.size();
    for (const CurvePoint& point : run.curve) {
      const PairRecall& r = point.recall;
      text << ' ' << point.step << exact(r.loss) << exact(r.accuracy) << exact(r.bits)
           << exact(r.verbatim) << exact(r.first_four);
    }
    return text.str();
  }
  [[nodiscard]] RunResult parse(const std::string& line) const {
    std::istringstream text(line);
    RunResult run;
    RunSettings& s = run.settings;
    std::size_t points = 0;
    text >> s.rank >> s.pairs >> s.learning_rate >> s.seed >> run.parameters >> run.budget >>
        run.work >> run.steps >> run.diverged >> run.seconds >> points;
    for (std::size_t i = 0; text && i < points; ++i) {
      CurvePoint& point = run.curve.emplace_back();
      PairRecall& r = point.recall;
      text >> point.step >> r.loss >> r.accuracy >> r.bits >> r.verbatim >> r.first_four;
    }
    if (!text || run.curve.empty()) throw mora::FormatError(path_, "a line that is no run");
    if (!run.diverged) run.recall = run.curve.back().recall;
    return run;
  }
  void require_written() const {
    if (!file_) throw mora::FileError(path_, "cannot write");
  }

  std::filesystem::path path_;
  std::map<std::string, RunResult> known_;  // not changed after construction
  std::ofstream file_;
  std::mutex mutex_;
};

}  // namespace uuid_memorization
