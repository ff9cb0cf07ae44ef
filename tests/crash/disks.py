"""Disks that stop: with an error, with an interrupt, or with the power."""

import os
import signal

from ckptkit.storage.disk import Disk


class Recording(Disk):
    """Remembers the calls that change something."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def about_to(self, call, path, new=""):
        self.calls.append((call, path, new))


class Stopping(Recording):
    """Raises an error at one call, once."""

    def __init__(self, at, error):
        super().__init__()
        self._at = at
        self._error = error

    def about_to(self, call, path, new=""):
        super().about_to(call, path, new)
        if len(self.calls) - 1 == self._at:
            raise self._error


class Killing(Recording):
    """Ends the process at one call, as ``kill -9`` does."""

    def __init__(self, at):
        super().__init__()
        self._at = at

    def about_to(self, call, path, new=""):
        super().about_to(call, path, new)
        if len(self.calls) - 1 == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def states(calls):
    """Yield what may be on a device after the power fails, before any of the calls and at the end.

    A state maps every visible path to whether its contents are complete. A device keeps what was
    synced; of the names that changed since their folder was synced it keeps any subset.
    """
    for count in range(len(calls) + 1):
        yield from _states(calls[:count])


def _states(calls):
    device = _Device()
    for call in calls:
        device.take(*call)
    for mask in range(1 << len(device.pending)):
        names = dict(device.names)
        for bit, change in enumerate(device.pending):
            if mask >> bit & 1:
                _apply(names, change)
        yield {path: device.clean[number] for path, number in names.items()}


class _Device:
    """What is on a device, and what is not there yet: names by folder, contents by file."""

    def __init__(self):
        self.clean = []
        self.names = {}
        self.pending = []
        self._open = {}

    def take(self, call, path, new):
        if call == "create":
            self._open[path] = len(self.clean)
            self.pending.append((path, None, len(self.clean)))
            self.clean.append(False)
        elif call in {"write", "copy", "resize", "sync"}:
            self.clean[self._open[path]] = call == "sync"
        elif call == "rename" and path in self._open:
            self._open[new] = self._open.pop(path)
            self.pending.append((new, path, None))
        elif call == "sync_folder":
            for change in [one for one in self.pending if os.path.dirname(one[0]) == path]:
                _apply(self.names, change)
                self.pending.remove(change)


def _apply(names, change):
    path, old, number = change
    if old is None:
        names[path] = number
    elif old in names:
        names[path] = names.pop(old)
