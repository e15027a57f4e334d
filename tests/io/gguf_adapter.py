#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""gguf_adapter.py <program adapter_convert> <fixtures>: the package gguf reads the adapters that the
library writes for llama.cpp, and finds PEFT's numbers: scaled, and with the rows of q and k in
llama.cpp's order. Needs gguf, numpy and safetensors.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np
from safetensors.numpy import load_file

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


def permuted(rows, heads):
    """As llama.cpp's converter does it with the base's q and k."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def setting(config, pattern, default, module):
    for key, value in (config.get(pattern) or {}).items():
        if module == key or module.endswith("." + key):
            return value
    return config[default]


def check(program, base, adapter, extra):
    model = json.loads((base / "config.json").read_text())
    config = json.loads((adapter / "adapter_config.json").read_text())
    heads = model["num_attention_heads"]
    key_heads = model.get("num_key_value_heads") or heads
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "adapter.gguf"
        subprocess.run([program, adapter, out, "--to", "gguf", "--base", base, *extra], check=True, stdout=subprocess.DEVNULL)
        reader = gguf.GGUFReader(out)
        fields = {key: reader.fields[key].contents() for key in reader.fields if not key.startswith("GGUF.")}
        assert fields == {
            "general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora",
            "adapter.lora.alpha": 0.0,
        }, fields  # fmt: skip
        found = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    stored = load_file(adapter / "adapter_model.safetensors")
    modules = {name[len("base_model.model.") : -len(".lora_A.weight")] for name in stored if name.endswith(".lora_A.weight")}
    assert len(found) == 2 * len(modules), sorted(found)
    for module in modules:
        _, _, layer, rest = module.split(".", 3)
        name = f"blk.{layer}.{NAMES[rest]}.weight"
        rank = setting(config, "rank_pattern", "r", module)
        alpha = setting(config, "alpha_pattern", "lora_alpha", module)
        scale = alpha / (rank**0.5 if config["use_rslora"] else rank)
        a = stored[f"base_model.model.{module}.lora_A.weight"].astype(np.float64)
        b = stored[f"base_model.model.{module}.lora_B.weight"].astype(np.float64) * scale
        if rest == "self_attn.q_proj":
            b = permuted(b, heads)
        if rest == "self_attn.k_proj":
            b = permuted(b, key_heads)
        update = found[name + ".lora_b"].astype(np.float64) @ found[name + ".lora_a"].astype(np.float64)
        assert (np.abs(update - b @ a) <= 1e-6).all(), (module, np.abs(update - b @ a).max())


def main():
    program, fixtures = sys.argv[1], pathlib.Path(sys.argv[2])
    base = fixtures / "llama_folders" / "untied_f32"
    for name in ("lora", "rslora", "patterns"):
        check(program, base, fixtures / "peft_folders" / name, [])


if __name__ == "__main__":
    main()
