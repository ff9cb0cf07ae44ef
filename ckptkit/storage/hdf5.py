"""The HDF5 library, for one user at a time."""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIBRARY: Final = threading.RLock()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Have the library for oneself, while it reads files by Python in the middle of a call.

    There the collector could let go of other objects of the library, which then would be called
    within a call, and cannot bear that. Nor do all of h5py's functions take the lock that it has.
    """
    with _LIBRARY:
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collecting:
                gc.enable()
