"""A Keras checkpoint as it lies in files: HDF5 contents, and what is around them."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptkit.errors import CorruptError, UnsupportedError
from ckptkit.formats.keras.archive.inflated import TEXT, inflate, read_text_member
from ckptkit.formats.keras.archive.reader import WEIGHTS, read_archive
from ckptkit.formats.keras.hdf5.content import Content
from ckptkit.formats.keras.hdf5.reader import read_tree
from ckptkit.formats.keras.paths import TEXTS, kind_of
from ckptkit.formats.keras.shardmap import MAX_BYTES, owner, read_map
from ckptkit.storage.disk import Disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptkit.formats.keras.archive.inflated import Inflated
    from ckptkit.formats.keras.archive.reader import Archive, Member
    from ckptkit.formats.keras.hdf5.tree import Tree
    from ckptkit.formats.keras.paths import Kind
    from ckptkit.formats.keras.shardmap import ShardMap
    from ckptkit.model import Source
    from ckptkit.storage.disk import File


@dataclass(frozen=True, slots=True, eq=False)
class Package:
    """A checkpoint, opened: metadata only.

    Attributes:
        kind: What kind of files it is.
        source: Where it is.
        contents: The HDF5 contents; more than one only for shards, in the order of their map.
        archive: The archive that it is, if it is one.
        file: The file of that archive.
        weights: The member that holds the weights, in an archive.
        inflated: The weights of an archive that has them compressed, unpacked.
        map: The map of its shards, if it has one.
        texts: What is written beside the weights, by role: ``config``, ``metadata``.
    """

    kind: Kind
    source: Source
    contents: tuple[Content, ...]
    archive: Archive | None = None
    file: File | None = None
    weights: Member | None = None
    inflated: Inflated | None = None
    map: ShardMap | None = None
    texts: tuple[tuple[str, bytes], ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the data files."""
        if self.archive is not None:
            return (self.source.path,)
        return tuple(content.path for content in self.contents)


@contextmanager
def opened(source: Source) -> Iterator[Package]:
    """Have the metadata of a checkpoint, and its files open, while in the block.

    Raises:
        CorruptError: It is damaged, or contradicts itself.
        UnsupportedError: It holds what no weights are, or leads out of its files.
    """
    with ExitStack() as files:
        yield _open(source, files)


def _open(source: Source, files: ExitStack) -> Package:
    kind = kind_of(source)
    if kind == "archive":
        return _open_archive(source, files)
    if kind == "shards":
        return _open_shards(source, files)
    content = _open_content(source.path, files)
    texts = tuple(_texts_in(source.folder)) if source.folder is not None else _written(content.tree)
    return Package(kind, source, (content,), texts=texts)


def _open_content(path: str, files: ExitStack) -> Content:
    file = files.enter_context(Disk().open(path))
    return Content(file, 0, file.size, read_tree(file, 0, file.size))


def _written(tree: Tree) -> tuple[tuple[str, bytes], ...]:
    """Return what a whole model says of itself in attributes of its root."""
    found = tree.groups[""].attributes.get("model_config")
    text = found.encode("utf-8", "surrogateescape") if isinstance(found, str) else None
    return (("config", text),) if text is not None else ()


def _texts_in(folder: str) -> list[tuple[str, bytes]]:
    texts = []
    for role, name in TEXTS.items():
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            texts.append((role, read_text(path, TEXT)))
    return texts


def read_text(path: str, limit: int) -> bytes:
    """Return the contents of a small file.

    Raises:
        CorruptError: It is none.
    """
    with open(path, "rb") as file:
        text = file.read(limit + 1)
    if len(text) > limit:
        msg = f"a text of at most {limit:,} bytes was expected here"
        raise CorruptError(msg, path=path)
    return text


def _open_archive(source: Source, files: ExitStack) -> Package:
    file = files.enter_context(Disk().open(source.path))
    archive = read_archive(file)
    weights = archive.member(WEIGHTS)
    if weights is None:
        msg = "the archive has no member model.weights.h5"
        raise UnsupportedError(msg, path=source.path)
    texts = tuple(
        (role, read_text_member(file, member))
        for role, name in TEXTS.items()
        if (member := archive.member(name)) is not None
    )
    inflated = None
    if weights.method:
        inflated = inflate(file, weights)
        content = _open_content(inflated.path, files)
    else:
        start, length = weights.data_offset, weights.compressed
        content = Content(file, start, length, read_tree(file, start, length))
    return Package("archive", source, (content,), archive, file, weights, inflated, texts=texts)


def _open_shards(source: Source, files: ExitStack) -> Package:
    shards = read_map(read_text(source.path, MAX_BYTES))
    folder = os.path.dirname(source.path)
    contents = []
    for name in shards.shards:
        path = os.path.join(folder, name)
        if not os.path.isfile(path) or os.path.islink(path):
            msg = f"the map names the shard {name!r}, and there is no such file beside it"
            raise CorruptError(msg, path=source.path)
        contents.append(_open_content(path, files))
    _check_map(source, shards, contents)
    return Package("shards", source, tuple(contents), map=shards)


def _check_map(source: Source, shards: ShardMap, contents: Sequence[Content]) -> None:
    """Refuse a map that expects variables where there are none."""
    held = [set(map(owner, content.tree.datasets)) for content in contents]
    there = dict(zip(shards.shards, held, strict=True))
    for group, names in shards.groups.items():
        for name in names:
            if not any(f"{one}/".startswith(f"{group}/") for one in there[name]):
                msg = f"the map says that {group!r} is in {name!r}, and {name} has none of it"
                raise CorruptError(msg, path=source.path)
