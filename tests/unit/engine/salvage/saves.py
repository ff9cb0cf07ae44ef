"""Two saves of one model, what is read of them, and what a salvage says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import ckptkit
from tests.golden.damage import place
from tests.golden.handmade import texts


def values(seed: int) -> dict[str, Any]:
    """Return the tensors of one save of a model; some are the same in all saves."""
    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {
        f"layer{n}/kernel": rng.normal(size=(8, n + 1)).astype("float32") for n in range(12)
    }
    found["names"] = texts(b"a" * seed, b"", b"c" * (3 * seed))
    found["const"] = np.arange(7)
    found["empty"] = np.zeros((0, 3), "float32")
    found["step"] = np.int64(seed)
    return found


def shard(prefix: str, number: int, count: int = 2) -> Path:
    return Path(f"{prefix}.data-{number:05d}-of-{count:05d}")


def index(prefix: str) -> Path:
    return Path(prefix + ".index")


def where(prefix: str, name: str) -> tuple[Path, int, int]:
    """Return file, offset and length of a tensor."""
    extent = place(prefix, name)
    return Path(extent.path), extent.offset, extent.length


def read(prefix: str) -> dict[str, Any]:
    with ckptkit.open(prefix) as checkpoint:
        assert checkpoint.verify().ok
        return {name: tensor.read() for name, tensor in checkpoint.items()}


def fates(found: ckptkit.api.Salvaged) -> dict[str, str]:
    return {fate.tensor: fate.how for fate in found.fates}


def assert_equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, one in found.items():
        np.testing.assert_array_equal(one, wanted[name], err_msg=name)
