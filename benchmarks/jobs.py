"""Jobs of several benchmarks: an edit of ours, ``cp``, and scripts that use TensorFlow."""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks.data import files
from benchmarks.trial import MIB, Extra, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Tensors = dict[str, Any]
    Change = Callable[[Tensors], Tensors]
    Compute = Callable[[NDArray[Any]], NDArray[Any]]

BUDGET: Final = 256 * MIB
"""Staging memory that an edit may use."""

SLACK: Final = 100
"""MiB of peak memory beyond the budget: the program itself, and TensorFlow if it computes."""

UNSYNCED: Final = "before sync"
"""The lap of a script of TensorFlow that ends before its files are durable."""

READ: Final = "bytes read"
WRITTEN: Final = "bytes written"
JOURNALLED: Final = "bytes journalled"
INDEX: Final = "bytes of the index"
"""Facts that an edit of ours tells; the index is part of what is written, unless it is patched.

A Keras file has no index.
"""


def tensorflow() -> Any:
    """Import TensorFlow, which is quiet and sees no GPU."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import tensorflow as tf

    return tf


def edit(
    source: str,
    target: str | None,
    *statements: str,
    how: str = "copy",
    device: str = "numpy",
    memory: int = BUDGET,
) -> Job:
    """Return our side: an edit, from opening the checkpoint until the result is durable.

    Args:
        source: What is edited.
        target: Where to; None for the same place.
        statements: The edit.
        how: The way of writing.
        device: Where it computes.
        memory: Bytes of staging memory.
    """
    import ckptkit

    if device != "numpy":
        tensorflow()
    index = f"{target or source}.index"

    def job() -> Extra:
        with ckptkit.open(source) as checkpoint:
            draft = checkpoint.edit(*statements)
            report = draft.plan(target, how=how).run(device=device, memory=memory)
        facts = {
            READ: report.bytes_read,
            WRITTEN: report.bytes_written,
            JOURNALLED: report.bytes_journal,
        }
        if os.path.exists(index):
            facts[INDEX] = os.path.getsize(index)
        return Extra(facts=facts)

    return job


def patch(prefix: str, *statements: str) -> None:
    """Edit inside a checkpoint, now: what takes an edit back that is measured."""
    edit(prefix, None, *statements, how="patch")()


def cut_back(source: str, copy: str) -> None:
    """Take back what was appended to a copy of a checkpoint, of which all but its end is sound."""
    for path in files(source):
        mine = copy + path.removeprefix(source)
        if path.endswith(".index"):
            shutil.copyfile(path, mine)
        else:
            os.truncate(mine, os.path.getsize(path))


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


def rewrite_runs(path: str, width: int, offsets: Sequence[int]) -> Job:
    """Return a write of the bytes that are there, run by run, and a sync: no journal, no sums."""

    def job() -> None:
        descriptor = os.open(path, os.O_RDWR)
        for offset in offsets:
            os.pwrite(descriptor, os.pread(descriptor, width, offset), offset)
        os.fsync(descriptor)
        os.close(descriptor)

    return job


def rewrite(source: str, target: str, change: Change, keep: str = "*") -> Job:
    """Return what a script does: restore, change, save, each in one operation.

    Its files are synced in the end, as ours are; the lap before that is what users see.

    Args:
        source: The checkpoint.
        target: Where to.
        change: What is done to the tensors.
        keep: Names of those that are restored, as for ``fnmatch``.
    """
    tf = tensorflow()

    def job() -> Extra:
        began = time.perf_counter()
        restored = change(restore(source, keep))
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


def restore(source: str, keep: str = "*") -> Tensors:
    """Return tensors of a checkpoint by name, restored in one operation."""
    tf = tensorflow()
    dtypes = tf.train.load_checkpoint(source).get_variable_to_dtype_map()
    names = sorted(fnmatch.filter(dtypes, keep))
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
    """See that TensorFlow reads the edited values, and that all checksums hold.

    Args:
        source: What was edited.
        target: The result.
        factors: Names of tensors, and what each was multiplied by.
        names: How many tensors there are.

    Raises:
        ValueError: It reads something else.
    """
    expected = {name: partial(_times, factor=factor) for name, factor in factors}
    check_computed(source, target, expected, names)


def _times(values: NDArray[Any], factor: float) -> NDArray[Any]:
    found: NDArray[Any] = values * values.dtype.type(factor)
    return found


def check_computed(
    source: str, target: str, expected: Mapping[str, Compute], names: int, tolerance: float = 0
) -> None:
    """See that TensorFlow reads what is expected, and that all checksums hold.

    Args:
        source: What was edited.
        target: The result.
        expected: Names of tensors, and what gives the values of each from those before.
        names: How many tensors there are.
        tolerance: By which part of itself a value may be off.

    Raises:
        ValueError: It reads something else.
    """
    import numpy as np

    tf = tensorflow()
    before, after = tf.train.load_checkpoint(source), tf.train.load_checkpoint(target)
    if len(after.get_variable_to_shape_map()) != names:
        msg = f"{target} has other tensors than expected"
        raise ValueError(msg)
    for name, compute in expected.items():
        wanted, found = compute(before.get_tensor(name)), after.get_tensor(name)
        if found.dtype != wanted.dtype or not np.allclose(found, wanted, rtol=tolerance, atol=0):
            msg = f"{name} of {target} is not what was to be made of that of {source}"
            raise ValueError(msg)
    check_sound(target)


def check_sound(prefix: str) -> None:
    """See that every checksum of a checkpoint holds.

    Raises:
        ValueError: One does not.
    """
    import ckptkit

    with ckptkit.open(prefix) as checkpoint:
        if not checkpoint.verify().ok:
            msg = f"{prefix} is damaged"
            raise ValueError(msg)
