#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Merges an adapter into a LLaMA checkpoint of several gigabytes, made for it, in turn with copying its
files, and prints time and peak memory as CSV.

  merge_folder.py --program build/release/examples/adapter_merge --folder FOLDER [--layers 10]
                  [--rounds 3] [--adapter lora|sharing|whole] [--dtype BF16|F32] [--hidden 4096]

Both are timed until the bytes are on the disk: the program brings its files there itself, the copy is
followed by sync. The source is read before each of them, so that both find it in memory as far as it
fits. --adapter whole: as lora, and the embedding and the head are stored whole, in float32. Needs numpy, ml_dtypes and safetensors.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import sys
import time

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

VOCABULARY, HEAD_SIZE = 32000, 128


def feed_forward(hidden):
    """LLaMA's: 11008 for 4096."""
    return (hidden * 8 // 3 + 255) // 256 * 256


def shapes_of(hidden):
    return {
        **{f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"},
        "mlp.gate_proj": (feed_forward(hidden), hidden),
        "mlp.up_proj": (feed_forward(hidden), hidden),
        "mlp.down_proj": (hidden, feed_forward(hidden)),
    }




DTYPES = {"BF16": ml_dtypes.bfloat16, "F32": np.float32}


def numbers(rng, shape, scale, dtype):
    return (rng.standard_normal(shape, dtype=np.float32) * scale).astype(dtype)


def make_base(folder, layers, hidden, dtype):
    folder.mkdir(parents=True)
    dtype = DTYPES[dtype]
    rng = np.random.default_rng(1)
    config = {
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": feed_forward(hidden),
        "num_hidden_layers": layers, "num_attention_heads": hidden // HEAD_SIZE, "vocab_size": VOCABULARY,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "max_position_embeddings": 4096, "hidden_act": "silu",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    files = {"model.embed_tokens.weight": (VOCABULARY, hidden), "lm_head.weight": (VOCABULARY, hidden)}
    shards = [{name: numbers(rng, shape, 0.02, dtype) for name, shape in files.items()}]
    shards[0]["model.norm.weight"] = np.ones(hidden, dtype=dtype)
    index = {}

    def write(number, tensors):
        name = f"model-{number + 1:05}-of-{layers + 1:05}.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        index.update({key: name for key in tensors})

    write(0, shards.pop())
    for layer in range(layers):
        tensors = {f"model.layers.{layer}.{name}.weight": numbers(rng, shape, 0.02, dtype) for name, shape in shapes_of(hidden).items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{norm}.weight"] = np.ones(hidden, dtype=dtype)
        write(layer + 1, tensors)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def make_adapter(folder, layers, hidden, kind, rank=8):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(2)
    config = {
        "peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": [name.split(".")[1] for name in shapes_of(hidden)],
        "lora_dropout": 0.0, "bias": "none", "task_type": "CAUSAL_LM", "base_model_name_or_path": "",
    }  # fmt: skip
    if kind == "sharing":
        config |= {"use_mora": True, "mora_type": 1}
    if kind == "whole":
        config |= {"modules_to_save": ["embed_tokens", "lm_head"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {}
    for layer in range(layers):
        for name, (out, size) in shapes_of(hidden).items():
            module = f"base_model.model.model.layers.{layer}.{name}"
            if kind != "sharing":
                tensors[module + ".lora_A.weight"] = rng.standard_normal((rank, size), dtype=np.float32) * 0.01
                tensors[module + ".lora_B.weight"] = rng.standard_normal((out, rank), dtype=np.float32) * 0.01
            else:
                side = int(((size + out) * rank) ** 0.5 + 0.5)
                matrix = rng.standard_normal((side, side), dtype=np.float32) * 0.001
                tensors[module + ".lora_A.weight"] = matrix
                tensors[module + ".lora_B.weight"] = matrix
    if kind == "whole":
        for module in ("model.embed_tokens", "lm_head"):
            whole = rng.standard_normal((VOCABULARY, hidden), dtype=np.float32) * 0.02
            tensors[f"base_model.model.{module}.weight"] = whole
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def timed(command, source, target):
    shutil.rmtree(target, ignore_errors=True)
    for file in source.iterdir():
        with open(file, "rb") as stream:
            while stream.read(1 << 24):
                pass
    os.sync()
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if command[0] == "cp":
        os.sync()
    if status != 0:
        sys.exit(f"{command[0]} failed")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--folder", required=True, type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--adapter", choices=("lora", "sharing", "whole"), default="lora")
    parser.add_argument("--dtype", choices=DTYPES, default="BF16", help="of the checkpoint")
    parser.add_argument("--hidden", type=int, default=4096, help="width, a multiple of 128")
    options = parser.parse_args()
    # A folder holds one kind of checkpoint: what is there already is not made again.
    base, adapter = options.folder / "base", options.folder / options.adapter
    # In processes of their own, as a child's peak of memory is at least its parent's size.
    for made, make in (
        (base, (make_base, options.layers, options.hidden, options.dtype)),
        (adapter, (make_adapter, options.layers, options.hidden, options.adapter)),
    ):
        if not made.exists():
            child = multiprocessing.Process(target=make[0], args=(made, *make[1:]))
            child.start()
            child.join()
            if child.exitcode != 0:
                sys.exit("cannot make the checkpoint")
    size = sum(file.stat().st_size for file in base.iterdir())
    out = options.folder / "out"
    print("round,adapter,checkpoint_gb,copy_s,merge_s,ratio,peak_mb", flush=True)
    for number in range(options.rounds):
        copy, _ = timed(["cp", "-r", str(base), str(out)], base, out)
        merge, peak = timed([options.program, "--quiet", str(base), str(adapter), str(out)], base, out)
        print(f"{number + 1},{options.adapter},{size / 1e9:.2f},{copy:.2f},{merge:.2f},{merge / copy:.2f},{peak:.0f}", flush=True)
    shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    main()
