"""Jobs of several benchmarks: an edit of ours, ``cp``, and scripts that use TensorFlow."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

from benchmarks.data import files
from benchmarks.trial import Extra, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Tensors = dict[str, Any]
    Change = Callable[[Tensors], Tensors]

UNSYNCED = "before sync"
"""The lap of a script of TensorFlow that ends before its files are durable."""


def tensorflow() -> Any:
    """Import TensorFlow, which is quiet and sees no GPU."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import tensorflow as tf

    return tf


def edit(
    source: str, target: str, statement: str, *, device: str = "numpy", memory: int = 256 << 20
) -> Job:
    """Return our side: an edit, from opening the checkpoint until the result is durable."""
    import ckptkit

    if device != "numpy":
        tensorflow()

    def job() -> None:
        with ckptkit.open(source) as checkpoint:
            draft = checkpoint.edit(statement)
            draft.plan(target, how="copy").run(device=device, memory=memory)

    return job


def copy_files(source: str, target: str) -> Job:
    """Return ``cp`` of all files of a checkpoint, then ``sync`` of the copies."""
    folder = os.path.dirname(target)
    sources = files(source)
    copies = [os.path.join(folder, os.path.basename(path)) for path in sources]

    def job() -> None:
        os.makedirs(folder, exist_ok=True)
        subprocess.run(["cp", *sources, folder], check=True)
        subprocess.run(["sync", *copies], check=True)

    return job


def rewrite(source: str, target: str, change: Change) -> Job:
    """Return what a script does: restore all, change, save all, each in one operation.

    Its files are synced in the end, as ours are; the lap before that is what users see.
    """
    tf = tensorflow()

    def job() -> Extra:
        began = time.perf_counter()
        restored = change(restore(source))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        tf.raw_ops.SaveV2(
            prefix=target,
            tensor_names=list(restored),
            shape_and_slices=[""] * len(restored),
            tensors=list(restored.values()),
        )
        unsynced = time.perf_counter() - began
        del restored
        sync(files(target))
        return Extra(laps={UNSYNCED: unsynced})

    return job


def restore(source: str) -> Tensors:
    """Return all tensors of a checkpoint by name, restored in one operation."""
    tf = tensorflow()
    dtypes = tf.train.load_checkpoint(source).get_variable_to_dtype_map()
    names = sorted(dtypes)
    tensors = tf.raw_ops.RestoreV2(
        prefix=source,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        dtypes=[dtypes[name] for name in names],
    )
    return dict(zip(names, tensors, strict=True))


def sync(paths: Iterable[str]) -> None:
    """Wait until files are on the device."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def read_all(prefix: str) -> Job:
    """Return a loop of ``get_tensor`` that drops each value."""
    tf = tensorflow()

    def job() -> None:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)

    return job


def tensor(prefix: str, name: str) -> NDArray[Any]:
    """Return the values that TensorFlow reads."""
    values: NDArray[Any] = tensorflow().train.load_checkpoint(prefix).get_tensor(name)
    return values


def read_cache(prefix: str, *, summed: bool) -> Job:
    """Return one pass over all data files, read in blocks by one thread, and summed or not."""
    import numpy as np

    from ckptkit import _native

    block = np.empty(4 << 20, np.uint8)

    def job() -> None:
        for path in files(prefix):
            with open(path, "rb", buffering=0) as file:
                while got := file.readinto(block):
                    if summed:
                        _native.crc32c(block[:got])

    return job


def check_values(
    source: str, target: str, factors: Sequence[tuple[str, float]], names: int
) -> None:
    """See that TensorFlow reads the edited values.

    Args:
        source: What was edited.
        target: The result.
        factors: Names of tensors, and what each was multiplied by.
        names: How many tensors there are.

    Raises:
        ValueError: It reads something else.
    """
    import numpy as np

    tf = tensorflow()
    before, after = tf.train.load_checkpoint(source), tf.train.load_checkpoint(target)
    if len(after.get_variable_to_shape_map()) != names:
        msg = f"{target} has other tensors than expected"
        raise ValueError(msg)
    for name, factor in factors:
        given: NDArray[np.float32] = before.get_tensor(name)
        if not np.array_equal(given * np.float32(factor), after.get_tensor(name)):
            msg = f"{name} of {target} is not {factor} times that of {source}"
            raise ValueError(msg)
