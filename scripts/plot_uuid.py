#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws the CSV files that examples/uuid_memorization left in a results folder, as PNG there, and
fits the parametric memory law to them (law.csv, and a table on the console).

usage: plot_uuid.py <results folder>

The law (arXiv 2605.30260): the loss falls by C r^alpha l^-beta + b, for LoRA of rank r and l
characters to remember. Needs matplotlib.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from plot_capacity import (by_pairs, draw, line_style, methods_of, numbers, panels,
                           plain_log, plt, read, save, seeds_text)


def rows_at(rows, rank):
    """Those of a budget, and full training, which has none."""
    return [row for row in rows if row["r"] in (rank, "0")]


def budgets(rows):
    return [str(r) for r in numbers(rows, "r") if r > 0]


def budget_text(runs, rank):
    counts = sorted({int(row["parameters"]) for row in runs if row["r"] == rank})
    span = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return f"r = {rank}, {span} trainable parameters"


def plot_by_step(curves, runs, folder):
    """For each budget: accuracy above, loss below, a column for each set size."""
    for rank in budgets(curves):
        rows = rows_at(curves, rank)
        sizes = numbers(rows, "pairs")
        figure, grid = plt.subplots(2, len(sizes), figsize=(3.2 * len(sizes) + 0.6, 5.4),
                                    squeeze=False, sharey="row", sharex="col")
        for column, pairs in enumerate(sizes):
            for row, (key, factor) in enumerate((("accuracy", 100), ("loss", 1))):
                one = grid[row][column]
                for method in methods_of(rows):
                    points = defaultdict(list)
                    for line in rows:
                        if line["method"] == method and int(line["pairs"]) == pairs:
                            points[int(line["step"])].append(factor * float(line[key]))
                    draw(one, points, method, markers=False)
                one.set_xlim(left=0)
            grid[0][column].set_title(f"{pairs} pairs")
            grid[0][column].set_ylim(0, 103)
            grid[1][column].set_ylim(0, 3.2)
            grid[1][column].set_xlabel("step")
        grid[0][0].set_ylabel("characters right (%)")
        grid[1][0].set_ylabel("loss a digit (nats)")
        figure.suptitle(f"UUID pairs in a frozen LLaMA: {budget_text(runs, rank)}\n"
                        f"({seeds_text(rows)})")
        save(figure, list(grid.flat), folder / f"by_step_r{rank}.png", 4)


def plot_by_pairs(runs, folder):
    ranks = budgets(runs)
    figure, grid = plt.subplots(2, len(ranks), figsize=(3.4 * len(ranks) + 0.6, 5.6),
                                squeeze=False, sharex="col", sharey="row")
    for column, rank in enumerate(ranks):
        rows = [row for row in runs if row["r"] == rank]
        sizes = numbers(rows, "pairs")
        accuracy, bits = grid[0][column], grid[1][column]
        for method in methods_of(rows_at(runs, rank)):
            draw(accuracy, by_pairs(rows_at(runs, rank), method, "accuracy", 100), method)
            if method != "full":  # which has many times the parameters
                draw(bits, by_pairs(rows, method, "bits_per_parameter"), method)
        budget = max(int(row["budget"]) for row in rows)
        bits.plot(sizes, [122 * size / budget for size in sizes], color="#666666",
                  linestyle=(0, (1, 2)), linewidth=1, zorder=1,
                  label="all there is: 122 bits a pair")
        for one in (accuracy, bits):
            one.set_xscale("log", base=2)
            plain_log(one.xaxis, sizes)
        accuracy.set_title(budget_text(runs, rank).replace(", ", "\n", 1), fontsize=9)
        accuracy.set_ylim(0, 103)
        bits.set_xlabel("UUID pairs in the set")
    highest = max(float(row["bits_per_parameter"]) for row in runs if row["r"] != "0")
    grid[1][0].set_ylim(0, 1.15 * highest)
    grid[0][0].set_ylabel("characters right (%)")
    grid[1][0].set_ylabel("bits per trainable parameter")
    figure.suptitle(f"UUID pairs after training ({seeds_text(runs)})")
    save(figure, list(grid.flat), folder / "memory.png", 4)


class Law:
    """Least squares of y = C r^alpha l^-beta + b: on a grid of alpha and beta, which is refined
    around the best; C and b are linear. A law without lengths has beta = 0."""

    def __init__(self, r, length, y):
        r, length, y = (np.asarray(values, float) for values in (r, length, y))
        alphas = np.linspace(0.02, 3, 60)
        betas = np.linspace(0, 3, 61) if len(set(length)) > 1 else np.zeros(1)
        for _ in range(6):
            best = min(((self.solve(r, length, y, a, b), a, b) for a in alphas for b in betas),
                       key=lambda item: item[0][0])
            (error, self.c, self.b), self.alpha, self.beta = best
            step_a = alphas[1] - alphas[0]
            alphas = np.clip(np.linspace(self.alpha - step_a, self.alpha + step_a, 9), 0.01, 3)
            if len(betas) > 1:
                step_b = betas[1] - betas[0]
                betas = np.clip(np.linspace(self.beta - step_b, self.beta + step_b, 9), 0, 3)
        self.r_squared = 1 - error / np.sum((y - y.mean()) ** 2)
        # So that C is a number of nats: at r = 1 and the shortest length.
        self.length = length.min()
        self.at_edge = self.alpha <= 0.011 or self.alpha >= 2.99 or self.beta >= 2.99

    def solve(self, r, length, y, alpha, beta):
        x = r ** alpha * (length / length.min()) ** -beta
        matrix = np.stack([x, np.ones_like(x)], axis=1)
        (c, b), *_ = np.linalg.lstsq(matrix, y, rcond=None)
        return np.sum((matrix @ (c, b) - y) ** 2), c, b

    def __call__(self, r, length):
        return self.c * r ** self.alpha * (length / self.length) ** -self.beta + self.b


def fit_laws(runs):
    """For each method a law over all runs, and one over those of cases that are not yet
    memorised: a loss that has nowhere left to fall says nothing about capacity."""
    laws = {}
    for method in methods_of(runs):
        mine = [row for row in runs if row["method"] == method and row["r"] != "0"]
        cases = defaultdict(list)
        for row in mine:
            cases[row["r"], row["pairs"]].append(row)
        for kind in ("all", "unsaturated"):
            used = [row for case in cases.values() for row in case
                    if kind == "all"
                    or np.mean([float(one["accuracy"]) for one in case]) < 0.95]
            r = [int(row["r"]) for row in used]
            length = [32 * int(row["pairs"]) for row in used]
            fall = [float(row["loss_before"]) - float(row["loss"]) for row in used]
            points = len(set(zip(r, length)))
            if len(set(r)) < 3 or points < 5:  # four numbers are fitted
                continue
            laws[method, kind] = (Law(r, length, fall), points, len(used))
    return laws


def write_laws(laws, folder):
    header = ["method", "cases", "points", "runs", "C", "alpha", "beta", "b", "reference_length",
              "r_squared", "at_edge"]
    lines = [[method, kind, points, count, f"{law.c:.4f}", f"{law.alpha:.3f}", f"{law.beta:.3f}",
              f"{law.b:.4f}", f"{law.length:.0f}", f"{law.r_squared:.4f}", int(law.at_edge)]
             for (method, kind), (law, points, count) in laws.items()]
    with open(folder / "law.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
    print("Loss falls by C r^alpha (l / reference length)^-beta + b (nats a digit):")
    for cells in [header] + lines:
        print("  " + "".join(f"{cell!s:>18}" for cell in cells))


def plot_laws(runs, laws, folder):
    """The measured fall of the loss by r, and the law over the cases that are not saturated."""
    methods = [m for m in methods_of(runs) if (m, "unsaturated") in laws]
    if not methods:
        return
    sizes = numbers(runs, "pairs")
    measured = [float(row["loss_before"]) - float(row["loss"]) for row in runs]
    figure, axes = panels(len(methods), 4, 2.9, 2.6, sharey=True)
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(sizes)))
    for index, (one, method) in enumerate(zip(axes, methods)):
        law, _, _ = laws[method, "unsaturated"]
        for pairs, colour in zip(sizes, colours):
            mine = [row for row in runs if row["method"] == method and row["r"] != "0"
                    and int(row["pairs"]) == pairs]
            ranks = numbers(mine, "r")
            falls = {r: [float(row["loss_before"]) - float(row["loss"]) for row in mine
                         if int(row["r"]) == r] for r in ranks}
            one.plot(ranks, [np.mean(falls[r]) for r in ranks], "o", color=colour,
                     label=f"{pairs} pairs")
            fine = np.geomspace(min(ranks), max(ranks), 50)
            one.plot(fine, law(fine, 32 * pairs), color=colour, linewidth=1)
        one.set_xscale("log", base=2)
        plain_log(one.xaxis, numbers([row for row in runs if row["r"] != "0"], "r"))
        # Of what was measured: a law leaves it for sets that were all but learnt.
        one.set_ylim(min(measured) - 0.2, max(measured) + 0.2)
        one.set_title(f"{line_style(method)['label']}\nα = {law.alpha:.2f}, "
                      f"R² = {law.r_squared:.3f}", fontsize=9)
        one.set_xlabel("r (the budget, as LoRA's rank)")
        if index % 4 == 0:
            one.set_ylabel("fall of the loss (nats a digit)")
    figure.suptitle("Parametric memory law (lines), fitted to the cases with less than 95 % of "
                    "the characters right")
    save(figure, axes, folder / "law.png", len(sizes))


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__.strip())
    folder = Path(sys.argv[1])
    if not (folder / "runs.csv").exists():
        sys.exit(f"plot_uuid.py: no runs.csv in {folder}")
    runs, curves = read(folder / "runs.csv"), read(folder / "curves.csv")
    if budgets(runs):
        plot_by_step(curves, runs, folder)
        plot_by_pairs(runs, folder)
    laws = fit_laws(runs)
    if laws:
        write_laws(laws, folder)
        plot_laws(runs, laws, folder)


if __name__ == "__main__":
    main()
