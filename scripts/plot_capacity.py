#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws the CSV files that the benchmark rank_capacity left in a results folder, as PNG there.

usage: plot_capacity.py <results folder>

What the folder has no file for is left out. Needs matplotlib.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullLocator
from PIL import Image  # comes with matplotlib

# The colours of Okabe and Ito, which the colour-blind can tell apart; methods of one family share
# a colour and differ in line and marker.
STYLES = {
    "lora": ("LoRA", "#D55E00", "-", "o"),
    "truncation": ("truncation", "#999999", "-", "s"),
    "sharing": ("sharing (type 1)", "#009E73", "-", "^"),
    "adjacent_sharing": ("adjacent sharing (type 2)", "#009E73", "--", "v"),
    "adjacent_strided": ("adjacent-strided (type 3)", "#009E73", ":", "<"),
    "strided_adjacent": ("strided-adjacent (type 4)", "#009E73", "-.", ">"),
    "random_sharing": ("random sharing", "#E69F00", "-", "P"),
    "decoupling": ("decoupling", "#56B4E9", "-", "D"),
    "rotation": ("rotation (type 6)", "#0072B2", "-", "X"),
    "covering_rotation": ("covering rotation", "#CC79A7", "--", "d"),
    "lora_plus": ("LoRA+", "#D55E00", "--", "o"),
    "relora": ("ReLoRA", "#D55E00", ":", "o"),
    "pissa": ("PiSSA", "#D55E00", "-.", "o"),
    "asylora": ("AsyLoRA", "#999999", "--", "s"),
    "dora": ("DoRA", "#CC79A7", "-", "s"),
    "dora_sharing": ("DoRA over sharing", "#CC79A7", "-.", "^"),
    "dora_rotation": ("DoRA over rotation", "#CC79A7", ":", "X"),
    "remora": ("ReMoRA (types 1 and 2)", "#009E73", "--", "v"),
    "remora_fresh": ("ReMoRA, fresh groups", "#E69F00", "--", "P"),
    "hira": ("HiRA", "#56B4E9", "--", "D"),
    "lokr": ("LoKr", "#56B4E9", ":", "D"),
    "miss": ("MiSS", "#F0E442", "-", "h"),
    "full": ("full training", "#000000", "-", "*"),
}

plt.rcParams.update({
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "legend.frameon": False,
})


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def numbers(rows, key):
    """The values of a column, in ascending order, each once."""
    return sorted({int(row[key]) for row in rows})


def line_style(method):
    label, colour, line, marker = STYLES.get(method, (method, "#444444", "-", "."))
    return {"label": label, "color": colour, "linestyle": line, "marker": marker}


def methods_of(rows):
    found = {row["method"] for row in rows}
    return [m for m in STYLES if m in found] + sorted(found - set(STYLES))


def draw(axes, points, method, markers=True):
    """points: {x: [a value a seed]}. The mean, and a band of a standard deviation around it."""
    if not points:
        return
    x = sorted(points)
    middle = [mean(points[i]) for i in x]
    spread = [stdev(points[i]) if len(points[i]) > 1 else 0.0 for i in x]
    style = line_style(method)
    if not markers:
        style["marker"] = ""
    axes.plot(x, middle, **style)
    axes.fill_between(x, [m - s for m, s in zip(middle, spread)],
                      [m + s for m, s in zip(middle, spread)],
                      color=style["color"], alpha=0.15, linewidth=0)


def plain_log(axis, ticks):
    """Ticks at the given values only, written as plain numbers; none beside one that is near."""
    written = []
    for tick in sorted(ticks):
        if not written or tick >= 1.9 * written[-1]:
            written.append(tick)
    axis.set_major_locator(matplotlib.ticker.FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:g}" if any(abs(value / w - 1) < 1e-6 for w in written) else ""))


def save(figure, axes, path, legend_columns):
    """One legend for the whole figure, below it."""
    handles, labels = {}, []
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels()):
            handles.setdefault(label, handle)
    labels = list(handles)
    rows = -(-len(labels) // legend_columns)
    height = figure.get_size_inches()[1]
    figure.tight_layout(rect=(0, (0.12 + 0.2 * rows) / height, 1, 1))
    figure.legend([handles[label] for label in labels], labels, loc="lower center",
                  ncol=legend_columns)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    # A palette makes the file three times as small.
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    print(path)


def panels(count, columns, width, height, **options):
    """A figure with so many axes; those that the last row does not need are removed."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(width * columns, height * rows + 0.8),
                                squeeze=False, **options)
    axes = list(grid.flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def seeds_text(rows):
    return f"mean of {len(numbers(rows, 'seed'))} seeds, band: standard deviation"


def budget_text(rows, rank):
    """The numbers of trainable parameters that stand at a budget."""
    counts = sorted({int(row["parameters"]) for row in rows
                     if row["r"] == rank and int(row["budget"]) > 0})
    if not counts:
        return f"r = {rank}"
    span = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return f"r = {rank}, {span} trainable parameters"


def plot_accuracy_by_step(curves, results, folder):
    for rank in map(str, numbers(curves, "r")):
        rows = [row for row in curves if row["r"] == rank]
        sizes = numbers(rows, "pairs")
        columns = 2 if len(sizes) == 4 else 3
        figure, axes = panels(len(sizes), columns, 10.2 / columns, 2.5, sharey=True)
        for index, (one, pairs) in enumerate(zip(axes, sizes)):
            for method in methods_of(rows):
                points = defaultdict(list)
                for row in rows:
                    if row["method"] == method and int(row["pairs"]) == pairs:
                        points[int(row["step"])].append(100 * float(row["accuracy"]))
                draw(one, points, method, markers=False)
            one.set_title(f"{pairs} pairs")
            one.set_ylim(0, 103)
            one.set_xlim(left=0)
            if index % columns == 0:
                one.set_ylabel("characters right (%)")
            if index + columns >= len(sizes):
                one.set_xlabel("step")
        figure.suptitle(f"UUID pairs by training step: {budget_text(results, rank)} "
                        f"({seeds_text(rows)})")
        save(figure, axes, folder / f"accuracy_by_step_r{rank}.png", 4)


def by_pairs(rows, method, column, factor=1):
    points = defaultdict(list)
    for row in rows:
        if row["method"] == method:
            points[int(row["pairs"])].append(factor * float(row[column]))
    return points


def plot_by_pairs(results, folder):
    """For each budget accuracy and bits a parameter, by the size of the set."""
    for rank in map(str, numbers(results, "r")):
        rows = [row for row in results if row["r"] == rank]
        figure, (accuracy, bits) = panels(2, 2, 4.8, 3.2)
        for method in methods_of(rows):
            draw(accuracy, by_pairs(rows, method, "accuracy", 100), method)
            if method != "full":  # which has many times the parameters
                draw(bits, by_pairs(rows, method, "bits_per_parameter"), method)
        budget = max(int(row["budget"]) for row in rows)
        sizes = numbers(rows, "pairs")
        if budget > 0:
            bits.plot(sizes, [122 * size / budget for size in sizes], color="#666666",
                      linestyle=(0, (1, 2)), linewidth=1, zorder=1,
                      label="all there is: 122 bits a pair")
        for one in (accuracy, bits):
            one.set_xscale("log", base=2)
            plain_log(one.xaxis, sizes)
            one.set_xlabel("UUID pairs in the set")
        accuracy.set_ylim(0, 103)
        accuracy.set_ylabel("characters right (%)")
        bits.set_ylim(bottom=0)
        bits.set_ylabel("bits per trainable parameter")
        figure.suptitle(f"UUID pairs after training: {budget_text(results, rank)} "
                        f"({seeds_text(rows)})")
        save(figure, (accuracy, bits), folder / f"memory_r{rank}.png", 4)


def grouped_methods(rows):
    """Methods whose rank is the same, up to the rounding of rotation's even side, share a line."""
    groups = defaultdict(list)
    for method in methods_of(rows):
        ranks = tuple((row["in"], row["out"], int(row["r"]), int(row["rank"]))
                      for row in rows if row["method"] == method)
        groups[tuple(sorted(ranks))].append(method)
    return list(groups.values())


def draw_ranks(axes, rows, style):
    """A full marker and line where singular values were computed, else a hollow one and dashes."""
    points = sorted((int(row["r"]), int(row["rank"]), row["rank_from"] == "singular values")
                    for row in rows)
    for one, other in zip(points, points[1:]):
        computed = one[2] and other[2]
        axes.plot([one[0], other[0]], [one[1], other[1]], color=style["color"],
                  linestyle="-" if computed else (0, (4, 2)), linewidth=1.4 if computed else 0.9)
    for rank, value, computed in points:
        axes.plot(rank, value, color=style["color"], marker=style["marker"], linestyle="",
                  markerfacecolor=style["color"] if computed else "white", markeredgewidth=0.9)
    axes.plot([], [], **{**style, "linestyle": "-"})  # for the legend


def plot_ranks(rows, folder):
    adapters = [row for row in rows if int(row["r"]) > 0]
    shapes = list(dict.fromkeys((int(row["in"]), int(row["out"])) for row in adapters))
    figure, axes = panels(len(shapes), 3, 3.4, 2.6)
    for group in grouped_methods(adapters):
        style = line_style(next((m for m in ("sharing", "rotation") if m in group), group[0]))
        style["label"] = ", ".join(STYLES.get(method, (method,))[0] for method in group)
        for one, shape in zip(axes, shapes):
            mine = [row for row in adapters if (int(row["in"]), int(row["out"])) == shape]
            draw_ranks(one, [row for row in mine if row["method"] == group[-1]], style)
            effective = defaultdict(list)
            for row in mine:
                if row["method"] in group and row["effective_rank"]:
                    effective[int(row["r"])].append(float(row["effective_rank"]))
            x = sorted(effective)
            one.plot(x, [mean(effective[r]) for r in x], color=style["color"],
                     linestyle=(0, (1, 1)), linewidth=1.4, marker=".", markersize=3)
    for index, (one, (width, out)) in enumerate(zip(axes, shapes)):
        one.set_xscale("log", base=2)
        one.set_yscale("log", base=10)
        plain_log(one.xaxis, numbers(adapters, "r"))
        plain_log(one.yaxis, [1, 10, 100, 1000])
        one.set_ylim(0.8, 8000)
        one.set_title(f"layer {width} → {out}")
        if index % 3 == 0:
            one.set_ylabel("rank of the update")
        if index + 3 >= len(shapes):
            one.set_xlabel("r (the budget, as LoRA's rank)")
    figure.suptitle("Rank of an update with random numbers. Full marker: counted from its singular "
                    "values;\nhollow marker, dashed: not computed, the most that the structure "
                    "allows. Dotted: effective rank, where computed")
    save(figure, axes, folder / "rank.png", 1)


def plot_approximation(rows, folder):
    """LoRA, and MoRA's operators together: they differ by less than the lines are wide."""
    targets = list(dict.fromkeys(row["target"] for row in rows))
    figure, axes = panels(len(targets), 3, 3.4, 2.4, sharey=True)
    for index, (one, target) in enumerate(zip(axes, targets)):
        lora, others = defaultdict(list), defaultdict(lambda: defaultdict(list))
        for row in rows:
            if row["target"] != target:
                continue
            rank, error = int(row["r"]), float(row["relative_error"])
            if row["method"] == "lora":
                lora[rank].append(error)
            else:
                others[rank][row["method"]].append(error)
        if lora:
            draw(one, lora, "lora")
        if others:
            x = sorted(others)
            means = [[mean(errors) for errors in others[r].values()] for r in x]
            colour = STYLES["rotation"][1]
            one.plot(x, [mean(m) for m in means], color=colour, marker="X",
                     label="MoRA (mean of the operators, band: worst to best)")
            one.fill_between(x, [min(m) for m in means], [max(m) for m in means], color=colour,
                             alpha=0.25, linewidth=0)
        one.set_xscale("log", base=2)
        plain_log(one.xaxis, numbers(rows, "r"))
        one.set_ylim(-0.03, 1.05)
        kind, _, rank = target.partition(":")
        one.set_title(f"product of random factors, rank {rank}" if rank else
                      {"gaussian": "Gaussian", "orthogonal": "random orthogonal"}.get(kind, kind))
        if index % 3 == 0:
            one.set_ylabel("smallest relative error")
        if index + 3 >= len(targets):
            one.set_xlabel("r (the budget, as LoRA's rank)")
    size = rows[0]["size"]
    figure.suptitle(f"Best approximation of a {size} x {size} matrix "
                    f"(mean of {len(numbers(rows, 'seed'))} seeds)")
    save(figure, axes, folder / "approximation.png", 2)


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__.strip())
    folder = Path(sys.argv[1])
    if not folder.is_dir():
        sys.exit(f"plot_capacity.py: no folder {folder}")

    def file(name):
        path = folder / name
        return read(path) if path.exists() else []

    results = file("memorise.csv")
    if results:
        plot_accuracy_by_step(file("memorise_curves.csv"), results, folder)
        plot_by_pairs(results, folder)
    capacity = file("capacity.csv")
    if capacity:
        plot_ranks(capacity, folder)
    approximation = file("approximation.csv")
    if approximation:
        plot_approximation(approximation, folder)


if __name__ == "__main__":
    main()
