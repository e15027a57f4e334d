# SPDX-License-Identifier: MIT
"""What the PyTorch peers of benchmarks/train_step have in common."""

import argparse
import resource

PROMPT = 16
DECODE_PASSES = 5


def make_parser(description, adapters):
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (
        ("width", 128),
        ("layers", 4),
        ("heads", 4),
        ("intermediate", 344),
        ("vocab", 256),
        ("sequences", 64),
        ("length", 65),
        ("rank", 8),
        ("threads", 2),
        ("steps", 10),
        ("warm-up", 3),
        ("seed", 1),
        ("decode", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--adapter", choices=adapters, default="lora")
    return parser


def peak_mb():
    """Of the process, its imports included."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
