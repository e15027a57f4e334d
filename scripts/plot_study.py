#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws the CSV files that one of the paper's experiments (examples/study) left in a results
folder, as PNG there: what is held out by step, and the singular values of what was learnt.

usage: plot_study.py <results folder>

Needs matplotlib.
"""

import sys
from collections import defaultdict
from pathlib import Path

from plot_capacity import draw, line_style, methods_of, numbers, plt, read, save, seeds_text

BOUND = 0.1  # arXiv 2405.12130, figure 5


def ranks_of(rows):
    return [rank for rank in numbers(rows, "r") if rank > 0] or [0]


def of_rank(rows, rank):
    """Full training has no rank and is in every panel."""
    return [row for row in rows if int(row["r"]) in (0, rank)]


def plot_by_step(curves, folder):
    """A row for each held-out set, a column for each budget."""
    sets = list(dict.fromkeys(row["set"] for row in curves))
    exact = any(float(row["exact"]) > 0 for row in curves)
    lines = [(name, key) for name in sets for key in (("bits", "exact") if exact else ("bits",))]
    ranks = ranks_of(curves)
    figure, grid = plt.subplots(len(lines), len(ranks), squeeze=False, sharex=True, sharey="row",
                                figsize=(4.6 * len(ranks) + 2.0, 3.2 * len(lines) + 1.4))
    for row, (name, key) in enumerate(lines):
        end = []
        for column, rank in enumerate(ranks):
            axes = grid[row][column]
            rows = [line for line in of_rank(curves, rank) if line["set"] == name]
            last = max(int(line["step"]) for line in rows)
            for method in methods_of(rows):
                points = defaultdict(list)
                for line in rows:
                    if line["method"] == method:
                        points[int(line["step"])].append(
                            float(line[key]) * (100 if key == "exact" else 1))
                draw(axes, points, method, markers=False)
                end += [value for step in points if step >= last / 4 for value in points[step]]
            axes.set_title(f"{name}, r = {rank}")
            axes.set_xlim(left=0)
        label = "bits a byte" if key == "bits" else "answers right (%)"
        grid[row][0].set_ylabel(label)
        if key == "bits":  # what is before the first quarter would flatten the rest
            room = 0.08 * (max(end) - min(end))
            grid[row][0].set_ylim(min(end) - room, max(end) + room)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    figure.suptitle(f"Held out, by step ({seeds_text(curves)})")
    save(figure, list(grid.flat), folder / "by_step.png", 3 if len(ranks) == 1 else 5)


def plot_spectrum(values, folder):
    kinds = list(dict.fromkeys(row["kind"] for row in values))
    for rank in ranks_of(values):
        rows = of_rank(values, rank)
        figure, grid = plt.subplots(2, 4, figsize=(12.5, 6.2), squeeze=False, sharey=True)
        for axes, kind in zip(grid.flat, kinds):
            for method in methods_of(rows):
                points = [(int(row["place"]), float(row["value"])) for row in rows
                          if row["method"] == method and row["kind"] == kind]
                style = line_style(method)
                style["marker"] = ""
                axes.plot(*zip(*points), **style)
            axes.axhline(BOUND, color="#666666", linestyle=(0, (1, 2)), linewidth=1)
            axes.set_yscale("log")
            axes.set_ylim(1e-3, None)
            axes.set_title(kind)
            axes.set_xlabel("place")
        for axes in list(grid.flat)[len(kinds):]:
            axes.set_visible(False)
        for line in grid:
            line[0].set_ylabel("singular value")
        figure.suptitle(f"Singular values of what was learnt, r = {rank} "
                        "(mean over the layers, first seed; dotted: 0.1)")
        save(figure, list(grid.flat), folder / f"spectrum_r{rank}.png", 5)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    plot_by_step(read(folder / "curves.csv"), folder)
    plot_spectrum(read(folder / "singular_values.csv"), folder)


if __name__ == "__main__":
    main()
