#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs benchmarks/train_step and its two PyTorch peers in turn, and prints figures and ratios.

The peers: transformers, which is LlamaForCausalLM with adapters by autograd, as most people have it;
and torch, the same decoder in operations of PyTorch with gradients written by hand. Each round runs
all programs once for every size and adapter, one after the other; a ratio is the median over the
rounds of the peer's time by ours in the same round, with the smallest and largest, as the speed of a
machine drifts. Writes a CSV file with every round when asked to.

  scripts/compare_peers [--rounds 3] [--sizes small large] [--adapters lora sharing rotation]
                        [--peers transformers torch] [--csv FILE]
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
PEERS = {"transformers": "llama_transformers.py", "torch": "llama_torch.py"}
# Some machines set these for old BLAS builds; they would slow PyTorch down.
WITHOUT = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
DECODE = "decode_tokens_per_s"
FLOOR = "floor_ms"
FIGURES = ("step_ms", DECODE, "peak_mb", FLOOR)


def run(command):
    environment = {k: v for k, v in os.environ.items() if k not in WITHOUT}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def ours(program, size, adapter, part, threads):
    out = run(
        ["env", f"OMP_NUM_THREADS={threads}", program, "--benchmark_format=json"]
        + [f"--benchmark_filter=^{size}/{adapter}/{part}/", "--benchmark_min_time=2"]
    )
    (result,) = json.loads(out)["benchmarks"]
    return result


def ours_in_parts(program, size, adapter, threads):
    """Training and decoding in processes of their own, for the peaks of memory."""
    decoding = ours(program, size, adapter, "decode", threads)
    return ours(program, size, adapter, "train", threads) | {DECODE: decoding[DECODE]}


def peer(name, size, adapter, rank, threads):
    program = pathlib.Path(__file__).with_name(PEERS[name])
    command = [sys.executable, str(program), "--adapter", adapter, "--rank", str(rank)]
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
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv")
    options = parser.parse_args()

    rows = []
    for number in range(options.rounds):
        for size in options.sizes:
            for adapter in options.adapters:
                # Each floor is the mean of what was measured just before and just after the program.
                floor = ours(options.program, size, adapter, "floor", options.threads)[FLOOR]
                figures = {}
                for name in ("mora", *options.peers):
                    if name == "mora":
                        found = ours_in_parts(options.program, size, adapter, options.threads)
                    else:
                        found = peer(name, size, adapter, 8, options.threads)
                    before = floor
                    floor = ours(options.program, size, adapter, "floor", options.threads)[FLOOR]
                    figures[name] = found | {FLOOR: (before + floor) / 2}
                    if found["parameters"] != figures["mora"]["parameters"]:
                        sys.exit(f"{size} {adapter}: {name} trains another number of parameters")
                rows.append((number, size, adapter, figures))
                steps = ", ".join(f"{name} {f['step_ms']:.0f} ms" for name, f in figures.items())
                print(f"round {number + 1}: {size} {adapter}: step {steps}", file=sys.stderr)

    for name in options.peers:
        first = rows[0][3][name]
        packages = [f"{p} {first[p]}" for p in ("transformers", "peft") if p in first]
        print(", ".join([f"{name}: PyTorch {first['version']}", *packages]))
        print(f"  {options.threads} threads, median of {options.rounds} rounds: times as fast (and its")
        print("  range), memory as a part of the peer's; most: how many times as fast a step would be")
        print("  that did nothing but its products, by the library's kernel at its full speed")
        for size in options.sizes:
            for adapter in options.adapters:
                pairs = [(f["mora"], f[name]) for _, s, a, f in rows if (s, a) == (size, adapter)]
                step = spread([t["step_ms"] / o["step_ms"] for o, t in pairs])
                most = spread([t["step_ms"] / t[FLOOR] for _, t in pairs])
                decode = spread([o[DECODE] / t[DECODE] for o, t in pairs])
                memory = spread([o["peak_mb"] / t["peak_mb"] for o, t in pairs])
                print(f"  {size:6} {adapter:9} step {step}  most {most}")
                print(f"  {'':16} decode {decode}  memory {memory}")

    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("round", "size", "adapter", "program", *FIGURES))
            for number, size, adapter, figures in rows:
                for program, measured in figures.items():
                    values = [f"{measured[name]:.4g}" for name in FIGURES]
                    writer.writerow((number + 1, size, adapter, program, *values))


if __name__ == "__main__":
    main()
