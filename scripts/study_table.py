#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the results of one of the paper's experiments (examples/study) as a Markdown table: what
docs/results/paper.md shows.

usage: study_table.py <results folder>
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def spread(values, digits, factor=1.0):
    lost = sum(value == "" for value in values)  # of runs that diverged
    values = [factor * float(value) for value in values if value]
    if not values:
        return "diverged"
    deviation = stdev(values) if len(values) > 1 else 0.0
    text = f"{mean(values):.{digits}f} ± {deviation:.{digits}f}"
    return text + (f", {lost} diverged" if lost else "")


def trainable(row):
    """Of the linear layers, and what LoRA has at that rank."""
    budget = f" ({int(row['budget']):,})" if row["budget"] != "0" else ""
    return f"{int(row['parameters']):,}{budget}"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    rows = read(folder / "runs.csv")
    cases = list(dict.fromkeys((row["method"], row["r"]) for row in rows))
    sets = list(dict.fromkeys(row["set"] for row in rows))
    exact = any(float(row["exact"] or 0) > 0 for row in rows)
    edges = {(row["method"], row["r"]) for row in read(folder / "learning_rates.csv")
             if row["at_edge"] == "1"}
    spectra = defaultdict(list)
    for row in read(folder / "spectrum.csv"):
        spectra[row["method"], row["r"]].append(row)
    costs = {(row["method"], row["r"]): row for row in read(folder / "cost.csv")}

    before = {name: mean(float(row["bits_before"]) for row in rows if row["set"] == name)
              for name in sets}
    header = ["method", "r", "trainable (budget)", "rate"]
    for name in sets:
        header.append(f"{name}, bits a byte (before: {before[name]:.3f})")
        if exact:
            header.append(f"{name}, answers right %")
    header += ["σ > 0.1", "effective rank", "step, times the first", "MiB"]
    print("| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|")
    for case in cases:
        of_case = [row for row in rows if (row["method"], row["r"]) == case]
        first = of_case[0]
        cells = [case[0], case[1] if case[1] != "0" else "–", trainable(first),
                 first["learning_rate"] + (" (edge)" if case in edges else "")]
        for name in sets:
            of_set = [row for row in of_case if row["set"] == name]
            cells.append(spread([row["bits"] for row in of_set], 3))
            if exact:
                cells.append(spread([row["exact"] for row in of_set], 1, 100))
        for key in ("above_0.1", "effective_rank"):
            values = [float(row[key]) for row in spectra[case]]
            cells.append(f"{mean(values):.1f}" if values else "–")
        cells += [f"{float(costs[case]['times_first']):.2f}", f"{float(costs[case]['mib']):.1f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
