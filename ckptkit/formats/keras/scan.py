"""From the metadata of a Keras checkpoint to a catalog. Names are HDF5 paths; see FORMAT.md."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ckptkit.catalog import Catalog
from ckptkit.columns import Place, Rows
from ckptkit.errors import CorruptError, FormatError
from ckptkit.formats.keras.config.jsontext import parse
from ckptkit.formats.keras.naming.labels import in_order, labels_of
from ckptkit.formats.keras.package import opened
from ckptkit.model import DTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ckptkit.columns import Columns
    from ckptkit.formats.keras.hdf5.content import Content
    from ckptkit.formats.keras.hdf5.tree import Dataset, Tree
    from ckptkit.formats.keras.package import Package
    from ckptkit.model import Source

NAMES: Final = dict(enumerate(DTYPES))
"""Dtype names by number."""

CODES: Final = {name: code for code, name in NAMES.items()}

HOLE: Final = 4096
"""Bytes of an unused range that count as dead: HDF5 itself leaves shorter ones."""


def scan(source: Source) -> Catalog:
    """Read the metadata of a checkpoint.

    Raises:
        CorruptError: It is damaged, or contradicts itself.
        UnsupportedError: It holds what no weights are, or leads out of its files.
    """
    with opened(source) as package:
        rows = _rows(package)
        columns = _columns(package, rows)
        names = [dataset.path for _, dataset in rows]
        catalog = Catalog(names, range(len(names)), columns, attachments=dict(package.texts))
    # What is unpacked is gone with the last one who needs it.
    catalog.held = package.inflated
    return catalog


def _rows(package: Package) -> list[tuple[int, Dataset]]:
    """Return all datasets with the number of their content, in a readable order."""
    if len(package.contents) == 1:
        tree = package.contents[0].tree
        return [(0, tree.datasets[path]) for path in in_order(tree)]
    found: dict[str, tuple[int, Dataset]] = {}
    for number, content in enumerate(package.contents):
        for path in in_order(content.tree):
            if path in found:
                msg = f"it is in two shards, {os.path.basename(content.path)} is the second"
                raise CorruptError(msg, path=package.source.path, tensor=path)
            found[path] = number, content.tree.datasets[path]
    order = in_order(merged(package))
    return [found[path] for path in order]


def merged(package: Package) -> Tree:
    """Return the trees of all contents as one, as if their contents followed one another.

    Of a group in several shards, attributes of any of them count: one that Keras split has its
    name in one of them. Offsets of data stay those in the content of a dataset.
    """
    first, *others = (content.tree for content in package.contents)
    if not others:
        return first
    groups, datasets = dict(first.groups), dict(first.datasets)
    start = first.end
    for tree in others:
        for path, group in tree.groups.items():
            known = groups.get(path)
            if known is None:
                groups[path] = replace(group, address=start + group.address)
                continue
            links = tuple(sorted({*known.links, *group.links}, key=_bytes))
            attributes = {**group.attributes, **known.attributes}
            groups[path] = replace(known, links=links, attributes=attributes)
        for path, dataset in tree.datasets.items():
            datasets[path] = replace(dataset, address=start + dataset.address)
        start += tree.end
    return replace(first, groups=groups, datasets=datasets)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _columns(package: Package, rows: list[tuple[int, Dataset]]) -> Columns:
    # Unpacked weights are read where they are unpacked.
    files = {number: content.path for number, content in enumerate(package.contents)}
    held = Rows()
    for number, dataset in rows:
        content = package.contents[number]
        place = Place(size=dataset.nbytes)
        if is_direct(dataset):
            # What has no bytes is nowhere.
            offset = content.start + max(dataset.offset, 0) if dataset.nbytes else 0
            place = place._replace(shard=number, offset=offset)
        else:
            # It brings NumPy along, which most files can do without.
            from ckptkit.storage.datasets import dataset_path

            place = place._replace(shard=len(files))
            files[len(files)] = dataset_path(
                content.path, content.start, content.length, dataset.path
            )
        held.add(CODES[dataset.dtype], dataset.shape, place, _bytes(dataset.path))
    columns = replace(
        held.columns(NAMES, files),
        shards=len(package.contents),
        summed=False,
        labels=_labels(package, rows),
    )
    total = sum(os.path.getsize(path) for path in package.files)
    dead = sum(map(dead_bytes, package.contents)) if package.inflated is None else 0
    return replace(columns, overhead=columns.dead_bytes(total) - dead)


def is_direct(dataset: Dataset) -> bool:
    """Tell whether the bytes of a dataset are one byte range, in the order of this machine."""
    direct = dataset.layout == "contiguous" and dataset.byteorder == "little"
    return (direct and not dataset.filters) or not dataset.nbytes


def _labels(package: Package, rows: list[tuple[int, Dataset]]) -> tuple[str, ...]:
    tree = merged(package)
    labels: Mapping[str, str] = labels_of(tree, _config(package))
    return tuple(labels.get(dataset.path, "") for _, dataset in rows) if labels else ()


def _config(package: Package) -> Mapping[str, object] | None:
    """Return what is written of the model; damaged text is a matter for who needs it."""
    text = dict(package.texts).get("config")
    try:
        return None if text is None else parse(text, "the configuration")
    except FormatError:
        return None


def dead_bytes(content: Content) -> int:
    """Return how many bytes of a content are neither metadata nor data, in ranges of some size."""
    tree = content.tree
    used = [*tree.metadata]
    used += [(one.offset, one.nbytes) for one in tree.datasets.values() if one.offset >= 0]
    end = dead = 0
    for offset, length in sorted(used):
        dead += offset - end if offset - end >= HOLE else 0
        end = max(end, offset + length)
    rest = content.length - end
    chunks = sum(one.stored for one in tree.datasets.values() if one.layout == "chunked")
    return max(dead + (rest if rest >= HOLE else 0) - chunks, 0)
