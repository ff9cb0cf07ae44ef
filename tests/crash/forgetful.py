"""A disk that stops after any call, and forgets what was not synced.

:func:`record` runs something on a disk that keeps its calls; :class:`History` then stops that
disk after any of them. What is left is drawn: by Hypothesis, at random, or all there is.
"""

from __future__ import annotations

import contextlib
import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import note
from hypothesis import strategies as st

from ckptkit.storage.disk import Disk
from tests.crash.trees import Tree, differing, materialise, place
from tests.crash.volume import Call, Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hypothesis.strategies import DataObject

    from tests.crash.volume import Draw

__all__ = [
    "Call",
    "History",
    "Logged",
    "Tree",
    "Volume",
    "differing",
    "every",
    "materialise",
    "record",
]


class Logged(Disk):
    """Performs every call, and keeps those that went through, in order.

    ``File.settle`` is no call of the seam, so it counts as nothing: that forgets more, not less.
    """

    def __init__(self):
        super().__init__()
        self.calls: list[Call] = []
        self._guard = threading.Lock()
        self._mine = threading.local()

    def about_to(self, call, path, new="", *, length=0, writes=None):
        """Keep a call, with what it writes as that is now."""
        pieces = tuple((offset, bytes(data)) for offset, data in writes()) if writes else ()
        entry = Call(call, place(path), place(new) if new else "", length, pieces)
        with self._guard:
            self.calls.append(entry)
        self._mine.last = entry

    @contextlib.contextmanager
    def _unless_refused(self):
        # A name that exists, say: the system did nothing, so there is nothing to forget.
        self._mine.last = None
        try:
            yield
        except OSError:
            with self._guard:
                self.calls[:] = [entry for entry in self.calls if entry is not self._mine.last]
            raise

    def create(self, path):
        with self._unless_refused():
            return super().create(path)

    def make_folder(self, path, mode=0o777):
        with self._unless_refused():
            super().make_folder(path, mode)

    def rename(self, old, new):
        with self._unless_refused():
            super().rename(old, new)

    def link(self, old, new):
        with self._unless_refused():
            super().link(old, new)

    def remove(self, path):
        with self._unless_refused():
            super().remove(path)

    def remove_folder(self, path):
        with self._unless_refused():
            super().remove_folder(path)


def every(outcome: Callable[[Draw], object]) -> Iterator[object]:
    """Yield what a function of a draw returns, for every sequence of numbers it may draw."""
    drawn: list[int] = []
    while True:
        counts: list[int] = []

        def draw(count: int, counts: list[int] = counts) -> int:
            counts.append(count)
            if len(counts) > len(drawn):
                drawn.append(0)
            return drawn[len(counts) - 1]

        yield outcome(draw)
        while drawn and drawn[-1] + 1 == counts[len(drawn) - 1]:
            drawn.pop()
        if not drawn:
            return
        drawn[-1] += 1


@dataclass(frozen=True, repr=False)
class History:
    """What was done to a volume, call by call."""

    before: Volume
    calls: tuple[Call, ...]

    def after(self, count: int | None = None) -> Volume:
        """Return the volume after so many calls, or all."""
        return self.before.replay(self.calls[:count])

    def draw(self, data: DataObject) -> tuple[int, Tree]:
        """Let Hypothesis stop the disk: after how many calls, and what is there then."""
        count = data.draw(st.integers(0, len(self.calls)), label="calls before the power fails")
        note(f"the last of them: {self.calls[count - 1] if count else 'none'}")
        volume = self.after(count)
        return count, volume.after_power_failure(lambda n: data.draw(st.integers(0, n - 1)))

    def states(self, draws: int = 12, seed: int = 0) -> Iterator[tuple[int, Tree]]:
        """Yield what may be there after a kill or a power failure at every call: some states."""
        for count, volume in self._volumes():
            draw = random.Random(f"{seed} {count}").randrange
            drawn = [volume.after_power_failure(draw) for _ in range(draws)]
            for tree in dict.fromkeys([volume.after_kill(), *drawn]):
                yield count, tree

    def namings(self) -> Iterator[tuple[int, Tree]]:
        """Yield, for every call, the states of :meth:`Volume.after_namings`."""
        for count, volume in self._volumes():
            for tree in dict.fromkeys(volume.after_namings()):
                yield count, tree

    def _volumes(self) -> Iterator[tuple[int, Volume]]:
        volume = self.before.replay(())
        yield 0, volume
        for count, call in enumerate(self.calls, start=1):
            volume.apply(call)
            yield count, volume

    def without(self, left_out: Callable[[Call], bool]) -> History:
        """Return the history as it would be without some of the calls."""
        return History(self.before, tuple(call for call in self.calls if not left_out(call)))


def record(run: Callable[[Disk], object], before: Volume) -> History:
    """Run something on a disk that keeps its calls, and return them.

    ``before`` tells which folders to watch. All that the run does there goes through the disk.
    """
    disk = Logged()
    run(disk)
    history = History(before, tuple(disk.calls))
    told, there = history.after().after_kill(), Volume.of(*before.roots).after_kill()
    assert differing(told.files, there.files) == [], "not as the calls tell"
    assert told == there, "not as the calls tell, in its folders or links"
    return history
