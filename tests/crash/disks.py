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
    clean, durable, pending = {}, {}, []
    inode = {}
    for number, (call, path, new) in enumerate(calls):
        if call == "create":
            inode[path] = number
            clean[number] = False
            pending.append(("add", path, number))
        elif call in {"write", "copy", "resize"}:
            clean[inode[path]] = False
        elif call == "sync":
            clean[inode[path]] = True
        elif call == "rename" and path in inode:
            inode[new] = inode.pop(path)
            pending.append(("move", path, new))
        elif call == "sync_folder":
            kept = [change for change in pending if os.path.dirname(change[-1 if change[0] == "move" else 1]) != path]
            for change in pending:
                if change not in kept:
                    _apply(durable, change)
            pending = kept
    for mask in range(1 << len(pending)):
        names = dict(durable)
        for bit, change in enumerate(pending):
            if mask >> bit & 1:
                _apply(names, change)
        yield {path: clean[number] for path, number in names.items()}


def _apply(names, change):
    if change[0] == "add":
        names[change[1]] = change[2]
    elif change[1] in names:
        names[change[2]] = names.pop(change[1])
