"""A new HDF5 file without its data: the bytes of its metadata, and where data is to be put."""

from __future__ import annotations

import math
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ckptkit.errors import EditError, UnsupportedError
from ckptkit.formats.keras.hdf5.attributes import carry, space
from ckptkit.formats.keras.hdf5.links import Links, encode, group_properties, link_properties, split
from ckptkit.formats.keras.hdf5.overlay import Overlay, explained, opened
from ckptkit.model import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ckptkit.formats.keras.hdf5.content import Content
    from ckptkit.formats.keras.hdf5.overlay import Run
    from ckptkit.formats.keras.hdf5.tree import Dataset, Value

    Carried = tuple[int, int, int, int]

_PLAIN: Final = {
    **{f"float{8 * n}": f"<f{n}" for n in (2, 4, 8)},
    **{f"int{8 * n}": f"<i{n}" for n in (1, 2, 4, 8)},
    **{f"uint{8 * n}": f"<u{n}" for n in (1, 2, 4, 8)},
    "bool": "?",
    "complex64": "<c8",
    "complex128": "<c16",
}

_OPAQUE: Final = {
    "bfloat16": 2,
    **{f"float8_{name}": 1 for name in ("e5m2", "e4m3fn", "e4m3fnuz", "e4m3b11fnuz", "e5m2fnuz")},
}
"""Bytes of elements that HDF5 has no type for: their dtype is in an attribute, as Keras does."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A dataset that the new file is to have.

    Attributes:
        path: Its path; what it is in must be wanted, too.
        dtype: The name of its dtype, as in :data:`ckptkit.model.DTYPES`.
        shape: Its shape.
        like: Path of the dataset of the source whose attributes it carries; if the dtype is the
            same, its fill value too.
        stored: It stays as ``like`` is stored, which must be of the same dtype and shape: chunks,
            filters, byte order, largest shape. Otherwise it is contiguous and little-endian,
            with room for all of it, which is not filled.
        source: Number of the source that ``like`` is in.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    like: str | None = None
    stored: bool = False
    source: int = 0


@dataclass(frozen=True, slots=True)
class WantedGroup:
    """A group that the new file is to have.

    Attributes:
        path: Its path, empty for the root; what it is in must be wanted before it.
        like: Path of the group of the source whose attributes it carries as they are.
        attributes: Attributes with other values, or none (None). Text and numbers are as h5py
            writes them; a list of texts is of the kind that it was, if it was there.
        source: Number of the source that ``like`` is in.
    """

    path: str
    like: str | None = None
    attributes: Mapping[str, Value | None] = field(default_factory=dict)
    source: int = 0


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A new HDF5 file: zeros, but for what is told here.

    Attributes:
        size: Bytes of the whole file.
        runs: Its metadata: where and what, apart, in order.
        extents: Byte offset and length of the data of every dataset that is contiguous, which is
            the caller's to write; of one that stays as it is stored, just as it is in the source.
            One without elements, or not allocated in the source that it stays like, has (0, 0).
        carried: Byte ranges of sources' contents that are to be copied: number of the source,
            offset there, offset in the new file, length. They are chunks of datasets that stay as
            they are stored.
    """

    size: int
    runs: tuple[Run, ...]
    extents: Mapping[str, tuple[int, int]]
    carried: tuple[Carried, ...]


def build(
    sources: Sequence[Content], wanted: Sequence[Wanted], groups: Sequence[WantedGroup]
) -> Skeleton:
    """Lay out a new HDF5 file, as Keras would write it, without any data of tensors.

    Nothing is written to a disk, and of the source only metadata is read. The same arguments give
    the same bytes.

    Args:
        sources: What ``like`` refers to.
        wanted: Its datasets.
        groups: Its groups. The root need not be among them.

    Raises:
        EditError: Something has no group to be in, is wanted twice, is like nothing that there
            is, or is too large for HDF5.
        UnsupportedError: No Keras file holds the dtype, or HDF5 does not make such a dataset.
    """
    new, name = Overlay(), sources[0].path if sources else None
    with ExitStack() as stack:
        old = []
        for source in sources:
            under = Overlay(source.file, source.start, source.length)
            group = stack.enter_context(opened(under, "r", source.path))
            old.append(Links(group, source.path))
        roots = [group for group in groups if not group.path and group.like is not None]
        tracked = any(_order(old[one.source].group(one.like or "")) for one in roots if old)
        root = stack.enter_context(opened(new, "w", name, tracked=tracked))
        builder = _Builder(sources, old, Links(root, name), new)
        left: defaultdict[str, list[Wanted]] = defaultdict(list)
        for dataset in wanted:
            left[split(dataset.path)[0]].append(dataset)
        for group in groups:
            with explained(f"group {group.path!r}", EditError, name):
                builder.add_group(group)
            # As Keras does; and then no more groups need to be open than are above it.
            builder.add_datasets(left.pop(group.path, ()))
        for rest in left.values():
            builder.add_datasets(rest)
        builder.order_links()
    return Skeleton(new.size, new.runs(), builder.extents, _merged(builder.carried))


class _Builder:
    """Makes what is wanted in a file that is open."""

    def __init__(
        self, sources: Sequence[Content], old: Sequence[Links], new: Links, to: Overlay
    ) -> None:
        self.extents: dict[str, tuple[int, int]] = {}
        self.carried: list[Carried] = []
        self._sources = sources
        self._old = old
        self._new = new
        self._to = to
        self._made: dict[str, WantedGroup | Wanted] = {}
        self._tracked: dict[str, WantedGroup] = {}
        self._kinds: dict[str, Any] = {}

    def add_group(self, wanted: WantedGroup) -> None:
        """Make a group with its attributes."""
        from h5py import h5g

        old = self._like(wanted)
        order = _order(old) if old is not None else 0
        if wanted.like is not None and order:
            self._tracked[wanted.path] = wanted
        if wanted.path:
            parent, raw = self._place(wanted)
            properties = group_properties()
            if old is not None:
                properties.set_link_creation_order(order)
                before = old.get_create_plist()
                properties.set_attr_creation_order(before.get_attr_creation_order())
            made = h5g.create(parent, raw, link_properties(raw), properties)
            self._new.remember(wanted.path, made)
        else:
            made = self._new.group("")
        carry(old, made, wanted.attributes)

    def add_datasets(self, wanted: Iterable[Wanted]) -> None:
        """Make datasets with their attributes, and find where their data is to be."""
        for dataset in wanted:
            with explained(f"dataset {dataset.path!r}", EditError, self._new.file):
                self._add_dataset(dataset)

    def _add_dataset(self, wanted: Wanted) -> None:
        from h5py import h5d

        old = self._like(wanted)
        known = self._known(wanted)
        alike = old if known is not None and known.dtype == wanted.dtype else None
        if wanted.stored:
            if known is None or alike is None or known.shape != wanted.shape:
                found = "nothing" if known is None else f"{known.dtype}{list(known.shape)}"
                asked = f"{wanted.dtype}{list(wanted.shape)}"
                msg = f"{asked} cannot stay as it is stored: it is like {found}"
                raise EditError(msg)
            kind, extent = alike.get_type().copy(), alike.get_space()
            properties = _as_stored(alike)
        else:
            kind, extent = self._kind(wanted.dtype, alike), space(wanted.shape)
            properties = _contiguous(old, alike)
        nbytes = math.prod(wanted.shape) * kind.get_size()
        if nbytes > MAX_BYTES:
            msg = f"it would take {nbytes} bytes, more than a file can hold"
            raise EditError(msg)
        parent, raw = self._place(wanted)
        made = h5d.create(parent, raw, kind, extent, properties, link_properties(raw))
        carry(old, made, _dtype_attribute(wanted, known))
        self._put_data(wanted, old, made, nbytes)

    def order_links(self) -> None:
        """Bring links into the order of the source, in groups that know their order."""
        if not self._tracked:
            return
        inside: defaultdict[str, list[WantedGroup | Wanted]] = defaultdict(list)
        for one in self._made.values():
            inside[split(one.path)[0]].append(one)
        for path, known in self._tracked.items():
            like = known.like or ""
            links = self._sources[known.source].tree.groups[like].links
            ranks = {f"{like}/{name}" if like else name: at for at, name in enumerate(links)}
            ordered = sorted(inside[path], key=lambda one: ranks.get(one.like or "", len(ranks)))
            if ordered == inside[path]:
                continue
            group = self._new.group(path)
            for one in ordered:
                # A link that gets a name is the newest one of its group.
                name = encode(split(one.path)[1])
                aside = name + b"\x01"
                group.links.move(name, group, aside, link_properties(aside))
                group.links.move(aside, group, name, link_properties(name))

    def _put_data(self, wanted: Wanted, old: Any, made: Any, nbytes: int) -> None:
        from h5py import h5d, h5s

        match made.get_create_plist().get_layout():
            case h5d.COMPACT:
                if nbytes:
                    kind = made.get_type()
                    values = np.empty(wanted.shape, f"V{kind.get_size()}")
                    old.read(h5s.ALL, h5s.ALL, values, mtype=kind)
                    made.write(h5s.ALL, h5s.ALL, values, mtype=kind)
            case h5d.CHUNKED:
                self._put_chunks(old, made, wanted.source)
            case _:
                offset = made.get_offset()
                self.extents[wanted.path] = (0, 0) if offset is None else (offset, nbytes)

    def _put_chunks(self, old: Any, made: Any, source: int) -> None:
        """Find room for every chunk, of the size and with the filters that it has."""
        places: dict[tuple[int, ...], tuple[int, int, int]] = {}

        def note(chunk: Any) -> None:
            places[chunk.chunk_offset] = (chunk.byte_offset, chunk.size, chunk.filter_mask)

        def carry_over(chunk: Any) -> None:
            offset, size, _ = places[chunk.chunk_offset]
            self.carried.append((source, offset, chunk.byte_offset, size))

        old.chunk_iter(note)
        zeros = np.zeros(max((size for _, size, _ in places.values()), default=0), np.uint8)
        self._to.muted = True
        for at, (_, size, mask) in places.items():
            made.write_direct_chunk(at, zeros[:size], mask)
        self._to.muted = False
        made.chunk_iter(carry_over)

    def _like(self, wanted: Wanted | WantedGroup) -> Any | None:
        if wanted.like is None:
            return None
        if wanted.source >= len(self._old):
            msg = f"it is to be like {wanted.like!r}, but there is no source"
            raise EditError(msg)
        return self._old[wanted.source].object(wanted.like)

    def _known(self, wanted: Wanted) -> Dataset | None:
        if wanted.like is None:
            return None
        found = self._sources[wanted.source].tree.datasets.get(wanted.like)
        if found is None:
            msg = f"it is to be like {wanted.like!r}, which is no dataset"
            raise EditError(msg)
        return found

    def _place(self, wanted: WantedGroup | Wanted) -> tuple[Any, bytes]:
        """Return the group that something is to be in, and its name there."""
        if wanted.path in self._made:
            msg = "it is wanted twice"
            raise EditError(msg)
        place = self._new.place(wanted.path)
        self._made[wanted.path] = wanted
        return place

    def _kind(self, dtype: str, old: Any | None) -> Any:
        """Return the HDF5 datatype that Keras has for a dtype, or the old one."""
        from h5py import h5t

        found = self._kinds.get(dtype)
        if found is None:
            if dtype in _PLAIN:
                found = h5t.py_create(np.dtype(_PLAIN[dtype]), logical=True)
            elif dtype in _OPAQUE:
                found = h5t.py_create(np.dtype(f"V{_OPAQUE[dtype]}"))
            elif old is not None:
                return old.get_type().copy()
            else:
                able = ", ".join([*_PLAIN, *_OPAQUE])
                msg = f"Keras files hold no tensors of dtype {dtype}; cast it to one of {able}"
                raise UnsupportedError(msg)
            self._kinds[dtype] = found
        return found


def _order(group: Any) -> int:
    """Return whether a group knows the order in which its links were made, as HDF5 has it."""
    return int(group.get_create_plist().get_link_creation_order())


def _contiguous(old: Any | None, alike: Any | None) -> Any:
    """Return how a dataset is made that has its room at once and is never filled."""
    from h5py import h5d, h5p

    properties = h5p.create(h5p.DATASET_CREATE)
    if old is not None:
        before = old.get_create_plist()
        properties.set_attr_creation_order(before.get_attr_creation_order())
        if alike is not None and before.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED:
            fill = np.zeros((), old.dtype)
            before.get_fill_value(fill)
            properties.set_fill_value(fill)
    properties.set_layout(h5d.CONTIGUOUS)
    properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    return properties


def _as_stored(old: Any) -> Any:
    """Return how a dataset was made; one that is contiguous is not filled."""
    from h5py import h5d

    properties = old.get_create_plist()
    properties.set_obj_track_times(False)
    match properties.get_layout():
        case h5d.CHUNKED:
            # All chunks at once would be written in full here.
            properties.set_alloc_time(h5d.ALLOC_TIME_INCR)
        case h5d.CONTIGUOUS:
            there = old.get_offset() is not None
            properties.set_alloc_time(h5d.ALLOC_TIME_EARLY if there else h5d.ALLOC_TIME_LATE)
            if there:
                properties.set_fill_time(h5d.FILL_TIME_NEVER)
    return properties


def _dtype_attribute(wanted: Wanted, known: Dataset | None) -> dict[str, Value]:
    """Return the attribute that tells a dtype, if it is to be another one than before."""
    if wanted.dtype in _OPAQUE:
        right = known is not None and known.attributes.get("dtype") == wanted.dtype
        return {} if right else {"dtype": wanted.dtype}
    return {} if known is not None and known.dtype == wanted.dtype else {"dtype": None}


def _merged(ranges: Sequence[Carried]) -> tuple[Carried, ...]:
    """Join ranges that follow one another in both files."""
    found: list[Carried] = []
    for number, source, target, length in sorted(ranges, key=lambda one: one[2]):
        if found:
            same, before, there, so_far = found[-1]
            if (same, before + so_far, there + so_far) == (number, source, target):
                found[-1] = (number, before, there, so_far + length)
                continue
        found.append((number, source, target, length))
    return tuple(found)
