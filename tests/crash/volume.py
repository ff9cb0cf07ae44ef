"""What may be on a device, given the calls that were made: contents and names, synced or not.

All choices are made by a ``draw``: given a count, it returns a number below it.
"""

from __future__ import annotations

import copy
import itertools
import os
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tests.crash.trees import Tree, moved_path, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Draw = Callable[[int], int]

SECTOR = 512
"""Bytes that a device writes whole, mostly."""

MANY = 32
"""Things not synced beyond which one drawn seed decides about each of them."""

FEW = 13
"""Names not synced up to which every subset of them is tried."""

KEPT, LOST, TORN = range(3)

PATTERNS = (
    "all kept",
    "all lost",
    "names without contents",
    "one lost",
    "one lost",
    "one kept",
    "the first kept",
    "each",
    "each",
)
"""What may become of the things that were not synced; the more interesting ones twice."""


class Call(NamedTuple):
    """A call that changes something: its paths are absolute, and its buffers are copied."""

    call: str
    path: str
    new: str = ""
    length: int = 0
    writes: tuple[tuple[int, bytes], ...] = ()

    def __str__(self) -> str:
        """Return what was called, without the contents."""
        writes = [f"{len(data)} bytes at {offset}" for offset, data in self.writes[:5]]
        parts = [self.call, self.path, self.new, self.length or "", ", ".join(writes)]
        return " ".join(str(part) for part in parts if part)


@dataclass(eq=False)
class _Op:
    """A write that was not synced, or a change of length."""

    time: int
    inode: int
    offset: int
    data: bytes | None
    """None where ``offset`` is the new length."""

    def apply(self, image: bytearray) -> None:
        end = self.offset + len(self.data or b"")
        if len(image) < end:
            image.extend(bytes(end - len(image)))
        if self.data is None:
            del image[end:]
        else:
            image[self.offset : end] = self.data

    def part(self, draw: Draw) -> _Op | None:
        """Return a part of the write: all before a place, or all after it."""
        if self.data is None:
            return None
        end = self.offset + len(self.data)
        cuts = range((self.offset // SECTOR + 1) * SECTOR, end, SECTOR)
        if draw(4) == 3:
            cuts = range(self.offset + 1, end)
        if not cuts:
            return None
        cut = cuts[_draw(draw, len(cuts))] - self.offset
        if draw(2):
            return _Op(self.time, self.inode, self.offset + cut, self.data[cut:])
        return _Op(self.time, self.inode, self.offset, self.data[:cut])


@dataclass
class _File:
    """Contents on the device, in the cache, and what leads from the one to the other."""

    kept: bytes = b""
    now: bytearray = field(default_factory=bytearray)
    ops: list[_Op] = field(default_factory=list)

    def do(self, op: _Op) -> None:
        op.apply(self.now)
        self.ops.append(op)

    def sync(self) -> None:
        self.kept = bytes(self.now)
        self.ops.clear()

    def after(self, fates: dict[_Op, int], draw: Draw, *, any_order: bool) -> bytes:
        """Return contents that may be on the device when the operations fared like this."""
        ops = list(self.ops)
        if any_order and len(ops) > 1 and draw(2):
            for last in range(len(ops) - 1, 0, -1):
                other = _draw(draw, last + 1)
                ops[last], ops[other] = ops[other], ops[last]
        image = bytearray(self.kept)
        for op in ops:
            done = op.part(draw) if fates[op] == TORN else op if fates[op] == KEPT else None
            if done is not None:
                done.apply(image)
        if any_order or any(fates[op] != KEPT for op in ops):
            self._relength(image, draw)
        return bytes(image)

    def _relength(self, image: bytearray, draw: Draw) -> None:
        # The length is written at its own time: without its bytes, or not with them.
        reached = [len(self.kept)]
        for op in self.ops:
            grown = max(reached[-1], op.offset + len(op.data or b""))
            reached.append(op.offset if op.data is None else grown)
        low, high = min(*reached, len(image)), max(*reached, len(image))
        likely = list(dict.fromkeys([len(image), reached[0], reached[-1]]))
        choice = _draw(draw, len(likely) + (high > low))
        length = likely[choice] if choice < len(likely) else low + draw(high - low + 1)
        image.extend(bytes(max(0, length - len(image))))
        del image[length:]


@dataclass(eq=False)
class _Change:
    """A change of names in one folder, which happens as a whole or not, and after some others."""

    time: int
    folder: int
    edits: tuple[tuple[str, int | None], ...]
    """Names, and the files or folders they then have, if any."""
    rename: bool
    needs: tuple[_Change, ...]
    durable: bool = False

    def apply(self, names: dict[str, int]) -> None:
        for name, inode in self.edits:
            names.pop(name, None)
            if inode is not None:
                names[name] = inode


@dataclass
class _Folder:
    """Names on the device, and in the cache."""

    kept: dict[str, int] = field(default_factory=dict)
    now: dict[str, int] = field(default_factory=dict)


def _draw(draw: Draw, count: int) -> int:
    return draw(count) if count > 1 else 0


class Volume:
    """What is on a device for sure, what is in its cache, and what may be on it.

    A write names a file by the path it was opened at. That path means the file which has it now,
    else the last one that had it: a file that is written to after another took its name is
    beyond this model.
    """

    def __init__(self):
        self.roots: dict[str, int] = {}
        self._folders: dict[int, _Folder] = {}
        self._files: dict[int, _File] = {}
        self._changes: list[_Change] = []
        self._was: dict[str, int] = {}
        self._count = 0

    @classmethod
    def of(cls, *folders: str | os.PathLike[str]) -> Volume:
        """Return the folders as they are, all of it synced; none lies in another."""
        volume = cls()
        seen: dict[tuple[int, int], int] = {}
        for folder in map(place, folders):
            volume.roots[folder] = volume._scan(folder, seen)
        return volume

    def _scan(self, path: str, seen: dict[tuple[int, int], int]) -> int:
        number = self._next()
        names: dict[str, int] = {}
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            found = entry.stat(follow_symlinks=False)
            key = found.st_dev, found.st_ino
            if entry.is_dir(follow_symlinks=False):
                names[entry.name] = self._scan(entry.path, seen)
            elif not entry.is_file(follow_symlinks=False):
                raise NotImplementedError(entry.path)
            else:
                if key not in seen:
                    seen[key] = self._next()
                    with open(entry.path, "rb") as file:
                        content = file.read()
                    self._files[seen[key]] = _File(content, bytearray(content))
                names[entry.name] = seen[key]
        self._folders[number] = _Folder(names, dict(names))
        return number

    def replay(self, calls: Iterable[Call]) -> Volume:
        """Return the volume after some more calls; this one stays as it is."""
        volume = copy.deepcopy(self)
        for call in calls:
            volume.apply(call)
        return volume

    def moved(self, root: str | os.PathLike[str], elsewhere: str | os.PathLike[str]) -> Volume:
        """Return the volume with what lies in ``root`` at another path, synced or not."""
        volume = self.replay(())
        volume.roots = {
            place(moved_path(path, place(root), elsewhere)): number
            for path, number in self.roots.items()
        }
        volume._was.clear()
        return volume

    def apply(self, call: Call) -> None:
        """Perform one more call."""
        effect = getattr(self, f"_do_{call.call}", None)
        if effect is None:
            msg = f"the model does not know what this call does: {call}"
            raise NotImplementedError(msg)
        effect(call)

    def _do_create(self, call: Call) -> None:
        number = self._next()
        self._files[number] = _File()
        self._enter(call.path, number)

    def _do_make_folder(self, call: Call) -> None:
        number = self._next()
        self._folders[number] = _Folder()
        self._enter(call.path, number)

    def _do_write(self, call: Call) -> None:
        number, file = self._file(call.path)
        for offset, data in call.writes:
            if data:
                file.do(_Op(self._next(), number, offset, data))

    _do_copy = _do_write

    def _do_resize(self, call: Call) -> None:
        number, file = self._file(call.path)
        file.do(_Op(self._next(), number, call.length, None))

    def _do_sync(self, call: Call) -> None:
        _, file = self._file(call.path)
        file.sync()

    def _do_link(self, call: Call) -> None:
        self._enter(call.new, self._there(call.path))

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _find(self, path: str) -> int | None:
        """Return what has a path now."""
        if path in self.roots:
            return self.roots[path]
        folder, name = os.path.split(path)
        if folder == path:
            return None
        number = self._find(folder)
        return self._folders[number].now.get(name) if number in self._folders else None

    def _there(self, path: str) -> int:
        """Return what has a path now, where something must."""
        found = self._find(path)
        if found is None:
            msg = f"{path} is not in the folders that are watched, or came there by no known call"
            raise AssertionError(msg)
        return found

    def _file(self, path: str) -> tuple[int, _File]:
        """Return the file that was opened at a path."""
        found = self._find(path)
        number = self._was.get(path) if found is None else found
        if number not in self._files:
            number = self._there(path)
        return number, self._files[number]

    def _slot(self, path: str) -> tuple[int, str]:
        """Return the folder that a name is in, and the name."""
        folder, name = os.path.split(path)
        return self._there(folder), name

    def _change(
        self,
        folder: int,
        *edits: tuple[str, int | None],
        rename: bool = False,
        needs: Iterable[_Change] = (),
    ) -> _Change:
        # What happens to a name that a rename gave or took comes after the rename: else both of
        # its names could be lost.
        names = {name for name, _ in edits}
        before = [
            change
            for change in self._changes
            if change.folder == folder
            and change.rename
            and names & {name for name, _ in change.edits}
        ]
        change = _Change(self._next(), folder, edits, rename, (*needs, *before))
        change.apply(self._folders[folder].now)
        self._changes.append(change)
        return change

    def _enter(self, path: str, number: int) -> None:
        if self._find(path) is not None:
            msg = f"{path} is there already, so a call that removed it is missing"
            raise AssertionError(msg)
        folder, name = self._slot(path)
        self._change(folder, (name, number))
        self._was[path] = number

    def _do_rename(self, call: Call) -> None:
        path, new = call.path, call.new
        number = self._there(path)
        (old_folder, old), (folder, name) = self._slot(path), self._slot(new)
        if self._find(new) == number:
            return  # Two names of one file: POSIX has this do nothing.
        if folder == old_folder:
            self._change(folder, (old, None), (name, number), rename=True)
        elif number in self._folders:
            msg = f"a folder moves between folders: {path}, {new}"
            raise NotImplementedError(msg)
        else:
            # The new name, the old one, or both; but the old one goes only if there is the new.
            came = self._change(folder, (name, number), rename=True)
            self._change(old_folder, (old, None), rename=True, needs=(came,))
        self._was[path] = number

    def _do_remove(self, call: Call) -> None:
        number = self._there(call.path)
        if number in self._folders and self._folders[number].now:
            msg = f"{call.path} is not empty, so a call that removed something is missing"
            raise AssertionError(msg)
        # A folder goes when it is empty: not before what was in it has gone, or its other name is.
        inside = [change for change in self._changes if change.folder == number]
        folder, name = self._slot(call.path)
        self._change(folder, (name, None), needs=inside)
        self._was[call.path] = number

    _do_remove_folder = _do_remove

    def _do_sync_folder(self, call: Call) -> None:
        number = self._there(call.path)
        own = [change for change in self._changes if change.folder == number]
        for change in _with_needs(own):
            change.durable = True
        for change in own:
            change.apply(self._folders[number].kept)
        self._changes = [change for change in self._changes if change.folder != number]

    def after_kill(self) -> Tree:
        """Return what is there when only the process stops: nothing is forgotten."""
        names = {number: folder.now for number, folder in self._folders.items()}
        return self._tree(names, {number: bytes(file.now) for number, file in self._files.items()})

    def is_synced(self) -> bool:
        """Tell whether a power failure would lose nothing."""
        return not any(self._unsynced())

    def after_power_failure(self, draw: Draw) -> Tree:
        """Return what may be there when the device stops: no draw where all of it is synced."""
        changes, ops = self._unsynced()
        things = sorted([*changes, *ops], key=lambda thing: thing.time)
        if not things:
            return self._tree_after((), {})
        pattern = PATTERNS[draw(len(PATTERNS))]
        if len(things) > MANY and pattern == "each":
            draw = random.Random(draw(1 << 16)).randrange
        fates = dict(zip(things, _fates(pattern, things, draw), strict=True))
        kept = [change for change in changes if fates[change] != LOST]
        if pattern == "all lost":
            return self._tree_after(kept, {})
        contents = {
            number: self._files[number].after(fates, draw, any_order=pattern == "each")
            for number in dict.fromkeys(op.inode for op in ops)
        }
        return self._tree_after(kept, contents)

    def after_namings(self) -> Iterator[Tree]:
        """Yield what may be there for every subset of the names not synced, all bytes lost.

        Where there are many names, these are the subsets that lack, or hold, one or two.
        """
        changes, _ = self._unsynced()
        sizes = range(len(changes) + 1)
        if len(changes) > FEW:
            sizes = [0, 1, 2, *sizes[-3:]]
        for size in sizes:
            for kept in itertools.combinations(changes, size):
                yield self._tree_after(kept, {})

    def _unsynced(self) -> tuple[list[_Change], list[_Op]]:
        """Return what a power failure decides on, of all that may have a name after it."""
        live: set[int] = set()
        found = set(self.roots.values())
        while found:
            live |= found
            held = {
                inode for number in found & {*self._folders} for inode in self._names_of(number)
            }
            found = held - live
        changes = [one for one in self._changes if one.folder in live and not one.durable]
        return changes, [
            op for number in sorted(live & {*self._files}) for op in self._files[number].ops
        ]

    def _names_of(self, folder: int) -> set[int]:
        edits = [one.edits for one in self._changes if one.folder == folder]
        new = {inode for _, inode in itertools.chain(*edits) if inode is not None}
        return new | {*self._folders[folder].kept.values()}

    def _tree_after(self, kept: Sequence[_Change], contents: dict[int, bytes]) -> Tree:
        happened = _with_needs(kept)
        names = {number: dict(folder.kept) for number, folder in self._folders.items()}
        for change in self._changes:
            if change.durable or change in happened:
                change.apply(names[change.folder])
        held = {number: file.kept for number, file in self._files.items()}
        return self._tree(names, held | contents)

    def _tree(self, names: dict[int, dict[str, int]], contents: dict[int, bytes]) -> Tree:
        folders = dict(self.roots)
        files: dict[str, int] = {}
        todo = list(folders.items())
        while todo:
            path, number = todo.pop()
            inside = {os.path.join(path, name): inode for name, inode in names[number].items()}
            deeper = {path: inode for path, inode in inside.items() if inode in self._folders}
            files |= {path: inode for path, inode in inside.items() if inode in self._files}
            folders |= deeper
            todo += deeper.items()
        held = {path: contents[number] for path, number in files.items()}
        return Tree(held, frozenset(folders), files)


def _with_needs(changes: Iterable[_Change]) -> set[_Change]:
    found: set[_Change] = set()
    todo = list(changes)
    while todo:
        change = todo.pop()
        if change not in found:
            found.add(change)
            todo += change.needs
    return found


def _fates(pattern: str, things: Sequence[_Change | _Op], draw: Draw) -> list[int]:
    """Return what becomes of each thing; they come in the order in which they were done."""
    count = len(things)
    if pattern == "names without contents":
        return [LOST if isinstance(thing, _Op) else KEPT for thing in things]
    if pattern == "each":
        return [draw(3 if isinstance(thing, _Op) else 2) for thing in things]
    if pattern in {"all kept", "all lost"}:
        return [KEPT if pattern == "all kept" else LOST] * count
    at = _draw(draw, count)
    torn = isinstance(things[at], _Op) and draw(2)
    if pattern == "one lost":
        return [KEPT] * at + [TORN if torn else LOST] + [KEPT] * (count - at - 1)
    before = LOST if pattern == "one kept" else KEPT
    return [before] * at + [TORN if torn else KEPT] + [LOST] * (count - at - 1)
