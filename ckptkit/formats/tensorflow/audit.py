"""Findings about a bundle that opens: what TensorFlow accepts in silence, or stumbles over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import numpy as np

from ckptkit import _native
from ckptkit.errors import ConflictError
from ckptkit.formats.tensorflow import hazards
from ckptkit.formats.tensorflow.dtypes import NAMES
from ckptkit.formats.tensorflow.graph.lint import lint_graph
from ckptkit.formats.tensorflow.paths import INDEX, shard_path, unused_shards
from ckptkit.globs import quoted
from ckptkit.model import DTYPES
from ckptkit.partition import JOINED
from ckptkit.storage.disk import Sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptkit.catalog import Catalog
    from ckptkit.columns import Columns
    from ckptkit.formats import Warn

MAX_FINDINGS: Final = 100
"""Overlaps are reported up to this number."""

CHUNK: Final = 2 << 20
"""Bytes of a tensor that are looked at in one go."""

_REFERENCES: Final = 100
"""The number of a dtype and this is that of a reference to it, which no file can hold."""


def audit_index(prefix: str, catalog: Catalog, warn: Warn) -> None:
    """Report what is odd about an index, its tensors, and the bytes around them."""
    path = prefix + INDEX
    with open(path, "rb") as file:
        content = file.read()
    for offset, message in table_findings(content):
        warn(path, offset, message)
    _audit_dtypes(path, catalog, warn)
    _audit_slices(path, catalog, warn)
    _audit_bits(catalog, warn)
    _audit_shards(prefix, catalog, warn)
    _audit_overlaps(catalog, warn)
    lint_graph(path, catalog, warn)


def table_findings(index: bytes) -> list[tuple[int, str]]:
    """Return what no writer puts into a table, but readers accept: offsets and messages."""
    try:
        return _native.table_warnings(index)
    except _native.DecodeError as error:
        return [(error.offset, error.message)]


def _audit_dtypes(path: str, catalog: Catalog, warn: Warn) -> None:
    """Report tensors whose values nobody can read."""
    columns = catalog.columns
    held = {*columns.dtype} - {code for code, name in NAMES.items() if name != "resource"}
    if not held:
        return
    for name, row in zip(catalog.names, catalog.rows, strict=True):
        code = columns.dtype[row]
        if code not in held:
            continue
        if NAMES.get(code) == "resource":
            text = "a resource is no value that a checkpoint can hold; TensorFlow restores none"
        else:
            kind = "a reference" if code - _REFERENCES in NAMES else "no dtype that is known"
            text = hazards.told(f"dtype {code} is {kind}", hazards.ABORTS)
        warn(path, None, text, tensor=name, severity="error")


def _audit_slices(path: str, catalog: Catalog, warn: Warn) -> None:
    """Report tensors in slices that TensorFlow writes, and does not join."""
    columns = catalog.columns
    if not columns.parts:
        return
    for name, row in zip(catalog.names, catalog.rows, strict=True):
        dtype = columns.spec(row).dtype if len(columns.parts.get(row, ())) > 1 else None
        if dtype is not None and dtype not in JOINED:
            text = (
                f"TensorFlow does not join slices of {dtype}, and cannot restore the tensor; this"
                f" repairs it: repartition {quoted(name)} -> whole"
            )
            warn(path, None, text, tensor=name)


def _audit_bits(catalog: Catalog, warn: Warn) -> None:
    """Report bits that no value of a dtype has; readers ignore them, or each in its own way."""
    columns = catalog.columns
    narrow = {code for code, name in NAMES.items() if 0 < DTYPES[name].bits < 8}
    if narrow.isdisjoint(columns.dtype):
        return
    sources = Sources()
    try:
        for name, row in zip(catalog.names, catalog.rows, strict=True):
            if columns.dtype[row] not in narrow:
                continue
            for at in [at for _, at in columns.parts.get(row, ())] or [row]:
                offset = _first_odd(sources, columns, at)
                if offset is not None:
                    dtype = columns.spec(row).dtype
                    taken = "for true" if dtype == "bool" else "without the bits that are too many"
                    text = f"a byte that no {dtype} is stored as; TensorFlow takes it {taken}"
                    warn(columns.files[columns.shard[at]], offset, text, tensor=name)
                    break
    finally:
        sources.close()


def _first_odd(sources: Sources, columns: Columns, row: int) -> int | None:
    """Return where a row has the first byte with bits that are too many."""
    largest = (1 << DTYPES[columns.spec(row).dtype].bits) - 1
    for start, length in _chunks(columns.offset[row], columns.size[row]):
        buffer = np.empty(length, np.uint8)
        try:
            sources.file(columns.files[columns.shard[row]]).read_into(buffer, start)
        except ConflictError:
            return None
        if (odd := buffer > largest).any():
            return start + int(odd.argmax())
    return None


def _chunks(offset: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, CHUNK):
        yield offset + start, min(CHUNK, size - start)


def _audit_shards(prefix: str, catalog: Catalog, warn: Warn) -> None:
    count = catalog.columns.shards
    for number in range(min(count, len(catalog.columns.files) + MAX_FINDINGS)):
        path = shard_path(prefix, number, count)
        if number not in catalog.columns.files and not os.path.exists(path):
            warn(path, None, f"shard {number} of {count} is missing; no tensor is in it")
    for path in unused_shards(prefix, count, catalog.columns.files.values()):
        _warn_dead(path, os.path.getsize(path), warn)


def _audit_overlaps(catalog: Catalog, warn: Warn) -> None:
    columns = catalog.columns
    if not len(columns):
        return
    stored = (np.asarray(columns.flags) & columns.SLICED) == 0
    shard, offset = np.asarray(columns.shard)[stored], np.asarray(columns.offset)[stored]
    size = np.asarray(columns.size)[stored]
    used = size > 0
    shard, offset, size = shard[used], offset[used], size[used]
    order = np.lexsort((offset, shard))
    shard, offset, end = shard[order], offset[order], (offset + size)[order]
    for number, path in columns.files.items():
        mine = slice(*np.searchsorted(shard, [number, number + 1]).tolist())
        starts, ends = offset[mine], end[mine]
        furthest = np.maximum.accumulate(np.concatenate([np.zeros(1, np.int64), ends]))[:-1]
        shared = np.flatnonzero(starts < furthest)
        for at in shared[:MAX_FINDINGS].tolist():
            text = f"bytes {starts[at]} to {min(int(furthest[at]), int(ends[at]))}"
            warn(path, int(starts[at]), f"{text} belong to more than one tensor")
        covered = np.maximum(ends - np.maximum(starts, furthest), 0).sum()
        _warn_dead(path, os.path.getsize(path) - int(covered), warn)


def _warn_dead(path: str, nbytes: int, warn: Warn) -> None:
    if nbytes > 0:
        warn(path, None, f"{nbytes} bytes belong to no tensor; edit --compact leaves them out")
