"""Indexes that were read lately: ``load_variable`` opens a checkpoint with every call."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from ckptkit.formats.tensorflow.listing import Listed

MOST: Final = 8
"""Indexes that are kept."""

MOST_BYTES: Final = 64 << 20
"""Memory that those together may take; a larger one is not kept."""

SETTLED: Final = 3_000_000_000
"""Nanoseconds after which a file has another time when it changes again.

File systems tell times in steps, the coarsest in steps of two seconds. An index that was written
a moment ago could be written anew within the same step, and look as it did.
"""


class Stamp(NamedTuple):
    """What tells that an index is still the one that was read."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @property
    def settled(self) -> bool:
        """Whether another write would show."""
        return time.time_ns() - max(self.modified, self.changed) >= SETTLED


def _stamp(path: str) -> Stamp:
    found = os.stat(path)
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Cache:
    """The latest indexes, by path, a bounded number of them; for many threads.

    Files are not kept open: a checkpoint that is removed takes no room on the device any more.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._kept: OrderedDict[str, tuple[list[Stamp], Listed]] = OrderedDict()
        self._lock = threading.Lock()

    def listing(self, prefix: str, paths: list[str], read: Callable[[], Listed]) -> Listed:
        """Return what a checkpoint says of its tensors now.

        Args:
            prefix: What it was asked for by: one file may be read in several ways.
            paths: The files that say it.
            read: Reads them.

        Raises:
            CkptError: They are damaged.
            OSError: They cannot be read.
        """
        key = prefix if os.path.isabs(prefix) else os.path.abspath(prefix)
        stamps = [*map(_stamp, paths)]
        with self._lock:
            known = self._kept.get(key)
            if known is not None and known[0] == stamps:
                self._kept.move_to_end(key)
                return known[1]
        settled = all(stamp.settled for stamp in stamps)
        found = read()
        if settled and [*map(_stamp, paths)] == stamps and found.nbytes <= MOST_BYTES:
            self._keep(key, stamps, found)
        return found

    def _keep(self, key: str, stamps: list[Stamp], found: Listed) -> None:
        with self._lock:
            self._kept[key] = stamps, found
            self._kept.move_to_end(key)
            while len(self._kept) > MOST or self._nbytes() > MOST_BYTES:
                self._kept.popitem(last=False)

    def _nbytes(self) -> int:
        return sum(listing.nbytes for _, listing in self._kept.values())

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._kept.clear()


CACHE: Final = Cache()
"""The one of this process."""
