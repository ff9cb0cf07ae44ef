"""Links and attributes of an HDF5 file, edited in memory: which bytes of it become others."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, assert_never

from ckptkit.errors import EditError, UnsupportedError
from ckptkit.formats.keras.hdf5.attributes import put
from ckptkit.formats.keras.hdf5.links import Links, group_properties, link_properties
from ckptkit.formats.keras.hdf5.overlay import Overlay, explained, opened
from ckptkit.formats.keras.hdf5.regrouping import Attribute, Make, Move, Remove

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ckptkit.formats.keras.hdf5.content import Content
    from ckptkit.formats.keras.hdf5.overlay import Run
    from ckptkit.formats.keras.hdf5.regrouping import LinkEdit

_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
"""A superblock starts with it, at byte 0, 512, 1024, and so on."""

_MARKED: Final = 3
"""The version of superblocks from which on they say whether the file is open for writing."""


@dataclass(frozen=True, slots=True)
class Relinked:
    """What edits of links and attributes do to the bytes of an HDF5 file.

    Attributes:
        runs: Bytes that become others: where in the content and what, apart, in order. They are
            never data of a dataset that stays. Those past its length are its growth.
        size: Bytes of the content afterwards, never fewer than before: HDF5 may need less when
            something was removed, and then takes no notice of what follows its own end.
    """

    runs: tuple[Run, ...]
    size: int


def relink(content: Content, edits: Sequence[LinkEdit]) -> Relinked:
    """Find what edits of links and attributes, done one after the other, change in a file.

    Neither the file is changed, nor data of its datasets read. Only the metadata that HDF5 changes
    is in memory.

    Args:
        content: The HDF5 content as it is.
        edits: A group that something is moved to must exist, or be made before.

    Raises:
        EditError: A path is missing, is taken, or is no name; or a value does not fit.
        UnsupportedError: The HDF5 library does not edit the file.
    """
    path = content.file.path
    _check_closed(content)
    overlay = Overlay(content.file, content.start, content.length)
    with opened(overlay, "r+", path) as root:
        links = Links(root, path)
        for edit in edits:
            with explained(str(edit), EditError, path):
                _apply(links, edit)
        links.forget()
    runs = overlay.changes()
    _check_apart(content, overlay, runs)
    return Relinked(runs, max(content.length, overlay.size))


def _check_closed(content: Content) -> None:
    """Refuse a file whose superblock says that a writer has it open, or left it so.

    The library sees to that only in files that it opens itself, and would mark it as closed.
    """
    at = 0
    while at + len(_SIGNATURE) + 4 <= content.length:
        head = content.file.read(content.start + at, len(_SIGNATURE) + 4)
        if head.startswith(_SIGNATURE):
            if head[8] >= _MARKED and head[11]:
                msg = (
                    "a program has it open for writing, or was stopped while it had; where none "
                    "has, `h5clear -s` of the HDF5 tools takes that mark away"
                )
                raise UnsupportedError(msg, path=content.file.path, offset=content.start + at + 11)
            return
        at = 2 * at or 512


def _apply(links: Links, edit: LinkEdit) -> None:
    match edit:
        case Make(path):
            _make(links, path)
        case Move(old, new):
            _move(links, old, new)
        case Remove(path):
            _remove(links, path)
        case Attribute(path, name, value):
            put(links.object(path), name, value)
        case _:
            assert_never(edit)


def _make(links: Links, path: str) -> None:
    from h5py import h5g

    parent, raw = _free(links, path)
    links.remember(path, h5g.create(parent, raw, link_properties(raw), group_properties()))


def _move(links: Links, old: str, new: str) -> None:
    source, name = _taken(links, old)
    target, raw = _free(links, new)
    if new.startswith(f"{old}/"):
        links.refuse(old, f"it cannot move into itself, to {new!r}")
    source.links.move(name, target, raw, link_properties(raw))
    links.forget()


def _remove(links: Links, path: str) -> None:
    parent, name = _taken(links, path)
    links.forget()
    parent.unlink(name)


def _taken(links: Links, path: str) -> tuple[Any, bytes]:
    """Return the group that something is in, and its name there."""
    if not path:
        links.refuse(path, "the root neither moves nor goes")
    if not links.has(path):
        links.refuse(path, "there is no such group or dataset")
    return links.place(path)


def _free(links: Links, path: str) -> tuple[Any, bytes]:
    """Return the group that something is to be in, and its name there."""
    if not path or links.has(path):
        links.refuse(path, "there is a group or dataset of this name already")
    return links.place(path)


def _check_apart(content: Content, after: Overlay, runs: Sequence[Run]) -> None:
    """Refuse runs that are in data of datasets that stay."""
    starts = [start for start, _ in runs]

    def met(low: int, high: int) -> bool:
        at = bisect_left(starts, high) - 1
        return at >= 0 and starts[at] + len(runs[at][1]) > low

    suspects = [
        path
        for path, dataset in content.tree.datasets.items()
        if dataset.layout == "chunked"
        or (dataset.offset >= 0 and met(dataset.offset, dataset.offset + dataset.nbytes))
    ]
    if not suspects:
        return
    file = content.file.path
    with opened(after, "r", file) as root:
        staying = _addresses(root)
    before = Overlay(content.file, content.start, content.length)
    with opened(before, "r", file) as root:
        links = Links(root, file)
        for path in suspects:
            dataset = links.object(path)
            if _address(dataset) not in staying:
                continue
            if content.tree.datasets[path].offset >= 0 or _chunks_met(dataset, met):
                msg = "its links cannot change without changing its data; make a copy instead"
                raise UnsupportedError(msg, path=file, tensor=path)


def _chunks_met(dataset: Any, met: Callable[[int, int], bool]) -> bool:
    found: list[int] = []

    def note(chunk: Any) -> None:
        if met(chunk.byte_offset, chunk.byte_offset + chunk.size):
            found.append(chunk.byte_offset)

    dataset.chunk_iter(note)
    return bool(found)


def _addresses(root: Any) -> set[int]:
    """Return where the headers of all datasets are."""
    from h5py import h5o

    found: set[int] = set()

    def note(_: bytes, info: Any) -> None:
        # A group that was made may be where a dataset was that is gone.
        if info.type == h5o.TYPE_DATASET:
            found.add(info.addr)

    h5o.visit(root, note, info=True)
    return found


def _address(found: Any) -> int:
    from h5py import h5o

    return int(h5o.get_info(found).addr)
