"""Edits of drawn checkpoints, and what NumPy makes of their values."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

import ckptkit
from tests.golden.handmade import Bundle, numpy_dtype, same
from tests.property.strategies import SEEDS, slicings


def contents(prefix):
    """Return the bytes of every file of a bundle, by what follows the prefix."""
    folder, name = os.path.split(prefix)
    return {
        file.removeprefix(name): Path(folder, file).read_bytes()
        for file in sorted(os.listdir(folder))
        if file.startswith(f"{name}.")
    }


def check_values(path, values):
    with ckptkit.open(path) as found:
        assert set(found) == set(values)
        assert list(found) == sorted(values, key=lambda n: n.encode("utf-8", "surrogateescape"))
        for name, expected in values.items():
            assert same(found[name].read(), expected), name


def _working(dtype):
    kind = numpy_dtype(dtype)
    narrow = kind.name.startswith(("bfloat", "float8", "float4")) or kind == np.float16
    if narrow:
        return np.float32
    return {"int4": np.int8, "int2": np.int8, "uint4": np.uint8, "uint2": np.uint8}.get(dtype, kind)


EDITS = {
    "x * 0.5": lambda x, t: x * x.dtype.type(0.5),
    "x + 3": lambda x, t: x + x.dtype.type(3),
    "2 - x": lambda x, t: x.dtype.type(2) - x,
    "where(x > 1, x, 1)": lambda x, t: np.where(x > 1, x, x.dtype.type(1)),
    "x * x - 1": lambda x, t: x * x - x.dtype.type(1),
    'x + t("other")': lambda x, t: x + t,
    't("other")': lambda x, t: np.broadcast_to(t, x.shape),
    "0": lambda x, t: np.zeros_like(x),
    "clip(x, 0, 2)": lambda x, t: np.clip(x, x.dtype.type(0), x.dtype.type(2)),
}
"""Expressions, and what NumPy does for them in the dtype that values are computed in."""

EDITED = ("float32", "float64", "float16", "bfloat16", "int32", "uint8", "int16", "int64")


def reference(text, values, other, dtype):
    wide = _working(dtype)
    with np.errstate(all="ignore"):
        given_other = None if other is None else other.astype(wide)
        return EDITS[text](values.astype(wide), given_other).astype(numpy_dtype(dtype))


def small_values(dtype, shape, seed):
    numbers = np.random.default_rng(seed).integers(0, 40, shape)
    return np.asarray(numbers / 8 if "float" in dtype else numbers, numpy_dtype(dtype))


@st.composite
def regions(draw, shape):
    index = []
    for n in shape:
        if n and draw(st.booleans()):
            index.append(draw(st.integers(0, n - 1)))
        else:
            low, high = sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n))))
            index.append(slice(low, high, draw(st.integers(1, 3))))
    return tuple(index)


def written(index):
    return "..." * (not index) + ", ".join(
        f"{i.start}:{i.stop}:{i.step}" if isinstance(i, slice) else str(i) for i in index
    )


@st.composite
def _other_shape(draw, shape):
    kept = shape[draw(st.integers(0, len(shape))) :]
    return tuple(n if draw(st.booleans()) else 1 for n in kept)


SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)


@st.composite
def edited_bundles(draw):
    """Draw a bundle of numbers, statements over it, and what NumPy makes of its tensors."""
    big = draw(st.booleans())
    bundle = Bundle(2, big_endian=big)
    dtype = draw(st.sampled_from(EDITED))
    values = {}
    for name in draw(st.permutations(["w", "a/1", "a/2", "z"])):
        shape = draw(SHAPES)
        values[name] = small_values(dtype, shape, draw(SEEDS))
        slices = draw(slicings(shape))
        if len(slices) > 1 and draw(st.booleans()):
            bundle.add_slices(name.encode(), values[name], slices, shards=(0, 1))
        else:
            bundle.add(name.encode(), values[name], shard=draw(st.integers(0, 1)))
    statements = []
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(sorted(values)))
        text = draw(st.sampled_from(sorted(EDITS)))
        assume(dtype.startswith(("float", "bfloat")) or "0.5" not in text)
        target = values[name]
        index = draw(regions(target.shape)) if draw(st.booleans()) else None
        part = target if index is None else target[index]
        other, expr = None, text
        if "other" in text:
            shape = draw(_other_shape(part.shape))
            other = small_values(dtype, shape, draw(SEEDS))
            key = f"helper/{len(values)}"
            assume(key not in values)
            values[key] = other
            bundle.add(key.encode(), other)
            expr = text.replace("other", key)
        result = reference(text, part, other, dtype)
        target = target.copy()
        target[... if index is None else index] = result
        values[name] = target
        statements.append(f"{name}{'' if index is None else f'[{written(index)}]'} = {expr}")
    return bundle, statements, values
