"""The checkpoints that benchmarks work on, made when they are first asked for."""

from __future__ import annotations

import glob
import os
import shutil
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.graph_files import write_objects
from benchmarks.keras_files import write_model, write_weights
from benchmarks.measure import call_apart
from benchmarks.trial import GIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

ROW: Final = 4096
"""Columns of the matrices: a row of float32 has 16 KiB."""

EDITED: Final = "model/layer_001/kernel"
"""The tensor that benchmarks of a single tensor edit."""

SLICED: Final = "embedding"
"""The tensor of which rows are read, or changed."""

SQUARE: Final = "kernel"
"""The tensor of which a column changes."""

TRAINED: Final = ("Adam/m", "Adam/v", "kernel")
"""What a checkpoint in training has of each layer; two thirds are the optimizer's."""


@dataclass(frozen=True)
class Scale:
    """How large the inputs are.

    Attributes:
        tensor_bytes: Bytes of each tensor of the large checkpoint.
        tensors: How many it has.
        many: Tensors of the checkpoint of tiny tensors.
        vectors: Tensors of the checkpoint of tensors of 64 bytes.
        variables: Tensors of the checkpoint that is read variable by variable.
        sliced_bytes: Bytes of the tensor of which rows are read.
        side: Rows and columns of the square matrix.
        patched: Bytes of the tensors of which a few bytes change, rising.
        nodes: Nodes of the object graph.
        units: Those of the layers of the Keras model by turns: rows and columns of the kernels.
        repeats: Samples of each contender.
    """

    name: str
    tensor_bytes: int
    tensors: int
    many: int
    vectors: int
    variables: int
    sliced_bytes: int
    side: int
    patched: tuple[int, ...]
    nodes: int
    units: tuple[int, int]
    repeats: int


SCALES: Final = {
    scale.name: scale
    for scale in (
        Scale(
            "full",
            tensor_bytes=64 * MIB,
            tensors=64,
            many=1_000_000,
            vectors=200_000,
            variables=10_000,
            sliced_bytes=128 * MIB,
            side=16384,
            patched=(64 * MIB, 512 * MIB, 4 * GIB),
            nodes=100_000,
            units=(4096, 8192),
            repeats=5,
        ),
        Scale(
            "medium",
            tensor_bytes=64 * MIB,
            tensors=16,
            many=200_000,
            vectors=50_000,
            variables=5_000,
            sliced_bytes=128 * MIB,
            side=8192,
            patched=(64 * MIB, 256 * MIB, GIB),
            nodes=100_000,
            units=(4096, 2048),
            repeats=3,
        ),
        Scale(
            "small",
            tensor_bytes=4 * MIB,
            tensors=16,
            many=20_000,
            vectors=5_000,
            variables=1_000,
            sliced_bytes=8 * MIB,
            side=1024,
            patched=(4 * MIB, 8 * MIB, 16 * MIB),
            nodes=5_000,
            units=(1024, 512),
            repeats=3,
        ),
    )
}


@dataclass(frozen=True)
class Inputs:
    """Checkpoints in a folder, made in processes that take their memory with them.

    Who edits one where it is puts it back after every sample, as others find it then.
    """

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

    def working(self) -> str:
        """Return the prefix of a copy of the large checkpoint, which may be edited."""
        return self._made("working", partial(copy_checkpoint, self.large()))

    def trained(self) -> str:
        """Return the prefix of the same tensors under the names that training gives."""
        count = self.scale.tensors
        return self._made("trained", partial(write_trained, self.large(), count=count))

    def many(self) -> str:
        """Return the prefix of a checkpoint of very many tensors of 16 bytes."""
        return self._made("many", partial(write_many, count=self.scale.many))

    def vectors(self) -> str:
        """Return the prefix of a checkpoint of many tensors of 64 bytes."""
        return self._made("vectors", partial(write_many, count=self.scale.vectors, width=16))

    def variables(self) -> str:
        """Return the prefix of a checkpoint of tensors of 64 bytes, fewer than of vectors."""
        return self._made("variables", partial(write_many, count=self.scale.variables, width=16))

    def sliced(self) -> str:
        """Return the prefix of a checkpoint of one tensor."""
        return self._made("sliced", partial(write_sliced, nbytes=self.scale.sliced_bytes))

    def matrix(self, nbytes: int) -> str:
        """Return the prefix of a checkpoint of one tensor of a size, which may be edited."""
        return self._made(f"matrix-{nbytes // MIB}", partial(write_sliced, nbytes=nbytes))

    def square(self) -> str:
        """Return the prefix of a checkpoint of one square matrix, which may be edited."""
        return self._made("square", partial(write_square, side=self.scale.side))

    def tiny(self) -> str:
        """Return the prefix of a checkpoint such as a small model has."""
        return self._made("tiny", partial(write_many, count=20))

    def objects(self) -> str:
        """Return the prefix of a checkpoint of very many objects."""
        return self._made("objects", partial(write_objects, nodes=self.scale.nodes))

    def keras_weights(self) -> str:
        """Return the path of a ``.weights.h5`` of dense layers, which may be edited."""
        path = self._path("keras-weights", "model.weights.h5")
        return _made(path, path, partial(write_weights, path, units=self.scale.units))

    def keras_model(self) -> str:
        """Return the path of the same weights in a ``.keras``, which may be edited."""
        path = self._path("keras-model", "model.keras")
        weights = self.keras_weights()
        return _made(path, path, partial(write_model, weights, path, units=self.scale.units))

    def output(self, name: str) -> str:
        """Return the beginning of the paths of a contender's output."""
        return os.path.join(self.folder, f"out-{name.replace(' ', '-')}", "model")

    def _made(self, name: str, write: Callable[[str], None]) -> str:
        prefix = self._path(name, "model")
        return _made(prefix, prefix + ".index", partial(write, prefix))

    def _path(self, name: str, file: str) -> str:
        return os.path.join(self.folder, f"{name}-{self.scale.name}", file)


def _made(path: str, last: str, write: Callable[[], None]) -> str:
    """Return a path after its files are made, of which the last one may be there."""
    if not os.path.exists(last):
        call_apart(write)
    return path


def files(prefix: str) -> list[str]:
    """Return the files of a checkpoint."""
    return sorted(glob.glob(glob.escape(prefix) + ".*"))


def kernel(number: int) -> str:
    """Return the name of a tensor of the large checkpoint."""
    return f"model/layer_{number:03d}/kernel"


def trained(number: int) -> str:
    """Return what that tensor is called in a checkpoint in training."""
    layer, part = divmod(number, len(TRAINED))
    return f"trained/layer_{layer:03d}/{TRAINED[part]}"


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


def copy_checkpoint(source: str, prefix: str) -> None:
    """Copy files, so that none of them has another name."""
    os.makedirs(os.path.dirname(prefix), exist_ok=True)
    for path in files(source):
        shutil.copyfile(path, prefix + path.removeprefix(source))


def write_trained(source: str, prefix: str, *, count: int) -> None:
    """Give the tensors of a large checkpoint other names, and its files second ones."""
    import ckptkit

    renames = [f"rename ^{kernel(number)}$ -> {trained(number)}" for number in range(count)]
    with ckptkit.open(source) as checkpoint:
        checkpoint.edit(*renames).plan(prefix, how="link").run(device="numpy")


def part(number: int) -> str:
    """Return the name of a tensor of a checkpoint of tiny ones, eight to a layer."""
    return f"model/layer_{number // 8:06d}/part_{number % 8}/.ATTRIBUTES/VARIABLE_VALUE"


def write_many(prefix: str, *, count: int, width: int = 4) -> None:
    """Write tiny tensors of ``width`` numbers each."""
    import numpy as np

    import ckptkit

    values = np.arange(count * width, dtype=np.float32).reshape(count, width)
    ckptkit.save(prefix, dict(zip(map(part, range(count)), values, strict=True)))


def write_sliced(prefix: str, *, nbytes: int) -> None:
    """Write one matrix."""
    import numpy as np

    import ckptkit

    values = np.arange(nbytes // 4, dtype=np.float32).reshape(-1, ROW)
    ckptkit.save(prefix, {SLICED: values})


def write_square(prefix: str, *, side: int) -> None:
    """Write a matrix of integers, which a factor of 1.5 leaves exact."""
    import ckptkit

    ckptkit.save(prefix, {SQUARE: square(side)})


def square(side: int) -> NDArray[np.float32]:
    """Return the values of the square matrix."""
    import numpy as np

    along = np.arange(side, dtype=np.float32)
    return along[:, None] * 3 + along
