#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The peer of the benchmark train_step as most people have it: `transformers`' LlamaForCausalLM,
LoRA of `peft`, and MoRA as modules around its linear layers, written in ordinary PyTorch operations
as the paper's formulas read, with gradients by autograd. The same decoder, adapters, batch and
threads, float32, random weights and tokens. Prints one line of JSON, as llama_torch.py does, which
is the same in hand-written gradients. peak_mb is the process's, its imports included.

usage: llama_transformers.py [--help] [options]    (needs torch, transformers and peft)
"""

import json
import math
import statistics
import time

import peft
import torch
import torch.nn.functional as F
import transformers

from peer import DECODE_PASSES, PROMPT, make_parser, peak_mb

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Mora(torch.nn.Module):
    """W x + D(M C(x)) around a frozen linear layer. C wraps x around to whole blocks of M's side."""

    def __init__(self, base, rank):
        super().__init__()
        self.base = base
        side = self.fit(math.isqrt((base.in_features + base.out_features) * rank))
        self.matrix = torch.nn.Parameter(0.02 * torch.randn(side, side))

    @staticmethod
    def fit(side):
        return side

    def blocks(self, x):
        side = len(self.matrix)
        count = math.ceil(x.shape[-1] / side)
        wrapped = torch.cat((x, x[..., : count * side - x.shape[-1]]), -1)
        return wrapped.unflatten(-1, (count, side))

    def tile(self, z):
        """z repeated over the outputs."""
        outs = self.base.out_features
        if z.shape[-1] >= outs:
            return z[..., :outs]
        return z.repeat(*[1] * (z.dim() - 1), math.ceil(outs / z.shape[-1]))[..., :outs]


class Sharing(Mora):
    def forward(self, x):
        return self.base(x) + self.tile(self.blocks(x).sum(-2) @ self.matrix.T)


class Rotation(Mora):
    @staticmethod
    def fit(side):
        return side // 2 * 2

    def __init__(self, base, rank):
        super().__init__(base, rank)
        side = len(self.matrix)
        positions = torch.arange(math.ceil(base.in_features / side))
        angles = positions[:, None] * 10000.0 ** (-torch.arange(0, side, 2) / side)
        self.register_buffer("cos", torch.cat((angles, angles), 1).cos())
        self.register_buffer("sin", torch.cat((angles, angles), 1).sin())

    def forward(self, x):
        x_blocks = self.blocks(x)
        first, second = x_blocks.chunk(2, -1)
        turned = x_blocks * self.cos + torch.cat((-second, first), -1) * self.sin
        return self.base(x) + self.tile((turned @ self.matrix.T).flatten(-2))


def build(options):
    config = transformers.LlamaConfig(
        vocab_size=options.vocab,
        hidden_size=options.width,
        intermediate_size=options.intermediate,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        max_position_embeddings=max(options.length, PROMPT + options.decode),
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config).requires_grad_(False)
    if options.adapter == "lora":
        settings = peft.LoraConfig(
            r=options.rank, lora_alpha=options.rank, target_modules=list(PROJECTIONS)
        )
        return peft.get_peft_model(model, settings)
    kind = {"sharing": Sharing, "rotation": Rotation}[options.adapter]
    for layer in model.model.layers:
        for parent in (layer.self_attn, layer.mlp):
            for name in PROJECTIONS:
                if hasattr(parent, name):
                    setattr(parent, name, kind(getattr(parent, name), options.rank))
    return model


def train(model, options, result):
    inputs = torch.randint(options.vocab, (options.sequences, options.length + 1))
    tokens, targets = inputs[:, :-1].contiguous(), inputs[:, 1:].flatten()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    model.train()
    times = []
    for _ in range(options.warm_up + options.steps):
        start = time.perf_counter()
        loss = F.cross_entropy(
            model(input_ids=tokens, use_cache=False).logits.flatten(0, 1), targets
        )
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad()
        end = time.perf_counter()
        times.append((forward - start, backward - forward, end - backward, end - start))
    medians = [1e3 * statistics.median(column) for column in zip(*times[options.warm_up :])]
    names = ("forward_ms", "backward_ms", "optimizer_ms", "step_ms")
    result |= {name: round(value, 3) for name, value in zip(names, medians)}
    result["tokens_per_s"] = round(1e3 * tokens.numel() / result["step_ms"], 1)
    result["loss"] = loss.item()
    result["parameters"] = sum(p.numel() for p in parameters)


def decode(model, options, result):
    """Greedy, one token at a time; the first comes with the prompt and is not timed. The median of
    several passes after one that is not counted."""
    model.eval()
    times = []
    with torch.inference_mode():
        prompt = torch.randint(options.vocab, (1, PROMPT))
        for _ in range(1 + DECODE_PASSES):
            out = model(input_ids=prompt, use_cache=True)
            start = time.perf_counter()
            for _ in range(options.decode):
                token = out.logits[:, -1:].argmax(-1)
                out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
            times.append(time.perf_counter() - start)
    result["decode_tokens_per_s"] = round(options.decode / statistics.median(times[1:]), 1)


def main():
    options = make_parser(__doc__, ("lora", "sharing", "rotation")).parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    result = {"peer": "transformers", "version": torch.__version__}
    result |= {"transformers": transformers.__version__, "peft": peft.__version__, **vars(options)}
    model = build(options)
    train(model, options, result)
    result["peak_mb"] = peak_mb()
    result["decode_tokens_per_s"] = None
    if options.decode:
        decode(model, options, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
