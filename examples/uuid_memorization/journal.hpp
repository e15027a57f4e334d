// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <istream>
#include <ostream>

#include "experiment/journal.hpp"
#include "uuid_memorization/run.hpp"

namespace uuid_memorization {

inline void put_run(std::ostream& out, const RunResult& run) {
  using experiment::exact;
  const RunSettings& s = run.settings;
  out << s.rank << ' ' << s.pairs << ' ' << exact(s.learning_rate) << ' ' << s.seed << ' '
      << run.parameters << ' ' << run.budget << ' ' << run.work << ' ' << run.steps << ' '
      << run.diverged << ' ' << exact(run.seconds) << ' ' << run.curve.size();
  for (const CurvePoint& point : run.curve) {
    const PairRecall& r = point.recall;
    out << ' ' << point.step;
    for (const double each : {r.loss, r.accuracy, r.bits, r.verbatim, r.first_four}) {
      out << ' ' << exact(each);
    }
  }
}

inline void get_run(std::istream& in, RunResult& run) {
  RunSettings& s = run.settings;
  std::size_t points = 0;
  in >> s.rank >> s.pairs >> s.learning_rate >> s.seed >> run.parameters >> run.budget >>
      run.work >> run.steps >> run.diverged >> run.seconds >> points;
  for (std::size_t i = 0; in && i < points; ++i) {
    CurvePoint& point = run.curve.emplace_back();
    PairRecall& r = point.recall;
    in >> point.step >> r.loss >> r.accuracy >> r.bits >> r.verbatim >> r.first_four;
  }
  if (run.curve.empty()) in.setstate(std::ios::failbit);
  if (in && !run.diverged) run.recall = run.curve.back().recall;
}

using Journal = experiment::Journal<RunResult>;

}  // namespace uuid_memorization
