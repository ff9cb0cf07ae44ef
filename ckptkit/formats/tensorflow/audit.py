"""Findings about a bundle that stop no reader: TensorFlow accepts all of these in silence."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import numpy as np

from ckptkit import _native
from ckptkit.formats.tensorflow.paths import INDEX, shard_path, unused_shards

if TYPE_CHECKING:
    from ckptkit.catalog import Catalog
    from ckptkit.formats import Warn

MAX_FINDINGS: Final = 100
"""Overlaps are reported up to this number."""


def audit_index(prefix: str, catalog: Catalog, warn: Warn) -> None:
    """Report odd bytes in an index, missing shards, tensors that share bytes, and dead bytes."""
    path = prefix + INDEX
    with open(path, "rb") as file:
        content = file.read()
    try:
        findings = _native.table_warnings(content)
    except _native.DecodeError as error:
        findings = [(error.offset, error.message)]
    for offset, message in findings:
        warn(path, offset, message)
    _audit_shards(prefix, catalog, warn)
    _audit_overlaps(catalog, warn)


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
