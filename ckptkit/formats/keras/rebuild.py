"""New files for tensors of other names, shapes or dtypes: metadata made anew, data carried over."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from ckptkit._native import crc32
from ckptkit.errors import EditError
from ckptkit.formats.keras.archive.inflated import read_text_member
from ckptkit.formats.keras.archive.layout import Part, headers, lay_out
from ckptkit.formats.keras.archive.reader import WEIGHTS
from ckptkit.formats.keras.config.jsontext import parse
from ckptkit.formats.keras.hdf5.regrouping import regroup
from ckptkit.formats.keras.hdf5.skeleton import Wanted, WantedGroup, build
from ckptkit.formats.keras.hdf5.tree import Group, Tree
from ckptkit.formats.keras.mirror import Finish, companions
from ckptkit.formats.keras.naming.legacy import attributes_after
from ckptkit.formats.keras.naming.repair import names_from_config
from ckptkit.formats.keras.paths import TEXTS
from ckptkit.formats.keras.reserve import weights_path
from ckptkit.formats.keras.scan import is_direct, merged
from ckptkit.formats.keras.shardmap import counted, cut, owner, shard_names, write_map
from ckptkit.model import Stored
from ckptkit.placement import Carried, Given, Placement, Sealed, Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ckptkit.formats.keras.archive.layout import Layout
    from ckptkit.formats.keras.hdf5.regrouping import Regrouping
    from ckptkit.formats.keras.hdf5.skeleton import Skeleton
    from ckptkit.formats.keras.hdf5.tree import Dataset, Value
    from ckptkit.formats.keras.package import Package
    from ckptkit.formats.keras.reserve import Request

EMPTY: Final = Tree({"": Group("", (), 0)}, {}, (), 0)
"""What there is where nothing was."""

_JSON: Final = ("metadata", "config")
"""The texts of an archive in the order in which Keras writes them, before the weights."""


def regrouped(request: Request) -> Regrouping:
    """Return what becomes of groups and attributes.

    Raises:
        EditError: The names do not go together.
    """
    tree = EMPTY if request.package is None else merged(request.package)
    after = request.after
    paths: dict[str, str | None] = dict.fromkeys(tree.datasets)
    added = []
    for name, row in zip(after.names, after.rows, strict=True):
        old = _old_path(request, row)
        if old is None or paths[old] is not None:
            added.append(name)
        else:
            paths[old] = name
    kept = {old: new for old, new in paths.items() if new is not None}
    return regroup(tree, paths, attributes=attributes_after(tree, kept, added), added=added)


def _old_path(request: Request, row: int) -> str | None:
    if row < 0:
        return None
    return request.before.columns.entry(row).decode("utf-8", "surrogateescape")


def rebuilt(request: Request) -> Placement:
    """Lay out new files.

    Raises:
        EditError: The names do not go together, or a tensor fits no shard.
    """
    plan = _Rebuilding(request)
    if request.kind == "shards":
        return plan.as_shards()
    if request.kind == "archive":
        return plan.as_archive()
    return plan.as_file()


@dataclass(slots=True)
class _Laid:
    """What of a placement is found out file by file."""

    files: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)
    carried: list[Carried] = field(default_factory=list)
    at: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, path: str, size: int) -> int:
        """Take a file; return its number."""
        self.files.append(path)
        self.sizes.append(size)
        return len(self.files) - 1


class _Rebuilding:
    """Lays out new files for one request."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._package = request.package
        self._contents = () if request.package is None else request.package.contents
        self._tree = EMPTY if request.package is None else merged(request.package)
        self._number = {
            path: number
            for number, content in enumerate(self._contents)
            for path in content.tree.datasets
        }
        self._regrouping = regrouped(request)
        self._names = self._missing_names() if request.target.layout.names else {}
        self._laid = _Laid()
        self._sources = list(request.items.files)
        self._wanted = [self._want(at) for at in range(len(request.after))]
        self._order = sorted(range(len(self._wanted)), key=self._place)

    # --- what is wanted ------------------------------------------------------------------------

    def _want(self, at: int) -> Wanted:
        after = self._request.after
        name, spec, row = after.names[at], after.spec_at(at), after.rows[at]
        like = _old_path(self._request, row)
        old = None if like is None else self._tree.datasets[like]
        stored = (
            old is not None
            and not self._request.target.layout.contiguous
            and not (is_direct(old) and old.nbytes)
            and self._is_unchanged(at, old)
        )
        number = 0 if like is None else self._number[like]
        return Wanted(name, spec.dtype, spec.shape, like, stored, number)

    def _is_unchanged(self, at: int, old: Dataset) -> bool:
        tensor = self._request.after.tensor_at(at)
        return isinstance(tensor.source, Stored) and tensor.spec.shape == old.shape

    def _place(self, at: int) -> tuple[float, float]:
        """Return by what a dataset is sorted: where it was; what is new comes last."""
        like = self._wanted[at].like
        if like is None:
            return float("inf"), at
        return self._number[like], self._tree.datasets[like].address

    def _groups(self, names: Sequence[str], *, rest: bool) -> list[WantedGroup]:
        """Return the groups that some datasets are in.

        Args:
            names: The datasets.
            rest: Groups that no dataset is in as well.
        """
        # In the order in which they were saved, which is that of the first dataset in each.
        order = {"": -1}
        for at, name in enumerate(names):
            parts = name.split("/")
            for depth in range(1, len(parts)):
                order.setdefault("/".join(parts[:depth]), at)
        needed = set(order)
        regrouping = self._regrouping
        used = {path.rpartition("/")[0] for path in (wanted.path for wanted in self._wanted)}
        used |= {parent for path in used for parent in _parents(path)}
        if rest:
            idle = [path for path in regrouping.groups.values() if path not in used]
            needed.update(idle, (parent for path in idle for parent in _parents(path)))
        found = [
            WantedGroup(new, old, self._attributes(new), self._group_number(old))
            for old, new in regrouping.groups.items()
            if self._contents and new in needed
        ]
        found += [WantedGroup(path) for path in regrouping.made if path in needed]

        def place(group: WantedGroup) -> tuple[int, int]:
            return order.get(group.path, len(names)), group.path.count("/")

        return sorted(found, key=place)

    def _missing_names(self) -> dict[str, str]:
        """Return names of objects that the configuration tells, by new path of their groups."""
        text = self._request.after.attachments.get("config")
        if text is None:
            return {}
        found = names_from_config(self._tree, parse(text, "the configuration"))
        groups = self._regrouping.groups
        return {groups[old]: name for old, name in found.items() if old in groups}

    def _attributes(self, path: str) -> dict[str, Value]:
        values: dict[str, Value] = dict(self._regrouping.attributes.get(path, {}))
        if path in self._names:
            values["name"] = self._names[path]
        text = self._request.texts.get("config")
        if path == "" and text is not None and self._request.kind == "hdf5":
            values["model_config"] = text.decode("utf-8", "surrogateescape")
        return values

    def _group_number(self, path: str) -> int:
        """Return which content has a group as it should be: with its name."""
        having = [n for n, content in enumerate(self._contents) if path in content.tree.groups]
        named = [n for n in having if self._contents[n].tree.groups[path].attributes]
        return (named or having or [0])[0]

    # --- files ---------------------------------------------------------------------------------

    def _build(self, chosen: Sequence[int], *, rest: bool) -> Skeleton:
        wanted = [self._wanted[at] for at in chosen]
        groups = self._groups([one.path for one in wanted], rest=rest)
        return build(self._contents, wanted, groups)

    def _put(self, skeleton: Skeleton, chosen: Sequence[int], shard: int, base: int) -> None:
        """Take what a skeleton says of a file."""
        laid = self._laid
        laid.given += [Given(shard, base + offset, new) for offset, new in skeleton.runs]
        for number, source, offset, size in skeleton.carried:
            start = self._contents[number].start + source
            laid.carried.append(Carried(number, start, shard, base + offset, size))
        for at in chosen:
            wanted = self._wanted[at]
            extent = skeleton.extents.get(wanted.path)
            if extent is not None and wanted.stored and wanted.like is not None:
                # Its bytes stay in the order in which they are, which is not that of values.
                old = self._tree.datasets[wanted.like].offset
                start = self._contents[wanted.source].start + old
                if extent[1]:
                    place = Carried(wanted.source, start, shard, base + extent[0], extent[1])
                    laid.carried.append(place)
            elif extent is not None:
                laid.at[at] = shard, base + extent[0] if extent[1] else 0

    def as_file(self) -> Placement:
        """Lay out a single HDF5 file, by itself or in a folder."""
        request = self._request
        path = weights_path(request)
        skeleton = self._build(self._order, rest=True)
        shard = self._laid.add(path, skeleton.size)
        self._put(skeleton, self._order, shard, 0)
        folder: str | None = None
        others: tuple[tuple[str, str], ...] = ()
        texts: dict[str, bytes] = {}
        if request.kind == "folder" and self._package is not None:
            root = os.path.dirname(path)
            texts = {os.path.join(root, TEXTS[role]): new for role, new in request.texts.items()}
            if not request.target.in_place:
                folder = request.target.path
                others = tuple(
                    pair for pair in companions(self._package, folder) if pair[1] not in texts
                )
        return self._placement(path, Finish(texts), folder=folder, companions=others)

    def as_shards(self) -> Placement:
        """Lay out shards and their map."""
        request, order = self._request, self._order
        sizes = [(self._wanted[at].path, counted(request.after.spec_at(at))) for at in order]
        numbers = self._cut(sizes)
        map_path = os.path.abspath(request.target.path)
        names = shard_names(map_path, max(numbers, default=0) + 1)
        groups: dict[str, list[str]] = defaultdict(list)
        counts: dict[str, int] = defaultdict(int)
        for (path, _), number in zip(sizes, numbers, strict=True):
            group = owner(path)
            counts[group] += 1
            if names[number] not in groups[group]:
                groups[group].append(names[number])
        for number, name in enumerate(names):
            chosen = [at for at, mine in zip(order, numbers, strict=True) if mine == number]
            skeleton = self._build(chosen, rest=number == 0)
            shard = self._laid.add(os.path.join(os.path.dirname(map_path), name), skeleton.size)
            self._put(skeleton, chosen, shard, 0)
        total = sum(size for _, size in sizes)
        return self._placement(map_path, Finish({map_path: write_map(total, groups, counts)}))

    def _cut(self, sizes: Sequence[tuple[str, float]]) -> list[int]:
        """Return the shard of every dataset in order.

        Raises:
            EditError: One is larger than a shard may be.
        """
        layout = self._request.target.layout
        if layout.rules:
            msg = "shards of Keras are cut by size alone: give a number of them, or a largest size"
            raise EditError(msg)
        if layout.max_shard_bytes is not None:
            return cut(sizes, layout.max_shard_bytes)
        if layout.shards is not None:
            total = max(sum(size for _, size in sizes), 1)
            before, numbers = 0.0, []
            for _, size in sizes:
                middle = before + size / 2
                numbers.append(min(int(middle * layout.shards / total), layout.shards - 1))
                before += size
            return numbers
        last = max(len(self._contents) - 1, 0)
        likes = (self._wanted[at].like for at in self._order)
        return [last if like is None else self._number[like] for like in likes]

    def as_archive(self) -> Placement:
        """Lay out an archive with the weights in it."""
        skeleton = self._build(self._order, rest=True)
        path = self._request.target.path
        members = [*self._members(skeleton.size)]
        package = self._package
        comment = package.archive.comment if package is not None and package.archive else b""
        layout = lay_out([member.part for member in members], comment)
        shard = self._laid.add(path, layout.end)
        spans = []
        for number, (member, place) in enumerate(zip(members, layout.places, strict=True)):
            if member.part.name == WEIGHTS:
                self._put(skeleton, self._order, shard, place.data_offset)
            elif member.content is not None:
                self._laid.given.append(Given(shard, place.data_offset, member.content))
            else:
                source = self._source(member.path)
                size = member.part.size
                self._laid.carried.append(
                    Carried(source, member.offset, shard, place.data_offset, size)
                )
            if member.part.crc32 is None:
                spans.append((number, Span(shard, place.data_offset, member.part.size)))
        finish = _Headers(path, layout, tuple(number for number, _ in spans))
        return self._placement(path, finish, spans=tuple(one for _, one in spans))

    def _source(self, path: str) -> int:
        if path not in self._sources:
            self._sources.append(path)
        return self._sources.index(path)

    def _members(self, size: int) -> Iterator[_Member]:
        """Yield the members of the new archive, in order."""
        package, texts = self._package, self._request.after.attachments
        if package is None:
            msg = "an archive of Keras is made from another one"
            raise AssertionError(msg)
        archive, file = package.archive, package.file
        if archive is None or file is None:
            yield from self._from_folder(package, size)
            return
        roles = {name: role for role, name in TEXTS.items()}
        for old in archive.members:
            text = texts.get(roles.get(old.name, ""))
            if old.name == WEIGHTS:
                yield _Member(Part(WEIGHTS, size, like=old))
            elif text is not None and (old.method or roles[old.name] in self._request.texts):
                yield _Member(Part(old.name, len(text), crc32(text), old), text)
            elif old.method:
                content = read_text_member(file, old)
                yield _Member(Part(old.name, len(content), old.crc32, old), content)
            else:
                part = Part(old.name, old.size, old.crc32, old)
                yield _Member(part, None, package.source.path, old.data_offset)

    def _from_folder(self, package: Package, size: int) -> Iterator[_Member]:
        texts = self._request.after.attachments
        for role in _JSON:
            if role in texts:
                yield _Member(Part(TEXTS[role], len(texts[role]), crc32(texts[role])), texts[role])
        yield _Member(Part(WEIGHTS, size))
        known = {*TEXTS.values(), WEIGHTS}
        for old, new in companions(package, ""):
            # Keras extracts whatever is in an archive: only what it put there itself goes in.
            if new not in known and new.startswith("assets" + os.sep):
                yield _Member(Part(new.replace(os.sep, "/"), os.path.getsize(old)), None, old, 0)

    # --- the placement -------------------------------------------------------------------------

    def _placement(
        self,
        index: str,
        finish: Finish | _Headers,
        *,
        folder: str | None = None,
        companions: tuple[tuple[str, str], ...] = (),
        spans: tuple[Span, ...] = (),
    ) -> Placement:
        laid, items = self._laid, self._request.items
        kept = np.array([int(at) in laid.at for at in items.tensor.tolist()], bool)
        chosen = np.flatnonzero(kept)
        places = [laid.at[at] for at in items.tensor[chosen].tolist()]
        shard, offset = np.array(places, np.int64).reshape(-1, 2).T
        by_place = np.lexsort((items.size[chosen], offset, shard))
        order, shard, offset = chosen[by_place], shard[by_place], offset[by_place]
        return items.placed(
            order,
            shard,
            offset,
            source_files=tuple(self._sources),
            files=tuple(laid.files),
            file_sizes=tuple(laid.sizes),
            bases=(None,) * len(laid.files),
            index=index,
            folder=folder,
            companions=companions,
            carried=tuple(laid.carried),
            given=tuple(laid.given),
            spans=spans,
            finish=finish,
        )


def _parents(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of a new archive: its contents, or where they come from; neither for the weights."""

    part: Part
    content: bytes | None = None
    path: str = ""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class _Headers:
    """Writes the headers of an archive.

    Attributes:
        path: The archive.
        layout: Where its members are.
        summed: The members whose checksum is only known at the end, by number.
    """

    path: str
    layout: Layout
    summed: tuple[int, ...]

    def __call__(self, sums: Sequence[int]) -> Sealed:
        found: Mapping[int, int] = dict(zip(self.summed, map(int, sums), strict=True))
        crcs = [
            part.crc32 if part.crc32 is not None else found[number]
            for number, part in enumerate(self.layout.parts)
        ]
        return Sealed({}, {self.path: tuple(headers(self.layout, crcs))})
