#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""interchange.py <program interchange> <fixtures>: files go from Python's safetensors to the library
and back, and are the same, bit for bit, in every dtype.

The fixtures' bytes are those of the version that made them; here it is the installed one that writes,
with random shapes and numbers. Needs safetensors, numpy and ml_dtypes.
"""

import ctypes
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from safetensors import TensorSpec, deserialize, serialize

SEED = 20240607
BITS = {
    "bool": 8, "uint8": 8, "int8": 8, "float8_e5m2": 8, "float8_e4m3fn": 8, "float8_e8m0fnu": 8,
    "float8_e4m3fnuz": 8, "float8_e5m2fnuz": 8, "int16": 16, "uint16": 16, "float16": 16,
    "bfloat16": 16, "int32": 32, "uint32": 32, "float32": 32, "complex64": 64, "float64": 64,
    "int64": 64, "uint64": 64, "float4_e2m1fn_x2": 8,
}  # fmt: skip
NUMPY = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
}  # fmt: skip


def write(path, tensors, metadata=None):
    """tensors: name -> (dtype, shape, bytes), by the reference writer."""
    kept = {key: ctypes.create_string_buffer(data, max(len(data), 1)) for key, (_, _, data) in tensors.items()}
    path.write_bytes(
        serialize(
            {
                key: TensorSpec(dtype=dtype, shape=shape, data_ptr=ctypes.addressof(kept[key]), data_len=len(data))
                for key, (dtype, shape, data) in tensors.items()
            },
            metadata,
        )
    )


def read(path):
    return {name: (entry["dtype"], entry["shape"], bytes(entry["data"])) for name, entry in deserialize(path.read_bytes())}


def random_tensors(rng):
    tensors = {}
    for dtype, bits in BITS.items():
        for _ in range(rng.randrange(1, 4)):
            shape = [rng.choice((0, 1, 1, 2, 3, 5, 8)) for _ in range(rng.randrange(6))]
            if dtype == "float4_e2m1fn_x2":
                shape.append(2)  # half a byte cannot be
            size = bits // 8
            for dimension in shape:
                size *= dimension
            name = "".join(rng.choice("ab./\"\\\n\x01\u00e9\U0001f600") for _ in range(rng.randrange(9)))
            data = rng.randbytes(size)
            if dtype == "bool":
                data = bytes(byte & 1 for byte in data)
            tensors[f"{len(tensors)}{name}"] = (dtype, shape, data)
    return tensors


def same_numbers(data, other, dtype, wide):
    with np.errstate(invalid="ignore"):  # signalling NaNs
        a = np.frombuffer(data, NUMPY[dtype]).astype(wide)
    b = np.frombuffer(other, wide)
    return np.array_equal(np.isnan(a), np.isnan(b)) and all(
        np.where(np.isnan(a), 0, a).view(np.uint64) == np.where(np.isnan(b), 0, b).view(np.uint64)
    )


def main():
    program, fixtures = sys.argv[1], pathlib.Path(sys.argv[2])
    run = lambda *words: subprocess.run([program, *map(str, words)], check=True)
    rng = random.Random(SEED)
    print(f"safetensors {safetensors.__version__}, seed {SEED}")
    with tempfile.TemporaryDirectory(prefix="mora-interchange-") as name:
        folder = pathlib.Path(name)
        theirs, ours = folder / "theirs", folder / "ours"
        for turn in range(25):
            metadata = rng.choice((None, {"format": "pt"}, {"k\"\n\u00e9": "v\\\t\x7f"}))
            tensors = random_tensors(rng)
            write(theirs, tensors, metadata)
            run("copy", theirs, ours)
            assert ours.read_bytes() == theirs.read_bytes(), f"turn {turn}: written otherwise"

            # Numbers as ml_dtypes knows them.
            run("numbers", theirs, ours)
            before, after = read(theirs), read(ours)
            assert after.keys() == {key for key, value in before.items() if value[0] in NUMPY}
            for key, (dtype, shape, data) in after.items():
                assert dtype == "F64" and shape == before[key][1]
                assert same_numbers(before[key][2], data, before[key][0], np.float64), (turn, key)

            # In shards, with the index that they say.
            model = folder / f"model-{turn}"
            model.mkdir()
            run("shards", theirs, model, rng.choice((1, 100, 1000, 10**9)))
            found = {}
            index = model / "model.safetensors.index.json"
            if index.exists():
                content = json.loads(index.read_text())
                assert index.read_text() == json.dumps(content, indent=2, sort_keys=True) + "\n"
                for file in set(content["weight_map"].values()):
                    part = read(model / file)
                    assert all(content["weight_map"][key] == file for key in part)
                    found |= part
                assert content["metadata"]["total_size"] == sum(len(value[2]) for value in found.values())
            else:
                found = read(model / "model.safetensors")
            assert found == before, f"turn {turn}: shards"
            run("join", model, ours)
            assert read(ours) == before, f"turn {turn}: joined"

        # What the library rounds, against ml_dtypes.
        numbers = (np.random.default_rng(SEED).standard_normal(50_000) * 100).astype(np.float32)
        numbers = np.clip(numbers, -440, 440)
        numbers[:4] = [0.0, -0.0, np.nan, 2.0**-140]
        safetensors.numpy.save_file({"x": numbers.reshape(50, 1000)}, theirs)
        run("narrow", theirs, ours)
        for key, (dtype, shape, data) in read(ours).items():
            assert shape == [50, 1000]
            expected = numbers.astype(NUMPY[dtype])
            found = np.frombuffer(data, NUMPY[dtype])
            kind = np.uint8 if found.itemsize == 1 else np.uint16
            nan = np.isnan(expected.astype(np.float32))
            assert np.isnan(found[nan].astype(np.float32)).all()
            assert np.array_equal(found[~nan].view(kind), expected[~nan].view(kind)), key

        # The two that Python's package reads and cannot write.
        shapes = {"F6_E2M3": [3, 4], "F6_E3M2": [2, 2, 8]}
        header, data = {}, b""
        for dtype, shape in shapes.items():
            part = rng.randbytes(6 * int(np.prod(shape)) // 8)
            header[f"x.{dtype}"] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
            data += part
        text = json.dumps(header).encode()
        theirs.write_bytes(len(text).to_bytes(8, "little") + text + data)
        run("copy", theirs, ours)
        found = read(ours)
        assert found == read(theirs) and {value[0]: value[1] for value in found.values()} == shapes

        # The installed version reads what is committed, and says the same of it.
        for path in sorted(fixtures.glob("*.safetensors")):
            run("copy", path, ours)
            assert ours.read_bytes() == path.read_bytes(), path
            assert read(ours) == read(path), path
    print("all the same")


if __name__ == "__main__":
    main()
