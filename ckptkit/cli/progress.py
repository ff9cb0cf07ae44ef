"""A progress bar that counts bytes, for work that is long enough to wonder about."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID

PATIENCE: Final = 0.5
"""Seconds of work before the bar appears: a flash of it helps nobody, and rich costs 0.1 s."""


class Bar:
    """Takes bytes done and bytes in all; shows them, with the time left, on standard error."""

    def __init__(self, what: str, *, enabled: bool) -> None:
        """Prepare a bar; nothing is shown, or imported, yet.

        Args:
            what: What stands before the bar.
            enabled: Whether there is a terminal to show it on.
        """
        self._what = what
        self._enabled = enabled
        self._began = time.monotonic()
        self._shown: tuple[Progress, TaskID] | None = None

    def __call__(self, done: int, total: int) -> None:
        """Show how far the work is."""
        if self._shown is None:
            if not self._enabled or time.monotonic() - self._began < PATIENCE:
                return
            self._shown = self._show()
        progress, task = self._shown
        progress.update(task, completed=done, total=total)

    def _show(self) -> tuple[Progress, TaskID]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        progress.start()
        return progress, progress.add_task(self._what, total=None)

    def __enter__(self) -> Self:
        """Return the bar."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar off the terminal."""
        if self._shown is not None:
            self._shown[0].stop()
