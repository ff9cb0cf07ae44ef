"""The checkpoints that benchmarks work on, made when they are first asked for."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.measure import call_apart
from benchmarks.trial import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

ROW: Final = 4096
"""Columns of the matrices: a row of float32 has 16 KiB."""

EDITED: Final = "model/layer_001/kernel"
"""The tensor that benchmarks of a single tensor edit."""

SLICED: Final = "embedding"
"""The tensor of which rows are read."""


@dataclass(frozen=True)
class Scale:
    """How large the inputs are.

    Attributes:
        tensor_bytes: Bytes of each tensor of the large checkpoint.
        tensors: How many it has.
        many: Tensors of the checkpoint of tiny tensors.
        sliced_bytes: Bytes of the tensor of which rows are read.
        repeats: Samples of each contender.
    """

    name: str
    tensor_bytes: int
    tensors: int
    many: int
    sliced_bytes: int
    repeats: int


SCALES: Final = {
    scale.name: scale
    for scale in (
        Scale("full", 64 * MIB, 64, 1_000_000, 128 * MIB, 5),
        Scale("medium", 64 * MIB, 16, 200_000, 128 * MIB, 3),
        Scale("small", 4 * MIB, 16, 20_000, 8 * MIB, 3),
    )
}


@dataclass(frozen=True)
class Inputs:
    """Checkpoints in a folder, made in processes that take their memory with them."""

    folder: str
    scale: Scale

    @property
    def large_bytes(self) -> int:
        """Bytes of all tensors of the large checkpoint."""
        return self.scale.tensor_bytes * self.scale.tensors

    def large(self) -> str:
        """Return the prefix of a checkpoint of few large float32 matrices."""
        size, count = self.scale.tensor_bytes, self.scale.tensors
        return self._made("large", partial(write_large, size=size, count=count))

    def many(self) -> str:
        """Return the prefix of a checkpoint of very many tensors of 16 bytes."""
        return self._made("many", partial(write_many, count=self.scale.many))

    def sliced(self) -> str:
        """Return the prefix of a checkpoint of one tensor."""
        return self._made("sliced", partial(write_sliced, nbytes=self.scale.sliced_bytes))

    def tiny(self) -> str:
        """Return the prefix of a checkpoint such as a small model has."""
        return self._made("tiny", partial(write_many, count=20))

    def output(self, name: str) -> str:
        """Return the beginning of the paths of a contender's output."""
        return os.path.join(self.folder, f"out-{name.replace(' ', '-')}", "model")

    def _made(self, name: str, write: Callable[[str], None]) -> str:
        prefix = os.path.join(self.folder, f"{name}-{self.scale.name}", "model")
        if not os.path.exists(prefix + ".index"):
            call_apart(partial(write, prefix))
        return prefix


def files(prefix: str) -> list[str]:
    """Return the files of a checkpoint."""
    return sorted(glob.glob(glob.escape(prefix) + ".*"))


def kernel(number: int) -> str:
    """Return the name of a tensor of the large checkpoint."""
    return f"model/layer_{number:03d}/kernel"


def write_large(prefix: str, *, size: int, count: int) -> None:
    """Write multiples of one random matrix, none of which is held in memory but the first."""
    import numpy as np

    import ckptkit

    random = np.random.default_rng(7)
    first = random.random((size // ROW // 4, ROW), np.float32)
    seed = prefix + "-seed"
    ckptkit.save(seed, {kernel(0): first})
    copies = [f"copy {kernel(0)} -> {kernel(number)}" for number in range(1, count)]
    factors = [f"{kernel(number)} *= {1 + number / 64}" for number in range(1, count)]
    with ckptkit.open(seed) as checkpoint:
        checkpoint.edit(*copies, *factors).plan(prefix).run(device="numpy")
    for path in files(seed):
        os.unlink(path)


def write_many(prefix: str, *, count: int) -> None:
    """Write tiny tensors, eight to a layer."""
    import numpy as np

    import ckptkit

    values = np.arange(count * 4, dtype=np.float32).reshape(count, 4)
    names = (
        f"model/layer_{at // 8:06d}/part_{at % 8}/.ATTRIBUTES/VARIABLE_VALUE" for at in range(count)
    )
    ckptkit.save(prefix, dict(zip(names, values, strict=True)))


def write_sliced(prefix: str, *, nbytes: int) -> None:
    """Write one matrix."""
    import numpy as np

    import ckptkit

    values = np.arange(nbytes // 4, dtype=np.float32).reshape(-1, ROW)
    ckptkit.save(prefix, {SLICED: values})
