"""New values where the old ones were: in a mirror of the old files, or in these themselves.

Nothing but tensors that change, and checksums of archives, is other than before: whatever else is
in a file, known or not, is carried over byte by byte.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ckptkit.errors import EditError
from ckptkit.formats.keras.archive.reader import crc_places
from ckptkit.formats.keras.hdf5.regrouping import Attribute
from ckptkit.formats.keras.hdf5.relink import relink
from ckptkit.formats.keras.paths import TEXTS
from ckptkit.formats.keras.reserve import is_plain, weights_path
from ckptkit.formats.keras.scan import dead_bytes, merged
from ckptkit.formats.keras.shardmap import owner, shard_names, write_map
from ckptkit.placement import Carried, Given, Placement, Sealed, Span
from ckptkit.storage.sidecar import is_sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ckptkit.formats.keras.hdf5.regrouping import LinkEdit
    from ckptkit.formats.keras.package import Package
    from ckptkit.formats.keras.reserve import Request
    from ckptkit.placement import Int64s

MUCH: Final = 64 << 10
"""Dead bytes that a copy may carry over, rather than lay all out anew."""


def fits(request: Request) -> bool:
    """Tell whether a copy can be a mirror: nothing but values changes."""
    package = request.package
    if package is None or package.kind != request.kind or not is_plain(request.target.layout):
        return False
    changed = request.items.source < 0
    return not (
        request.moved
        or request.texts
        or request.respecified()
        or package.inflated is not None
        or np.any(changed & request.indirect())
        or (changed.any() and request.shares())
        or sum(map(dead_bytes, package.contents)) > (0 if request.target.in_place else MUCH)
    )


def copied(request: Request) -> Placement:
    """Lay out a mirror of the old files at another place."""
    package = _package(request)
    old, new = package.files, _new_paths(request)
    sizes = tuple(os.path.getsize(path) for path in old)
    order, items = _order(request, ~request.indirect()), request.items
    folder = request.target.path if package.kind == "folder" else None
    if request.target.in_place:
        folder = None
    return items.placed(
        order,
        items.old_shard[order],
        items.old_offset[order],
        files=new,
        file_sizes=sizes,
        bases=(None,) * len(new),
        index=request.target.path if package.kind == "shards" else new[0],
        folder=folder,
        companions=tuple(companions(package, request.target.path)) if folder else (),
        carried=tuple(_around(request, order, sizes)),
        spans=tuple(_spans(package, package.source.path)),
        finish=Finish(_new_map(request, new), new[0], _crc_places(package)),
    )


def _package(request: Request) -> Package:
    if request.package is None:
        msg = "a mirror is one of files that are there"
        raise AssertionError(msg)
    return request.package


def _new_paths(request: Request) -> tuple[str, ...]:
    package, target = _package(request), request.target
    if target.in_place:
        return tuple(map(os.path.abspath, package.files))
    if package.kind != "shards":
        return (weights_path(request),)
    folder = os.path.dirname(target.path)
    names = shard_names(target.path, len(package.contents))
    return tuple(os.path.join(folder, name) for name in names)


def _order(request: Request, kept: np.ndarray) -> Int64s:
    """Return the items that are runs of bytes, in the order of these; of aliases only one."""
    items = request.items
    order = np.lexsort((items.size, items.old_offset, items.old_shard))
    order = order[kept[order]]
    shard, offset, size = (c[order] for c in (items.old_shard, items.old_offset, items.size))
    again = (shard[1:] == shard[:-1]) & (offset[1:] == offset[:-1]) & (size[:-1] > 0)
    first: Int64s = order[np.concatenate([[True], ~again])] if len(order) else order
    return first


def _around(request: Request, order: Int64s, sizes: Sequence[int]) -> Iterator[Carried]:
    """Yield all bytes of the old files that no item stands for."""
    items, columns = request.items, request.before.columns
    numbers = [*columns.files]
    for shard, total in enumerate(sizes):
        mine = order[(items.old_shard[order] == shard) & (items.size[order] > 0)]
        source = numbers.index(shard)
        end = 0
        for at in mine.tolist():
            start = int(items.old_offset[at])
            if start > end:
                yield Carried(source, end, shard, end, start - end)
            end = start + int(items.size[at])
        if total > end:
            yield Carried(source, end, shard, end, total - end)


def _spans(package: Package, base: str | None) -> Iterator[Span]:
    if package.weights is not None and package.inflated is None:
        weights = package.weights
        yield Span(0, weights.data_offset, weights.compressed, weights.crc32, base)


def companions(package: Package, folder: str) -> Iterator[tuple[str, str]]:
    """Yield from and to of every file of an unzipped model but the weights."""
    root = package.source.folder or ""
    for place, _, names in sorted(os.walk(root)):
        for name in sorted(names):
            path = os.path.join(place, name)
            if not os.path.samefile(path, package.source.path) and not is_sidecar(name):
                yield path, os.path.join(folder, os.path.relpath(path, root))


@dataclass(frozen=True, slots=True)
class Finish:
    """Writes texts, and the checksum of the weights of an archive where it belongs.

    Attributes:
        files: Contents of files, which checksums do not change.
        path: The archive.
        places: Where the checksum is in it.
    """

    files: Mapping[str, bytes]
    path: str = ""
    places: tuple[int, ...] = ()

    def __call__(self, sums: Sequence[int]) -> Sealed:
        """Return what is to be written, for the checksum of the weights."""
        if not self.places:
            return Sealed(self.files)
        found = int(sums[0]).to_bytes(4, "little")
        return Sealed(self.files, {self.path: tuple((place, found) for place in self.places)})


def _crc_places(package: Package) -> tuple[int, ...]:
    return crc_places(package.weights) if package.weights is not None else ()


def _new_map(request: Request, files: Sequence[str]) -> Mapping[str, bytes]:
    """Return the map of shards that have other names, if there is one."""
    package = _package(request)
    if package.map is None:
        return {}
    names = dict(zip(package.map.shards, map(os.path.basename, files), strict=True))
    groups = {
        group: tuple(names[name] for name in listed) for group, listed in package.map.groups.items()
    }
    return {request.target.path: write_map(package.map.total_size, groups, _counts(package))}


def _counts(package: Package) -> Mapping[str, int]:
    """Return how many variables each group of a map has."""
    found: dict[str, int] = {}
    for path in merged(package).datasets:
        group = owner(path)
        found[group] = found.get(group, 0) + 1
    shards = package.map.groups if package.map is not None else {}
    return {group: found.get(group, len(listed)) for group, listed in shards.items()}


# --- where it is -------------------------------------------------------------------------------


def patched(request: Request) -> Placement:
    """Keep everything where it is; what is changed takes the place of what was there.

    Raises:
        EditError: A tensor has no place, or another size or shape than its place, or the
            metadata has no room.
    """
    package = _package(request)
    _check_places(request)
    files = tuple(map(os.path.abspath, package.files))
    sizes = [os.path.getsize(path) for path in files]
    given: tuple[Given, ...] = ()
    edits = _link_edits(request)
    if edits:
        given, sizes[0] = _relinked(package, edits, sizes[0])
    order = _order(request, ~request.indirect())
    items = request.items
    index = os.path.abspath(package.source.path)
    return items.placed(
        order,
        items.old_shard[order],
        items.old_offset[order],
        items.source[order] >= 0,
        files=files,
        file_sizes=tuple(sizes),
        bases=files,
        index=index,
        given=given,
        spans=tuple(_spans(package, None)),
        state=tuple(_state(package)),
        finish=Finish(_text_files(request, index), files[0], _crc_places(package)),
    )


def _check_places(request: Request) -> None:
    package, items = _package(request), request.items
    if package.inflated is not None:
        msg = "the weights are compressed in their archive; write a copy instead"
        raise EditError(msg, path=package.source.path)
    name = request.respecified()
    if name is not None:
        row = request.after.row(name)
        was = "is new" if row < 0 else f"was {request.before.columns.spec(row)}"
        msg = f"{name!r} becomes {request.after.spec(name)} and {was}; write a copy instead"
        raise EditError(msg, tensor=name)
    if len(set(request.after.rows)) < len(request.after.rows):
        msg = "a copy of a tensor has no place yet; write a copy instead"
        raise EditError(msg)
    changed = np.flatnonzero((items.source < 0) & request.indirect())
    if len(changed):
        name = request.after.names[int(items.tensor[changed[0]])]
        msg = f"{name!r} is stored in chunks, compressed, or big-endian; write a copy instead"
        raise EditError(msg, tensor=name)
    if (items.source < 0).any() and request.shares():
        msg = "another name stands for the same bytes; write a copy instead"
        raise EditError(msg, path=package.source.path)


def _link_edits(request: Request) -> Sequence[LinkEdit]:
    """Return what is to be done to links and attributes.

    Raises:
        EditError: They are in an archive, or in many files.
    """
    from ckptkit.formats.keras.rebuild import regrouped

    package = _package(request)
    config = "config" in request.texts
    if request.texts and package.kind == "archive":
        msg = "a text in an archive has no room to change; write a copy instead"
        raise EditError(msg, path=package.source.path)
    if not request.moved and not (config and package.kind == "hdf5"):
        return ()
    if package.kind == "shards":
        msg = "the names in many shards change together; write a copy instead"
        raise EditError(msg, path=package.source.path)
    edits = regrouped(request).edits
    if config and package.kind == "hdf5":
        text = request.texts["config"].decode("utf-8", "surrogateescape")
        edits = (*edits, Attribute("", "model_config", text))
    return edits


def _relinked(
    package: Package, edits: Sequence[LinkEdit], size: int
) -> tuple[tuple[Given, ...], int]:
    content = package.contents[0]
    done = relink(content, edits)
    growth = done.size - content.length
    if growth and package.kind == "archive":
        msg = "the new names need more room than there is in the archive; write a copy instead"
        raise EditError(msg, path=content.path)
    given = (Given(0, content.start + offset, new) for offset, new in done.runs)
    return tuple(given), size + growth


def _state(package: Package) -> Iterator[tuple[int, int]]:
    """Yield the metadata of a file, which says in which state a checkpoint is."""
    if package.kind == "shards":
        return
    archive = package.archive
    if archive is not None:
        for member in archive.members:
            yield member.header_offset, member.header_length
    content = package.contents[0]
    for offset, length in content.tree.metadata:
        yield content.start + offset, length
    if archive is not None:
        yield archive.directory_offset, archive.end - archive.directory_offset


def _text_files(request: Request, index: str) -> Mapping[str, bytes]:
    """Return the texts of an unzipped model that are other than before."""
    if request.kind != "folder":
        return {}
    folder = os.path.dirname(index)
    return {os.path.join(folder, TEXTS[role]): text for role, text in request.texts.items()}
