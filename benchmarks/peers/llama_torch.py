#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The PyTorch peer of the benchmark train_step: training steps of adapters on a frozen LLaMA
decoder, and greedy decoding with a key/value cache. float32, random weights and tokens, adapters on
all seven projections of every layer. Prints one line of JSON.

usage: llama_torch.py [--help] [options]    (needs torch alone)

Every position of a sequence predicts a token. Times are medians over the steps; forward includes
the loss. cpu_ms is a step's processor time over all threads: with OMP_WAIT_POLICY=passive it says
something on a machine that has other work too, where the other times do not.

gflops counts what a step needs at least, twice its multiply-adds: the products of the frozen layers
and the head, forward and by their inputs; causal attention (half of its square), forward and
backward; the adapters' products. Nothing for embedding, norms and activations, nor for gradients
that no adapter needs (by the inputs of the first layer's q, k and v).

What makes it fast: q, k, v and gate, up are one product each; adapters add to the frozen layer's
result in place and keep what their gradient needs, no more; C(x) of sharing is computed once for
projections of one size; rotation turns M for each block, not the activations.
"""

import json
import math
import statistics
import time

import torch
import torch.nn.functional as F

from peer import DECODE_PASSES, PROMPT, make_parser, peak_mb

EPSILON = 1e-5
THETA = 10000.0


def parse():
    parser = make_parser(__doc__, ("none", *ADAPTERS))
    parser.add_argument("--kv-heads", type=int)
    parser.add_argument("--compile", action="store_true", help="torch.compile the training pass")
    options = parser.parse_args()
    options.kv_heads = options.kv_heads or options.heads
    return options


# Adapters. Each is on one or more projections of the same input, whose frozen weights are stacked;
# `outs` are the projections' sizes. x and dy are [tokens, features].


class LoraFunction(torch.autograd.Function):
    """y = W x + B A x, the A of all projections stacked."""

    @staticmethod
    def forward(ctx, x, weight, a, *bs):
        h = x @ a.T
        y = x @ weight.T
        for part, inner, b in zip(y.split([len(b) for b in bs], 1), h.chunk(len(bs), 1), bs):
            part.addmm_(inner, b.T)
        ctx.save_for_backward(x, h, weight, a, *bs)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, h, weight, a, *bs = ctx.saved_tensors
        parts = dy.split([len(b) for b in bs], 1)
        dh = torch.cat([part @ b for part, b in zip(parts, bs)], 1)
        # The transpose of the short, wide product: BLAS is faster at it than at the tall one.
        db = [(inner.T @ part).T for part, inner in zip(parts, h.chunk(len(bs), 1))]
        dx = (dy @ weight).addmm_(dh, a) if ctx.needs_input_grad[0] else None
        return dx, None, dh.T @ x, *db


class Lora(torch.nn.Module):
    """alpha = rank, so the scale is 1. B is not zero: a training that has begun."""

    def __init__(self, features, outs, rank):
        super().__init__()
        self.a = torch.nn.Parameter(torch.randn(len(outs) * rank, features) / math.sqrt(features))
        self.bs = torch.nn.ParameterList(0.02 * torch.randn(out, rank) for out in outs)
        self.products = len(outs) * rank * features + rank * sum(outs)
        self.products_by_input = self.products

    def forward(self, x, weight):
        return LoraFunction.apply(x, weight, self.a, *self.bs)


def tiles(size, side):
    """How many whole tiles of `side` columns there are, and what is left."""
    return size // side, size % side


def fold(x, side):
    """[tokens, side]: the sum of the columns with equal index modulo side."""
    count, rest = tiles(x.shape[1], side)
    folded = x[:, : count * side].unflatten(1, (count, side)).sum(1) if count else None
    if folded is None:
        return F.pad(x, (0, side - rest))
    if rest:
        folded[:, :rest] += x[:, count * side :]
    return folded


def add_tiled(y, z):
    """y += z repeated over y's columns."""
    count, rest = tiles(y.shape[1], z.shape[1])
    y[:, : y.shape[1] - rest].unflatten(1, (count, -1)).add_(z[:, None])
    if rest:
        y[:, -rest:] += z[:, :rest]


def wrap(x, side):
    """C of sharing: as fold, with x padded to a multiple of side by its own first columns."""
    folded = fold(x, side)
    rest = x.shape[1] % side
    if rest:
        folded[:, rest:] += x[:, : side - rest]
    return folded


def add_unwrapped(x, c):
    """The adjoint of wrap."""
    add_tiled(x, c)
    rest = x.shape[1] % c.shape[1]
    if rest:
        x[:, : c.shape[1] - rest] += c[:, rest:]


class SharingFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, outs, *matrices):
        y = x @ weight.T
        sides = {len(m): None for m in matrices}
        for side in sides:
            sides[side] = wrap(x, side)
        for part, m in zip(y.split(outs, 1), matrices):
            add_tiled(part, sides[len(m)] @ m.T)
        ctx.outs = outs
        ctx.sides = list(sides)
        ctx.save_for_backward(weight, *sides.values(), *matrices)
        return y

    @staticmethod
    def backward(ctx, dy):
        weight, *rest = ctx.saved_tensors
        compressed = dict(zip(ctx.sides, rest))
        matrices = rest[len(ctx.sides) :]
        dx = dy @ weight if ctx.needs_input_grad[0] else None
        dm = []
        dc = {}
        for part, m in zip(dy.split(ctx.outs, 1), matrices):
            side = len(m)
            dz = fold(part, side)
            dm.append(dz.T @ compressed[side])
            if dx is not None:
                dc[side] = dc[side].addmm_(dz, m) if side in dc else dz @ m
        for gradient in dc.values():
            add_unwrapped(dx, gradient)
        return dx, None, None, *dm


def mora_side(features, out, rank):
    return math.isqrt((features + out) * rank)


class Sharing(torch.nn.Module):
    """MoRA, type 1: sums over strided groups of inputs, M, the result repeated over the outputs."""

    def __init__(self, features, outs, rank):
        super().__init__()
        self.outs = outs
        sides = [mora_side(features, out, rank) for out in outs]
        self.matrices = torch.nn.ParameterList(0.02 * torch.randn(s, s) for s in sides)
        self.products = self.products_by_input = sum(s * s for s in sides)

    def forward(self, x, weight):
        return SharingFunction.apply(x, weight, self.outs, *self.matrices)


def block(x, i, side):
    """Columns i·side … (i + 1)·side of x, which goes on with its first columns."""
    found = x[:, i * side : (i + 1) * side]
    if found.shape[1] < side:
        found = torch.cat((found, x[:, : side - found.shape[1]]), 1)
    return found


class RotationFunction(torch.autograd.Function):
    """The result of block i is x_i (M R(i))ᵀ: R turns the matrix."""

    @staticmethod
    def forward(ctx, x, weight, outs, tables, *matrices):
        y = x @ weight.T
        turned = []
        for part, (cos, sin), m in zip(y.split(outs, 1), tables, matrices):
            first, second = m.chunk(2, 1)
            turned.append(torch.cat((first * cos + second * sin, second * cos - first * sin), 2))
            side, out = len(m), part.shape[1]
            if len(cos) * side >= out:
                for i, t in enumerate(turned[-1]):
                    piece = part[:, i * side : (i + 1) * side]
                    piece.addmm_(block(x, i, side), t[: piece.shape[1]].T)
            else:
                z = [block(x, i, side) @ t.T for i, t in enumerate(turned[-1])]
                add_tiled(part, torch.cat(z, 1))
        ctx.outs = outs
        ctx.tables = tables
        ctx.save_for_backward(x, weight, *turned)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight, *turned = ctx.saved_tensors
        dx = dy @ weight if ctx.needs_input_grad[0] else None
        dm = []
        for part, (cos, sin), ts in zip(dy.split(ctx.outs, 1), ctx.tables, turned):
            blocks, side = ts.shape[:2]
            dz = fold(part, blocks * side) if blocks * side < part.shape[1] else part
            dt = torch.zeros_like(ts)
            for i, t in enumerate(ts):
                piece = dz[:, i * side : (i + 1) * side]
                t = t[: piece.shape[1]]
                dt[i, : piece.shape[1]] = piece.T @ block(x, i, side)
                if dx is None:
                    continue
                into = dx[:, i * side : (i + 1) * side]
                if into.shape[1] == side:
                    into.addmm_(piece, t)
                else:
                    d = piece @ t
                    into += d[:, : into.shape[1]]
                    dx[:, : side - into.shape[1]] += d[:, into.shape[1] :]
            first, second = dt.chunk(2, 2)
            dm.append(torch.cat((first * cos - second * sin, first * sin + second * cos), 2).sum(0))
        return dx, None, None, None, *dm


class Rotation(torch.nn.Module):
    """MoRA, type 6: M on each block of inputs, block i turned by R(i). Blocks whose results nobody
    reads are left out."""

    def __init__(self, features, outs, rank):
        super().__init__()
        self.outs = outs
        sides = [mora_side(features, out, rank) // 2 * 2 for out in outs]
        self.matrices = torch.nn.ParameterList(0.02 * torch.randn(s, s) for s in sides)
        self.tables = []
        self.products = 0
        for side, out in zip(sides, outs):
            blocks = min(math.ceil(features / side), math.ceil(out / side))
            self.products += min(blocks * side, out) * side
            angle = torch.arange(blocks)[:, None] * 10000.0 ** (-torch.arange(0, side, 2) / side)
            self.tables.append((angle.cos()[:, None], angle.sin()[:, None]))
        self.products_by_input = self.products

    def forward(self, x, weight):
        if torch.is_grad_enabled():
            return RotationFunction.apply(x, weight, self.outs, self.tables, *self.matrices)
        y = x @ weight.T  # few tokens: turning them is less work than turning M
        turned = {}
        for part, (cos, sin), m in zip(y.split(self.outs, 1), self.tables, self.matrices):
            key = cos.shape
            if key not in turned:
                blocks, side = len(cos), len(m)
                padding = blocks * side - x.shape[1]
                padded = torch.cat((x, x[:, :padding]), 1) if padding > 0 else x
                first, second = padded[:, : blocks * side].view(-1, blocks, 2, side // 2).unbind(2)
                cos, sin = cos[:, 0], sin[:, 0]
                turned[key] = torch.cat((first * cos - second * sin, second * cos + first * sin), 2)
            z = (turned[key] @ m.T).flatten(1)
            add_tiled(part, z[:, : part.shape[1]])
        return y


ADAPTERS = {"lora": Lora, "sharing": Sharing, "rotation": Rotation}


# The decoder.


class Projections(torch.nn.Module):
    """Frozen linear layers of one input, [out, in] stacked, with an adapter on each."""

    def __init__(self, features, outs, options):
        super().__init__()
        self.register_buffer("weight", torch.randn(sum(outs), features) / math.sqrt(features))
        adapter = ADAPTERS.get(options.adapter)
        self.adapter = adapter(features, outs, options.rank) if adapter else None

    def forward(self, x):
        return self.adapter(x, self.weight) if self.adapter else x @ self.weight.T


class NormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        mean = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        inverse = mean.add_(EPSILON).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    def backward(ctx, dy):
        x, weight, inverse = ctx.saved_tensors
        dn = dy * weight
        dot = torch.linalg.vecdot(dn, x)[..., None]
        along = dot.mul_(inverse.pow(3)).div_(-x.shape[-1])
        return dn.mul_(inverse).addcmul_(x, along), None


class RopeFunction(torch.autograd.Function):
    """x: [sequences, positions, heads, head size]; pairs are j and j + half."""

    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        first, second = x.chunk(2, -1)
        return torch.cat(
            ((first * cos).addcmul_(second, sin, value=-1), (second * cos).addcmul_(first, sin)), -1
        )

    @staticmethod
    def backward(ctx, dy):
        cos, sin = ctx.saved_tensors
        first, second = dy.chunk(2, -1)
        dx = torch.cat(
            ((first * cos).addcmul_(second, sin), (second * cos).addcmul_(first, sin, value=-1)), -1
        )
        return dx, None, None


class SwigluFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, both):
        gate, up = both.chunk(2, 1)
        active = F.silu(gate)
        ctx.save_for_backward(both, active)
        return active * up

    @staticmethod
    def backward(ctx, dy):
        both, active = ctx.saved_tensors
        gate, up = both.chunk(2, 1)
        return torch.cat((torch.ops.aten.silu_backward(dy * up, gate), dy * active), 1)


class LossFunction(torch.autograd.Function):
    """Mean cross-entropy of x Wᵀ, W frozen. The logits' memory becomes their gradient."""

    @staticmethod
    def forward(ctx, x, weight, targets):
        scores = torch.log_softmax(x @ weight.T, -1)
        ctx.save_for_backward(scores, weight, targets)
        return F.nll_loss(scores, targets)

    @staticmethod
    def backward(ctx, dloss):
        scores, weight, targets = ctx.saved_tensors
        d = scores.exp_()
        d[torch.arange(len(d)), targets] -= 1
        return (d @ weight).mul_(dloss / len(d)), None, None


class Layer(torch.nn.Module):
    def __init__(self, options):
        super().__init__()
        self.heads, self.kv_heads = options.heads, options.kv_heads
        self.head = options.width // options.heads
        width, shared = options.width, options.kv_heads * self.head
        self.register_buffer("norm1", 1 + 0.1 * torch.randn(width))
        self.register_buffer("norm2", 1 + 0.1 * torch.randn(width))
        self.qkv = Projections(width, [width, shared, shared], options)
        self.o = Projections(width, [width], options)
        self.gate_up = Projections(width, [options.intermediate] * 2, options)
        self.down = Projections(options.intermediate, [width], options)

    def forward(self, x, shape, cos, sin, cache=None):
        """x: [tokens, width]. shape: sequences, positions. cache: (keys, values, filled) of the one
        sequence there is then."""
        qkv = self.qkv(NormFunction.apply(x, self.norm1)).view(*shape, -1, self.head)
        qk, v = qkv.split((self.heads + self.kv_heads, self.kv_heads), 2)
        qk = RopeFunction.apply(qk, cos, sin).transpose(1, 2)
        q, k = qk.split((self.heads, self.kv_heads), 1)
        v = v.transpose(1, 2)
        if cache:
            keys, values, filled = cache
            total = filled + shape[1]
            keys[:, :, filled:total] = k
            values[:, :, filled:total] = v
            k, v = keys[:, :, :total], values[:, :, :total]
        mixed = F.scaled_dot_product_attention(
            q, k, v, is_causal=shape[1] > 1, enable_gqa=self.heads != self.kv_heads
        )
        x = x + self.o(mixed.transpose(1, 2).reshape(x.shape))
        both = self.gate_up(NormFunction.apply(x, self.norm2))
        return x + self.down(SwigluFunction.apply(both))


class Decoder(torch.nn.Module):
    def __init__(self, options):
        super().__init__()
        self.register_buffer("embedding", torch.randn(options.vocab, options.width))
        self.layers = torch.nn.ModuleList(Layer(options) for _ in range(options.layers))
        self.register_buffer("norm", 1 + 0.1 * torch.randn(options.width))
        self.register_buffer(
            "head", torch.randn(options.vocab, options.width) / math.sqrt(options.width)
        )
        half = options.width // options.heads // 2
        positions = torch.arange(max(options.length, PROMPT + options.decode), dtype=torch.float64)
        angles = positions[:, None, None] * THETA ** (-torch.arange(half) / half)
        self.register_buffer("cos", angles.cos().float())
        self.register_buffer("sin", angles.sin().float())

    def features(self, tokens, caches=None, filled=0):
        """What the head sees, [tokens, width]."""
        x = F.embedding(tokens.flatten(), self.embedding)
        cos, sin = (table[filled : filled + tokens.shape[1]] for table in (self.cos, self.sin))
        for i, layer in enumerate(self.layers):
            x = layer(x, tokens.shape, cos, sin, (*caches[i], filled) if caches else None)
        return NormFunction.apply(x, self.norm)

    def forward(self, tokens, targets):
        return LossFunction.apply(self.features(tokens), self.head, targets.flatten())


def gflops(model, options):
    """Of one training step, as told above."""
    tokens = options.sequences * options.length
    pairs = options.sequences * options.heads * options.length * (options.length + 1) // 2
    adapters = options.adapter != "none"
    products = tokens * model.head.numel() * (2 if adapters else 1)
    for number, layer in enumerate(model.layers):
        products += pairs * layer.head * (6 if adapters else 2)
        for part in (layer.qkv, layer.o, layer.gate_up, layer.down):
            by_input = adapters and not (number == 0 and part is layer.qkv)
            products += tokens * part.weight.numel() * (1 + by_input)
            if not adapters:
                continue
            products += tokens * 2 * part.adapter.products
            if by_input:
                products += tokens * part.adapter.products_by_input
    return 2e-9 * products


def train(model, options, result):
    inputs = torch.randint(options.vocab, (options.sequences, options.length + 1))
    tokens, targets = inputs[:, :-1].contiguous(), inputs[:, 1:].contiguous()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True) if parameters else None
    run = torch.compile(model) if options.compile else model
    times = []
    for _ in range(options.warm_up + options.steps):
        start, used = time.perf_counter(), time.process_time()
        with torch.set_grad_enabled(bool(parameters)):
            loss = run(tokens, targets)
        forward = time.perf_counter()
        if parameters:
            loss.backward()
        backward = time.perf_counter()
        if parameters:
            optimizer.step()
            optimizer.zero_grad()
        end = time.perf_counter()
        used = time.process_time() - used
        times.append((forward - start, backward - forward, end - backward, end - start, used))
    medians = [1e3 * statistics.median(column) for column in zip(*times[options.warm_up :])]
    names = ("forward_ms", "backward_ms", "optimizer_ms", "step_ms", "cpu_ms")
    result |= {name: round(value, 3) for name, value in zip(names, medians)}
    result["tokens_per_s"] = round(1e3 * tokens.numel() / result["step_ms"], 1)
    result["gflops"] = round(gflops(model, options), 3)
    result["loss"] = loss.item()


def decode(model, options, result):
    """Greedy, one token at a time; the first comes with the prompt and is not timed. The median of
    several passes after one that is not counted."""
    shape = (1, options.kv_heads, PROMPT + options.decode, options.width // options.heads)
    with torch.inference_mode():
        caches = [(torch.empty(shape), torch.empty(shape)) for _ in model.layers]
        prompt = torch.randint(options.vocab, (1, PROMPT))
        times = []
        for _ in range(1 + DECODE_PASSES):
            token = (model.features(prompt, caches)[-1:] @ model.head.T).argmax(1, keepdim=True)
            start = time.perf_counter()
            for filled in range(PROMPT, PROMPT + options.decode):
                token = (model.features(token, caches, filled) @ model.head.T).argmax(1, keepdim=True)
            times.append(time.perf_counter() - start)
        result["decode_tokens_per_s"] = round(options.decode / statistics.median(times[1:]), 1)


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    result = {"peer": "torch", "version": torch.__version__, **vars(options)}
    model = Decoder(options)
    train(model, options, result)
    result["peak_mb"] = peak_mb()
    result["decode_tokens_per_s"] = None
    if options.decode:
        decode(model, options, result)
    result["parameters"] = sum(p.numel() for p in model.parameters())
    print(json.dumps(result))


if __name__ == "__main__":
    main()
