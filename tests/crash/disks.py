"""Disks that stop: with an error, an interrupt, or a kill. See ``forgetful`` for the power."""

import os
import signal

from ckptkit.storage.disk import Disk


class Recording(Disk):
    """Remembers the calls that change something."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def about_to(self, call, path, new="", **details):
        self.calls.append((call, path, new))


class Stopping(Recording):
    """Raises an error at one call, once."""

    def __init__(self, at, error):
        super().__init__()
        self._at = at
        self._error = error

    def about_to(self, call, path, new="", **details):
        super().about_to(call, path, new, **details)
        if len(self.calls) - 1 == self._at:
            raise self._error


class Killing(Recording):
    """Ends the process at one call, as ``kill -9`` does."""

    def __init__(self, at):
        super().__init__()
        self._at = at

    def about_to(self, call, path, new="", **details):
        super().about_to(call, path, new, **details)
        if len(self.calls) - 1 == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


class Broken(Recording):
    """Raises errors from one call on."""

    def __init__(self, at, error):
        super().__init__()
        self._at = at
        self._error = error

    def about_to(self, call, path, new="", **details):
        super().about_to(call, path, new, **details)
        if len(self.calls) > self._at:
            raise self._error
