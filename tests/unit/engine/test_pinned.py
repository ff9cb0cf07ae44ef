"""Page-locked memory: what the driver is told, in which order, and what happens when it refuses."""

import ctypes
import threading

import numpy as np
import pytest

import ckptkit
from ckptkit.engine import device, steps
from ckptkit.engine.pinned import CudaDriver, HipDriver, Pinned, find_driver
from ckptkit.engine.read import PAGE, aligned
from ckptkit.engine.steps import Arena, Worker
from ckptkit.storage.disk import Disk


class Function:
    """A function of a library: a ctypes one takes argtypes, and so has this to."""

    def __init__(self, library, name):
        self.home, self.name, self.argtypes = library, name, None

    def __call__(self, *args):
        self.home.calls.append((self.name, *map(_plain, args)))
        return self.home.does(self.name, args)


class Library:
    """Records calls. GPUs below ``active`` have no context; names in ``fails`` give an error."""

    def __init__(self, names, count=3, active=1, fails=()):
        self.calls, self.count, self.active, self.fails = [], count, active, set(fails)
        for name in names:
            setattr(self, name, Function(self, name))

    def does(self, name, args):
        if name in self.fails:
            return 1
        if name == "cuDeviceGetCount":
            args[0]._obj.value = self.count
        if name == "cuDeviceGet":
            args[0]._obj.value = args[1] + 100
        if name == "cuDevicePrimaryCtxGetState":
            args[2]._obj.value = int(args[0].value - 100 >= self.active)
        if name == "cuDevicePrimaryCtxRetain":
            args[0]._obj.value = 0x77
        return 0

    def named(self, *names):
        return [call for call in self.calls if call[0] in names]


def _plain(value):
    if isinstance(value, ctypes._SimpleCData):
        return value.value
    return value if isinstance(value, int) else None


OLD = ("cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDevicePrimaryCtxGetState",
       "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease", "cuCtxPushCurrent",
       "cuCtxPopCurrent", "cuMemHostRegister", "cuMemHostUnregister")  # fmt: skip
CUDA = (*OLD, "cuMemHostRegister_v2", "cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2",
        "cuDevicePrimaryCtxRelease_v2")  # fmt: skip
HIP = ("hipHostRegister", "hipHostUnregister")


def pages(count=2):
    return aligned(count * PAGE, PAGE)


def test_cuda_locks_in_the_context_of_a_gpu_that_is_in_use_and_leaves_none_behind():
    library, memory = Library(CUDA), pages()
    driver = CudaDriver(library)
    assert library.named("cuDevicePrimaryCtxRetain") == [("cuDevicePrimaryCtxRetain", None, 101)]
    library.calls.clear()

    assert driver.lock(memory.ctypes.data, memory.nbytes)
    assert driver.unlock(memory.ctypes.data)

    assert library.calls == [
        ("cuCtxPushCurrent_v2", 0x77),
        ("cuMemHostRegister_v2", memory.ctypes.data, 2 * PAGE, 1),
        ("cuCtxPopCurrent_v2", None),
        ("cuCtxPushCurrent_v2", 0x77),
        ("cuMemHostUnregister", memory.ctypes.data),
        ("cuCtxPopCurrent_v2", None),
    ]


def test_a_context_that_is_not_needed_any_more_is_given_back():
    library = Library(CUDA)
    driver = CudaDriver(library)
    del driver
    assert library.calls[-1] == ("cuDevicePrimaryCtxRelease_v2", 101)


def test_an_old_driver_has_the_old_names():
    library = Library(OLD)
    assert CudaDriver(library).lock(PAGE, PAGE)
    assert ("cuMemHostRegister", PAGE, PAGE, 1) in library.calls


def test_hip_needs_no_context():
    library = Library(HIP)
    driver = HipDriver(library)
    assert driver.lock(PAGE, 2 * PAGE)
    assert driver.unlock(PAGE)
    assert library.calls == [("hipHostRegister", PAGE, 2 * PAGE, 1), ("hipHostUnregister", PAGE)]


@pytest.mark.parametrize(
    "library",
    [
        Library(()),
        Library(("cuInit",)),
        Library(CUDA, count=0),
        Library(CUDA, active=3),
        *(Library(CUDA, fails=[name]) for name in ("cuInit", "cuDevicePrimaryCtxRetain")),
    ],
)
def test_a_library_that_does_not_do_is_passed_over(library):
    assert find_driver(lambda name: library) is None


def test_what_is_not_installed_is_passed_over():
    def load(name):
        if "hip" not in name:
            raise OSError(name)
        return Library(HIP)

    assert isinstance(find_driver(load), HipDriver)
    assert isinstance(find_driver(lambda name: Library(CUDA)), CudaDriver)


def test_the_arena_hands_out_whole_pages_and_locks_each_once():
    library = Library(HIP)
    pinned = Pinned(HipDriver(library))
    arena = Arena(pinned)
    for _ in range(3):
        arena.reset()
        first, second = arena.take(5000), arena.take(10)
        assert (first.nbytes, second.nbytes) == (5000, 10)
        assert first.ctypes.data % PAGE == second.ctypes.data % PAGE == 0
    assert [call[2] for call in library.named("hipHostRegister")] == [2 * PAGE, PAGE]
    assert (pinned.nbytes, pinned.refused) == (3 * PAGE, 0)


def test_a_buffer_that_is_regrown_is_let_go_of_first():
    library = Library(HIP)
    pinned = Pinned(HipDriver(library))
    arena = Arena(pinned)
    old = arena.take(100).ctypes.data
    arena.reset()
    new = arena.take(2 * PAGE).ctypes.data
    assert library.calls == [
        ("hipHostRegister", old, PAGE, 1),
        ("hipHostUnregister", old),
        ("hipHostRegister", new, 2 * PAGE, 1),
    ]
    assert pinned.nbytes == 2 * PAGE


def test_closing_lets_go_of_what_every_thread_has_and_locks_nothing_more():
    library = Library(HIP)
    pinned = Pinned(HipDriver(library))
    arena = Arena(pinned)
    arena.take(PAGE)
    other = threading.Thread(target=lambda: arena.take(PAGE))
    other.start()
    other.join()
    assert pinned.nbytes == 2 * PAGE

    pinned.close()
    pinned.close()
    arena.take(PAGE)

    locked = [call[1] for call in library.named("hipHostRegister")]
    assert len(locked) == 2
    assert [call[1] for call in library.named("hipHostUnregister")] == locked
    assert pinned.nbytes == 0


def test_a_worker_that_is_dropped_lets_go_too():
    library = Library(HIP)
    pinned = Pinned(HipDriver(library))
    Arena(pinned).take(PAGE)
    del pinned
    assert len(library.named("hipHostUnregister")) == 1


def test_memory_that_cannot_be_locked_is_plain_memory():
    library = Library(HIP, fails=["hipHostRegister"])
    pinned = Pinned(HipDriver(library))
    memory = Arena(pinned).take(PAGE)
    memory[:] = 7
    pinned.close()
    assert (pinned.nbytes, pinned.refused) == (0, 1)
    assert not library.named("hipHostUnregister")


def test_memory_that_the_driver_does_not_let_go_of_is_kept():
    library = Library(HIP, fails=["hipHostUnregister"])
    pinned = Pinned(HipDriver(library))
    arena = Arena(pinned)
    arena.take(PAGE)
    arena.reset()
    arena.take(3 * PAGE)
    assert (pinned.nbytes, pinned.refused) == (4 * PAGE, 1)


def test_only_a_worker_for_a_gpu_asks_for_a_driver(monkeypatch):
    asked = []
    monkeypatch.setattr(steps, "find_driver", lambda: asked.append(1))
    Worker(Disk(), device.NumpyDevice()).close()
    assert not asked


def test_a_run_locks_its_staging_memory_and_lets_go_of_all_of_it(tmp_path, monkeypatch):
    """NumPy under the name of a GPU: what the arena does is the same."""
    library = Library(HIP)
    named = device.NumpyDevice()
    named.name = "gpu"
    monkeypatch.setattr(steps, "find_driver", lambda: HipDriver(library))
    monkeypatch.setattr("ckptkit.engine.run.device_from", lambda name: named)
    ckptkit.save(tmp_path / "m", {"w": np.arange(100_000, dtype=np.float32)})

    with ckptkit.open(tmp_path / "m") as found:
        found.edit("w *= 2").plan(tmp_path / "n").run(device="numpy")

    locked = [call[1] for call in library.named("hipHostRegister")]
    assert locked
    assert sorted(call[1] for call in library.named("hipHostUnregister")) == sorted(locked)
