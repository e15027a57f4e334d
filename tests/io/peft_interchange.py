#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""peft_interchange.py <program> <fixtures>: the adapter folders of the fixtures go through the library
(peft_interchange.cpp) and are read by PEFT again, without a warning and with the same logits to the last
bit. This library's own dialect is refused by PEFT."""

import pathlib
import subprocess
import sys
import tempfile
import warnings

import peft
import torch
import transformers

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]])


def logits(base_folder, adapter):
    base = transformers.LlamaForCausalLM.from_pretrained(base_folder, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="peft")
        warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers, about PEFT's calls
        model = peft.PeftModel.from_pretrained(base, adapter).eval()
    with torch.no_grad():
        return model(TOKENS).logits


def main():
    program, fixtures = sys.argv[1], pathlib.Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as written:
        subprocess.run([program, fixtures, written], check=True)
        for theirs in sorted((fixtures / "peft_folders").iterdir()):
            ours = pathlib.Path(written) / theirs.name
            name = peft.PeftConfig.from_pretrained(theirs).base_model_name_or_path
            assert peft.PeftConfig.from_pretrained(ours).base_model_name_or_path == name
            base = fixtures / "llama_folders" / name
            if not torch.equal(logits(base, ours), logits(base, theirs)):
                sys.exit(f"{theirs.name}: PEFT computes other logits")
        try:
            logits(fixtures / "llama_folders" / "untied_f32", pathlib.Path(written) / "mora")
        except (KeyError, ValueError):
            return
        sys.exit("mora: PEFT takes it for one of its own")


if __name__ == "__main__":
    main()
