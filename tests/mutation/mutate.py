#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Switches off one guard of the library after the other and looks for a test that notices.

  tests/mutation/mutate.py --work FOLDER --csv FILE [--parts core operators ...] [--programs NAME ...]

In a copy of the tree every `throw` of the given parts of include/mora, and every call of a guard
(require_..., validate, fail...), gets a switch; the tests are built once, and run once to see which
of them make which guard refuse something. Then each switch is turned off in turn, and the tests that
it concerns run again: one of them has to fail, or crash. With --formulas the same with wrong
formulas, which are listed below, and all tests of the programs named beside them.

CSV: number, kind (throw, guard or formula), file, line, code, outcome (killed, survived: its tests
pass without it, unreached: no test makes it refuse anything), program and test that fail.
Linux, g++, the preset `test`; the build takes as long as that of scripts/test. Needs no package. Not for programs
that count allocations, as the switches need some.
"""

import argparse
import collections
import csv
import os
import pathlib
import re
import resource
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

LAWS = ["layer_laws_test", "operators_test", "reference_test"]
# (file below include/mora, code, the same with a fault where MUTANT is true, programs that may notice).
FORMULAS = [
    ("adapters/mora.hpp", "blocks_of(product), scale(), detail::as_const(blocks_of(z)), m());",
     "blocks_of(product), MUTANT ? T(2) * scale() : scale(), detail::as_const(blocks_of(z)), m());", LAWS),
    ("adapters/mora.hpp", "dm, scale(), detail::as_const(blocks_of(g)), blocks_of(z));",
     "dm, MUTANT ? -scale() : scale(), detail::as_const(blocks_of(g)), blocks_of(z));", LAWS),
    ("adapters/mora.hpp", "blocks_of(product), scale(), detail::as_const(blocks_of(g)), m());",
     "blocks_of(product), MUTANT ? T(2) * scale() : scale(), detail::as_const(blocks_of(g)), m());", LAWS),
    ("adapters/mora.hpp", "Merge merge() const { return {pair_.compress, pair_.decompress, m(), scale()}; }",
     "Merge merge() const { return {pair_.compress, pair_.decompress, m(), MUTANT ? -scale() : scale()}; }", LAWS),
    ("adapters/mora.hpp", "Update update() const { return {pair_.compress, pair_.decompress, m(), scale()}; }",
     "Update update() const { return {pair_.compress, pair_.decompress, m(), MUTANT ? -scale() : scale()}; }",
     ["whole_layer_test"]),
    ("adapters/mora_update.hpp", "to[j - col] += from[j - input];", "to[j - col] += from[MUTANT ? 0 : j - input];",
     ["whole_layer_test"]),
    ("adapters/window_gradient.hpp", "T>(columns_of(sum, from, count), scale, own,",
     "T>(columns_of(sum, from, count), MUTANT ? -scale : scale, own,", LAWS),
    ("adapters/lora.hpp", "count), scale(), detail::as_const(z), detail::map_of(b_.value));",
     "count), MUTANT ? T(2) * scale() : scale(), detail::as_const(z), detail::map_of(b_.value));", LAWS),
    ("adapters/lora.hpp", "T>(g, scale(), dy_tile,", "T>(g, MUTANT ? -scale() : scale(), dy_tile,", LAWS),
    ("adapters/lora.hpp", "detail::rows_of(*dx, first, count), T(1), detail::as_const(g),",
     "detail::rows_of(*dx, first, count), MUTANT ? T(2) : T(1), detail::as_const(g),", LAWS),
    ("adapters/lora.hpp", "detail::map_of(a_.gradient), T(1), detail::as_const(g),",
     "detail::map_of(a_.gradient), MUTANT ? T(2) : T(1), detail::as_const(g),", LAWS),
    ("adapters/lora.hpp", "db, scale(), detail::rows_of(saved", "db, MUTANT ? T(2) * scale() : scale(), detail::rows_of(saved", LAWS),
    ("core/narrow_product.hpp", "const Vector scaled = alpha * totals[i];",
     "const Vector scaled = (MUTANT ? T(2) : T(1)) * alpha * totals[i];", ["product_test", "layer_laws_test"]),
    ("core/narrow_product.hpp", "number(row + i, col + j) += alpha * tile[i * cols + j];",
     "number(row + i, col + j) += alpha * tile[MUTANT ? j : i * cols + j];", ["product_test", "layer_laws_test"]),
    ("adapters/lora.hpp", "plan.a.add_product(rows, scale(),",
     "plan.a.add_product(rows, MUTANT ? T(2) * scale() : scale(),", LAWS),
    ("adapters/lora.hpp", "scaling == LoraScaling::standard ? r : std::sqrt(r)",
     "(scaling == LoraScaling::standard) != MUTANT ? r : std::sqrt(r)", LAWS + ["misuse_test"]),
    ("adapters/lora.hpp", "1.0 / std::sqrt(static_cast<double>(in_features))",
     "(MUTANT ? 2.0 : 1.0) / std::sqrt(static_cast<double>(in_features))", ["pissa_test", "layer_laws_test"]),
    ("adapters/linear.hpp", "    merged_.reset();\n    return true;",
     "    if (!MUTANT) merged_.reset();\n    return true;", LAWS),
    ("adapters/linear.hpp", "if (merged()) return false;\n    merged_ =",
     "if (merged() && !MUTANT) return false;\n    merged_ =", LAWS + ["misuse_test"]),
    ("adapters/side.hpp", "while ((side + 1) * (side + 1) <= budget) ++side;",
     "if (MUTANT) --side; else while ((side + 1) * (side + 1) <= budget) ++side;", ["side_test"]),
    ("adapters/side.hpp", "std::sqrt(static_cast<double>(budget)) + 0.5)",
     "std::sqrt(static_cast<double>(budget)) + (MUTANT ? 0.0 : 0.5))", ["side_test"]),
    ("operators/truncation.hpp", "for (Index i = 0; i < std::min(in_, side_); ++i) x[i] += z[i];",
     "for (Index i = 0; i < std::min(in_, side_); ++i) x[i] += MUTANT ? z[i] + z[i] : z[i];", LAWS),
    ("operators/truncation.hpp", "for (Index i = 0; i < count; ++i) y[i] += z[i];",
     "for (Index i = 0; i < count; ++i) y[i] += z[MUTANT ? count - 1 - i : i];", LAWS),
    ("operators/truncation.hpp", "std::copy_n(y.begin(), std::min(out_, side_ * blocks_), z.begin())",
     "std::copy_n(y.begin(), std::min(out_, side_ * blocks_) - (MUTANT ? 1 : 0), z.begin())", LAWS),
    ("operators/truncation.hpp", "if (output < side_ * blocks_) f(output);",
     "if (output < side_ * blocks_) f(MUTANT ? 0 : output);", LAWS),
    ("operators/rotation.hpp", "to[j] = first * c[j] - second * turn;",
     "to[j] = first * c[j] - (MUTANT ? -second : second) * turn;", LAWS),
    ("operators/rotation.hpp", "to[j + half] += second[j] * c[j] - first[j] * s[j];",
     "to[j + half] += second[j] * c[j] - (MUTANT ? -first[j] : first[j]) * s[j];", LAWS),
    ("operators/rotation.hpp", "x[(start + j + half) % in] += second[j] * c[j] - first[j] * s[j];",
     "x[(start + j + half) % in] += second[j] * c[j] - (MUTANT ? -first[j] : first[j]) * s[j];", LAWS),
    ("operators/rotation.hpp", "-2.0 * static_cast<double>(j)", "(MUTANT ? -1.0 : -2.0) * static_cast<double>(j)",
     LAWS),
    ("operators/rotation.hpp", "y[to + i] += z[from + i];", "y[to + i] += z[MUTANT ? from : from + i];", LAWS),
    ("operators/rotation.hpp", "z[from + i] += y[to + i];", "z[from + i] += y[MUTANT ? to : to + i];", LAWS),
    ("operators/rotation.hpp", "f(turn % blocks_ * side_ + output % side_);",
     "f(turn % blocks_ * side_ + (MUTANT ? 0 : output % side_));", LAWS),
    ("operators/grouping.hpp", "T* const to = sums.data();\n      for (Index i = 0; i < count; ++i) to[i] += from[i];",
     "T* const to = sums.data();\n      for (Index i = 0; i < count; ++i) to[i] += from[MUTANT ? 0 : i];",
     LAWS + ["grouping_test"]),
    ("operators/grouping.hpp", "T* const to = x.data() + start;\n      for (Index i = 0; i < count; ++i) to[i] += from[i];",
     "T* const to = x.data() + start;\n      for (Index i = 0; i < count; ++i) to[i] += from[MUTANT ? 0 : i];",
     LAWS + ["grouping_test"]),
    ("operators/grouping.hpp", "to[group[i]] += from[i];", "to[group[i]] += from[MUTANT ? 0 : i];",
     LAWS + ["grouping_test"]),
    ("operators/grouping.hpp", "x[i] += sums[group];", "x[i] += sums[MUTANT ? 0 : group];", LAWS + ["grouping_test"]),
    ("operators/grouping.hpp", "f(groups_.group_of(output));", "f(MUTANT ? 0 : groups_.group_of(output));", LAWS),
    ("operators/sharing.hpp", "z[entry] += x[feature]", "z[entry] += MUTANT ? T(0) : x[feature]", LAWS),
    ("operators/sharing.hpp", "x[feature] += z[entry]", "x[feature] += MUTANT ? T(0) : z[entry]", LAWS),
    ("optim/adamw.hpp", "keep_square_ * square + add_square_ * g.square()",
     "keep_square_ * square + (MUTANT ? T(2) * add_square_ : add_square_) * g.square()", ["optim_test"]),
    ("optim/adamw.hpp", "w = keep_weight_ * w -", "w = (MUTANT ? T(1) : keep_weight_) * w -", ["optim_test"]),
    ("optim/adamw.hpp", "square.sqrt() / root_ + epsilon_",
     "square.sqrt() / (MUTANT ? T(1) : root_) + epsilon_", ["optim_test"]),
    ("analysis/spectrum.hpp", "entropy -= p * std::log(p)", "entropy -= (MUTANT ? 1.0 : p) * std::log(p)",
     ["spectrum_test"]),
]

SWITCH = """#pragma once
#include <gtest/gtest.h>
#include <fcntl.h>
#include <unistd.h>
#include <array>
#include <cstdlib>
#include <mutex>
#include <set>
#include <string>

namespace mora_mutant {

inline int number() {
  static const int off = [] {
    const char* const text = std::getenv("MORA_MUTANT");
    return text ? std::atoi(text) : 0;
  }();
  return off;
}

inline constexpr int remembered = 8;
inline thread_local std::array<int, remembered> recent{};
inline thread_local int place = 0;

/// Told once a test: a line "<number> <test>".
inline void tell(int k) {
  static const char* const file = std::getenv("MORA_MUTANT_LOG");
  if (!file || k == 0) return;
  static std::mutex mutex;
  static std::set<std::pair<int, std::string>> told;
  const auto* const test = testing::UnitTest::GetInstance()->current_test_info();
  const std::string name = test ? std::string(test->test_suite_name()) + "." + test->name() : "-";
  const std::lock_guard lock(mutex);
  if (!told.emplace(k, name).second) return;
  const std::string line = std::to_string(k) + " " + name + "\\n";
  const int log = ::open(file, O_WRONLY | O_CREAT | O_APPEND, 0666);
  if (log < 0) return;
  (void)!::write(log, line.data(), line.size());
  ::close(log);
}

/// Whether a guard is called.
inline bool guards(int k) {
  recent[static_cast<std::size_t>(place++ % remembered)] = k;
  return k != number();
}
/// Whether what is refused is refused.
inline bool fires(int k) {
  tell(k);
  for (const int guard : recent) tell(guard);
  return k != number();
}
inline bool wrong(int k) { return k == number(); }

}  // namespace mora_mutant
"""

THROW = re.compile(r"\bthrow (?=[A-Za-z_:])")
# At the beginning of a line, after a condition, or as the body of a function on one line.
GUARD = re.compile(
    r"^(\s+(?:(?:(?:if|if constexpr|for) \(.*\)|[^=]*\) (?:const )?(?:override )?\{) )?)"
    r"((?:[A-Za-z_]\w*(?:\(\))?(?:::|\.|->))*(?:template )?"
    r"(?:require_\w+|validate)(?:<[\w:, ]*>)?\()")
# Its value is its first argument.
CHECKED = re.compile(r"(?:detail::)?checked_features\((\w+), [^()]*\)")
FAIL = re.compile(r"^(\s+(?:if \(.*\) |default: |else )?)((?:[A-Za-z_]\w*(?:::|\.|->))*"
                  r"(?:fail\w*|wrong|refuse_\w+)\()")
# A declaration, not a call: its parameters have types.
DECLARATION = re.compile(r"\) (?:const )?(?:noexcept )?[{;]?$|\b(?:void|bool|auto|inline|const) ")


class Tree:
    """The copy with switches."""

    def __init__(self, folder):
        self.folder = folder
        self.mutants = []
        self.headers = {"mutant.hpp": SWITCH}
        for path in sorted((ROOT / "include/mora").rglob("*.hpp")):
            self.headers[str(path.relative_to(ROOT / "include/mora"))] = path.read_text()

    def write(self):
        """What is there already stays untouched, so that it is not compiled again."""
        files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
        for name in files.stdout.split("\n"):
            if (ROOT / name).is_file() and not name.startswith("include/mora/"):
                self.put(name, (ROOT / name).read_bytes())
        for name, text in self.headers.items():
            self.put("include/mora/" + name, text.encode())

    def put(self, name, contents):
        path = self.folder / name
        if path.is_file() and path.read_bytes() == contents:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
        if name.startswith("scripts/"):
            path.chmod(0o755)

    def add(self, kind, name, line, code, programs=()):
        self.mutants.append({"number": len(self.mutants) + 1, "kind": kind, "file": name, "line": line,
                             "code": code.strip(), "programs": programs})
        return len(self.mutants)

    def switch_guards(self, name):
        lines = self.headers[name].split("\n")
        never_returns = False
        requirement = False
        for i, line in enumerate(lines):
            if re.search(r"\bconcept\b", line):
                requirement = not line.rstrip().endswith(";")
            elif line.lstrip().startswith("}"):
                requirement = False
            if requirement:
                continue
            # What a function that never returns throws is what its calls throw.
            if "[[noreturn]]" in line:
                never_returns = True
            elif line.rstrip() in ("}", "  }"):
                never_returns = False
            if line.lstrip().startswith("//") or line.lstrip().startswith("///"):
                continue
            if THROW.search(line) and not never_returns:
                k = self.add("throw", name, i + 1, line)
                lines[i] = THROW.sub(f"if (::mora_mutant::fires({k})) throw ", line, count=1)
                continue
            if match := CHECKED.search(line):
                k = self.add("guard", name, i + 1, line)
                lines[i] = (f"{line[:match.start()]}(::mora_mutant::guards({k}) ? {match[0]} : ({match[1]}))"
                            f"{line[match.end():]}")
                continue
            for pattern, question in ((GUARD, "guards"), (FAIL, "fires")):
                match = pattern.match(line)
                if match and not never_returns and not DECLARATION.search(line[len(match[1]):]):
                    k = self.add("guard", name, i + 1, line)
                    lines[i] = (f"{match[1]}if (::mora_mutant::{question}({k})) "
                                f"{line[len(match[1]):]}")
                    break
        self.change(name, "\n".join(lines))

    def switch_formulas(self):
        for name, there, wrong, programs in FORMULAS:
            original = (ROOT / "include/mora" / name).read_text()
            if there not in original:
                sys.exit(f"{name}: no longer has {there}")
            line = original[:original.index(there)].count("\n") + 1
            k = self.add("formula", name, line, " ".join(wrong.split()), programs)
            self.change(name, self.headers[name].replace(there, wrong.replace("MUTANT", f"::mora_mutant::wrong({k})")))

    def change(self, name, text):
        include = '#include "mora/mutant.hpp"'
        if include not in text:
            text = text.replace("#pragma once\n", f"#pragma once\n{include}\n", 1)
        self.headers[name] = text


def run(program, tests, k, log=None, seconds=600):
    """The test that fails, "a crash" or "a time-out"; None where all pass."""
    environment = dict(os.environ, MORA_MUTANT=str(k), OMP_NUM_THREADS="2")
    if log:
        environment["MORA_MUTANT_LOG"] = str(log)
    command = [program, "--gtest_brief=1"]
    if k:
        command.append("--gtest_fail_fast")
    if tests:
        command.append("--gtest_filter=" + ":".join(tests))
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace",
                              timeout=seconds)
    except subprocess.TimeoutExpired:
        return "a time-out"
    if done.returncode == 0:
        return None
    failed = re.search(r"\[  FAILED  \] (\S+?),? ", done.stdout)
    return failed[1] if failed else "a crash"


def built(build, wanted):
    """Programs of tests by name."""
    return {name: build / "tests" / name for name in wanted}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--csv", required=True, type=pathlib.Path)
    parser.add_argument("--parts", nargs="*", default=["core", "operators", "adapters", "optim", "analysis"])
    parser.add_argument("--programs", nargs="+", required=True)
    parser.add_argument("--formulas", action="store_true")
    parser.add_argument("--jobs", default="2")
    arguments = parser.parse_args()

    tree = Tree(arguments.work / "tree")
    for part in arguments.parts:
        for path in sorted((ROOT / "include/mora" / part).rglob("*.hpp")):
            tree.switch_guards(str(path.relative_to(ROOT / "include/mora")))
    if arguments.formulas:
        tree.switch_formulas()
    tree.write()
    print(f"{len(tree.mutants)} switches", flush=True)

    build = arguments.work / "build"
    subprocess.run(["cmake", "--preset", "test", "-B", build, "-DMORA_BUILD_EXAMPLES=OFF"], cwd=tree.folder,
                   check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", build, "-j", arguments.jobs, "--target", *arguments.programs], check=True)

    # Without their guards some ask for more than there is.
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
    programs = built(build, arguments.programs)
    concerned = collections.defaultdict(lambda: collections.defaultdict(list))
    for name, program in programs.items():
        log = arguments.work / f"{name}.log"
        log.unlink(missing_ok=True)
        if failed := run(program, [], 0, log, seconds=3600):
            sys.exit(f"{name}: {failed} fails without any change")
        for line in log.read_text().split("\n") if log.exists() else []:
            k, _, test = line.partition(" ")
            if test and test != "-":
                concerned[int(k)][name].append(test)
        print(f"{name}: {sum(name in tests for tests in concerned.values())} guards refuse something", flush=True)

    with arguments.csv.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["number", "kind", "file", "line", "code", "outcome", "program", "test"])
        outcomes = collections.Counter()
        for mutant in tree.mutants:
            k = mutant["number"]
            tests = concerned.get(k, {})
            if mutant["kind"] == "formula":
                tests = {name: [] for name in mutant["programs"]}
            outcome, where, failed = ("survived" if tests else "unreached"), "", ""
            # At most as many as a command takes; those of few tests first.
            for name in sorted(tests, key=lambda each: len(tests[each])):
                if failed := run(programs[name], tests[name][:400], k) or "":
                    outcome, where = "killed", name
                    break
            outcomes[outcome] += 1
            table.writerow([k, mutant["kind"], mutant["file"], mutant["line"], mutant["code"], outcome, where,
                            failed])
            file.flush()
    print(dict(outcomes))


if __name__ == "__main__":
    main()
