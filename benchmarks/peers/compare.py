#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs benchmarks/train_step and its PyTorch peer in turn, and prints figures and ratios.

Each round runs both programs once for every size and adapter, one after the other; a ratio is the
median over the rounds of PyTorch's time by ours in the same round, with the smallest and largest, as
the speed of a machine drifts. Writes a CSV file with every round when asked to.

  scripts/compare_peers [--rounds 3] [--sizes small large] [--adapters lora sharing rotation]
                        [--csv FILE]
"""

import argparse
import csv
import json
import os
import pathlib
import statistics
import subprocess
import sys

SIZES = {
    "small": "--width 128 --layers 4 --heads 4 --intermediate 344 --vocab 256 "
    "--sequences 64 --length 65 --steps 10 --warm-up 2",
    "large": "--width 768 --layers 12 --heads 12 --intermediate 2048 --vocab 32000 "
    "--sequences 4 --length 256 --steps 3 --warm-up 1",
}
# Some machines set these for old BLAS builds; they would slow PyTorch down.
WITHOUT = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
FIGURES = ("step_ms", "decode_tokens_per_s", "peak_mb")


def run(command):
    environment = {k: v for k, v in os.environ.items() if k not in WITHOUT}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def ours(program, size, adapter, threads):
    """Training and decoding in processes of their own, for the peaks of memory."""
    figures = {}
    for part in ("train", "decode"):
        out = run(
            ["env", f"OMP_NUM_THREADS={threads}", program, "--benchmark_format=json"]
            + [f"--benchmark_filter=^{size}/{adapter}/{part}/", "--benchmark_min_time=2"]
        )
        (result,) = json.loads(out)["benchmarks"]
        figures |= {k: v for k, v in result.items() if k != "peak_mb" or part == "train"}
    return figures


def torch(size, adapter, rank, threads):
    peer = pathlib.Path(__file__).with_name("llama_torch.py")
    command = [sys.executable, str(peer), "--adapter", adapter, "--rank", str(rank)]
    command += ["--threads", str(threads), "--decode", "48", *SIZES[size].split()]
    return json.loads(run(command).splitlines()[-1])


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--program", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--adapters", nargs="+", default=["lora", "sharing", "rotation"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv")
    options = parser.parse_args()

    rows = []
    for number in range(options.rounds):
        for size in options.sizes:
            for adapter in options.adapters:
                pair = {
                    "mora": ours(options.program, size, adapter, options.threads),
                    "torch": torch(size, adapter, 8, options.threads),
                }
                rows.append((number, size, adapter, pair))
                print(
                    f"round {number + 1}: {size} {adapter}: step "
                    f"{pair['mora']['step_ms']:.0f} ms, PyTorch {pair['torch']['step_ms']:.0f} ms",
                    file=sys.stderr,
                )

    version = rows[0][3]["torch"]["version"]
    print(f"PyTorch {version}, {options.threads} threads, median of {options.rounds} rounds")
    print("times as fast as PyTorch (and its range), memory as a part of PyTorch's")
    for size in options.sizes:
        for adapter in options.adapters:
            pairs = [pair for _, s, a, pair in rows if (s, a) == (size, adapter)]
            step = spread([p["torch"]["step_ms"] / p["mora"]["step_ms"] for p in pairs])
            decode = spread(
                [p["mora"]["decode_tokens_per_s"] / p["torch"]["decode_tokens_per_s"] for p in pairs]
            )
            memory = spread([p["mora"]["peak_mb"] / p["torch"]["peak_mb"] for p in pairs])
            print(f"  {size:6} {adapter:9} step {step}  decode {decode}  memory {memory}")

    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("round", "size", "adapter", "program", *FIGURES))
            for number, size, adapter, pair in rows:
                for program, figures in pair.items():
                    values = [f"{figures[name]:.4g}" for name in FIGURES]
                    writer.writerow((number + 1, size, adapter, program, *values))


if __name__ == "__main__":
    main()
