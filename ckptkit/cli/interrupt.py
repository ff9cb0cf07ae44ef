"""Ctrl-C and SIGTERM as one exception, so that a half-written result is removed on the way out."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Somebody asked the program to stop.

    Attributes:
        exit_code: What a shell expects: 128 and the number of the signal.
    """

    def __init__(self, number: int) -> None:
        """Note the signal."""
        super().__init__(number)
        self.exit_code = 128 + number

    def __str__(self) -> str:
        """Return what happened."""
        return "interrupted" if self.args == (signal.SIGINT,) else "terminated"


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise :class:`Interrupted` in this block when a signal asks to stop.

    Only the first signal counts: a second one must not interrupt the cleaning up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, _: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)
