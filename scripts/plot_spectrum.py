#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws the singular values that adapter_info --spectrum wrote, one panel for each kind of module,
one line for each module, darker from the first layer to the last; dashed: the paper's bound of 0.1.

usage: plot_spectrum.py <values.csv> <picture.png>

Needs matplotlib.
"""

import csv
import re
import sys
from collections import defaultdict

try:
    import matplotlib
except ImportError:
    sys.exit(
        f"plot_spectrum.py: {sys.executable} has no matplotlib (Debian's python3-matplotlib is for "
        "/usr/bin/python3)"
    )

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BOUND = 0.1  # arXiv 2405.12130, figure 5


def read_modules(path):
    """{kind: {module: [values]}}, in the file's order."""
    kinds = defaultdict(lambda: defaultdict(list))
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != ["module", "index", "singular_value"]:
            sys.exit(f"plot_spectrum.py: {path} is not of adapter_info --spectrum")
        for row in reader:
            module = row["module"]
            kinds[module.rsplit(".", 1)[-1]][module].append(float(row["singular_value"]))
    if not kinds:
        sys.exit(f"plot_spectrum.py: no singular values in {path}")
    return kinds


def layer_of(module):
    found = re.search(r"\.(\d+)\.", module)
    return int(found[1]) if found else 0


def draw(kinds, target):
    columns = min(4, len(kinds))
    rows = -(-len(kinds) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(3.2 * columns, 2.6 * rows + 0.4),
                                squeeze=False, sharey=True, layout="constrained")
    last = max(layer_of(module) for modules in kinds.values() for module in modules)
    for axes, (kind, modules) in zip(grid.flat, kinds.items()):
        for module, values in modules.items():
            positive = [value for value in values if value > 0]  # the scale is logarithmic
            shade = 0.3 + 0.6 * layer_of(module) / max(1, last)
            axes.plot(range(1, len(positive) + 1), positive, color=plt.cm.Blues(shade),
                      marker="." if len(positive) < 20 else None)
        axes.axhline(BOUND, color="black", linewidth=0.8, linestyle="--")
        axes.set_title(kind)
        axes.set_yscale("log")
        axes.set_xlabel("index")
    for axes in list(grid.flat)[len(kinds):]:
        axes.remove()
    for row in grid:
        row[0].set_ylabel("singular value")
    figure.savefig(target, dpi=100)


def main():
    if len(sys.argv) != 3 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__.strip())
    draw(read_modules(sys.argv[1]), sys.argv[2])


if __name__ == "__main__":
    main()
