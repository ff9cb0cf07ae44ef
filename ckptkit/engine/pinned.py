"""Page-locked memory: what a GPU reads and writes by itself, while others compute.

Memory that the system may move goes over the bus by way of a buffer of the driver's, one copy at a
time. The driver is asked through ctypes; where there is none, or it refuses, the memory stays as
it is, and everything works, only slower.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, Protocol

from ckptkit.engine.read import PAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Load = Callable[[str], Any]

PORTABLE: Final = 1
"""``CU_MEMHOSTREGISTER_PORTABLE`` and ``hipHostRegisterPortable``: for every GPU of the process."""

_CUDA: Final = "libcuda.so.1"
_HIP: Final = ("libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5")


class Driver(Protocol):
    """What locks pages and lets go of them."""

    def lock(self, address: int, nbytes: int) -> bool:
        """Lock whole pages; tell whether they are locked."""

    def unlock(self, address: int) -> bool:
        """Let go of pages that were locked; tell whether that went well."""


class CudaDriver:
    """The driver of NVIDIA's GPUs.

    It works in a context. TensorFlow has made the primary one of every GPU that it uses; that of a
    GPU which nobody uses is not made for this, it would take memory there.
    """

    def __init__(self, library: Any) -> None:
        """Find the context in which to work.

        Raises:
            AttributeError: The library lacks a function.
            OSError: No GPU is in use.
        """
        self._lock = _either(library, "cuMemHostRegister_v2", "cuMemHostRegister")
        self._lock.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
        self._unlock = library.cuMemHostUnregister
        self._unlock.argtypes = (ctypes.c_void_p,)
        self._push = _either(library, "cuCtxPushCurrent_v2", "cuCtxPushCurrent")
        self._push.argtypes = (ctypes.c_void_p,)
        self._pop = _either(library, "cuCtxPopCurrent_v2", "cuCtxPopCurrent")
        self._context = ctypes.c_void_p()
        count = ctypes.c_int()
        if library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
            msg = "the driver does not start"
            raise OSError(msg)
        for number in range(count.value):
            device, flags, active = ctypes.c_int(), ctypes.c_uint(), ctypes.c_int()
            if (
                not library.cuDeviceGet(ctypes.byref(device), number)
                and not library.cuDevicePrimaryCtxGetState(
                    device, ctypes.byref(flags), ctypes.byref(active)
                )
                and active.value
                and not library.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), device)
            ):
                release = _either(
                    library, "cuDevicePrimaryCtxRelease_v2", "cuDevicePrimaryCtxRelease"
                )
                weakref.finalize(self, release, device).atexit = False
                return
        msg = "no GPU is in use"
        raise OSError(msg)

    def lock(self, address: int, nbytes: int) -> bool:
        """Lock whole pages."""
        return self._inside(lambda: self._lock(address, nbytes, PORTABLE))

    def unlock(self, address: int) -> bool:
        """Let go of pages."""
        return self._inside(lambda: self._unlock(address))

    def _inside(self, call: Callable[[], int]) -> bool:
        """Call the driver in the context, and leave the thread with the one that it had."""
        if self._push(self._context):
            return False
        try:
            return not call()
        finally:
            self._pop(ctypes.byref(ctypes.c_void_p()))


class HipDriver:
    """The runtime of AMD's GPUs, which has a context by itself."""

    def __init__(self, library: Any) -> None:
        """Find the functions.

        Raises:
            AttributeError: The library lacks one.
        """
        self._lock = library.hipHostRegister
        self._lock.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
        self._unlock = library.hipHostUnregister
        self._unlock.argtypes = (ctypes.c_void_p,)

    def lock(self, address: int, nbytes: int) -> bool:
        """Lock whole pages."""
        return not self._lock(address, nbytes, PORTABLE)

    def unlock(self, address: int) -> bool:
        """Let go of pages."""
        return not self._unlock(address)


def _either(library: Any, *names: str) -> Any:
    """Return the first function of these names that a library has."""
    for name in names[:-1]:
        if hasattr(library, name):
            return getattr(library, name)
    return getattr(library, names[-1])


def find_driver(load: Load = ctypes.CDLL) -> Driver | None:
    """Return the driver of the GPUs of this process, if one can lock pages."""
    for names, kind in (((_CUDA,), CudaDriver), (_HIP, HipDriver)):
        for name in names:
            try:
                return kind(load(name))
            except (OSError, AttributeError):
                continue
    return None


class Pinned:
    """Buffers that are page-locked until they are given back, or all of them are.

    Any thread may lock and unlock. What is locked is kept alive, so that no memory is freed which
    a GPU may still reach.

    Attributes:
        refused: How many times a driver would not lock, or not let go.
    """

    def __init__(self, driver: Driver | None) -> None:
        """Lock by way of a driver; with none, nothing is locked."""
        self._driver = driver
        self._guard = threading.Lock()
        self._held: dict[int, Bytes] = {}
        self.refused = 0
        # A worker that is dropped without being closed gives its pages back all the same.
        self._close = weakref.finalize(self, _unlock_all, driver, self._held)
        self._close.atexit = False

    @property
    def nbytes(self) -> int:
        """How many bytes are locked."""
        with self._guard:
            return sum(buffer.nbytes for buffer in self._held.values())

    def lock(self, buffer: Bytes) -> None:
        """Lock a buffer of whole pages, if that can be done."""
        address = buffer.ctypes.data
        with self._guard:
            if self._driver is None or not self._close.alive or not buffer.nbytes:
                return
            if address % PAGE == 0 and self._driver.lock(address, buffer.nbytes):
                self._held[address] = buffer
            else:
                self.refused += 1

    def unlock(self, buffer: Bytes) -> None:
        """Let go of a buffer that is not needed any more, if it is locked."""
        address = buffer.ctypes.data
        with self._guard:
            if self._driver is None or address not in self._held:
                return
            if self._driver.unlock(address):
                del self._held[address]
            else:
                # It may be locked still: freed, its addresses would be locked for somebody else.
                self.refused += 1

    def close(self) -> None:
        """Let go of everything; what is locked from now on stays plain memory."""
        with self._guard:
            self._close()


def _unlock_all(driver: Driver | None, held: dict[int, Bytes]) -> None:
    for address in held:
        if driver is not None:
            driver.unlock(address)
    held.clear()
