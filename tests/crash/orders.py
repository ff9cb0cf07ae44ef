"""Orders in which what happens side by side can happen, for tests that stop at a certain call."""

from __future__ import annotations

from concurrent.futures import Executor, Future


class Inline(Executor):
    """Does what it is given at once."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  it is told to who waits
            future.set_exception(error)
        return future


class Late(Executor):
    """Does what it is given when somebody waits for it, and not before."""

    def __init__(self):
        self._waiting = []

    def submit(self, fn, /, *args, **kwargs):
        future = _Waited(lambda: fn(*args, **kwargs))
        self._waiting.append(future)
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        for future in self._waiting:
            if future.exception() is None:
                future.result()


class _Waited(Future):
    def __init__(self, do):
        super().__init__()
        self._do = do

    def _now(self):
        if not self.done():
            try:
                self.set_result(self._do())
            except BaseException as error:  # noqa: BLE001  it is told to who waits
                self.set_exception(error)

    def result(self, timeout=None):
        self._now()
        return super().result(timeout)

    def exception(self, timeout=None):
        self._now()
        return super().exception(timeout)
