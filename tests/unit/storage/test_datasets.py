"""Datasets that are no byte range of their file, with h5py as the oracle."""

from __future__ import annotations

import gc
import io
import itertools
import math
import os
import subprocess
import sys
import threading
import zlib

import h5py
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptkit.errors import ConflictError, CorruptError, UnsupportedError
from ckptkit.storage import datasets, filters
from ckptkit.storage.datasets import boxes, dataset_path
from ckptkit.storage.disk import Disk, Sources
from ckptkit.storage.virtual import is_virtual, open_virtual

BEFORE = 1237
"""Bytes before the HDF5 content, as in a zip."""


def content(write):
    """Return HDF5 content, as a function writes it."""
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        write(file)
    return held.getvalue()


def virtual(tmp_path, held, name="a/b"):
    """Put HDF5 content in the middle of a file, and return the path of a dataset in it."""
    path = tmp_path / "weights"
    path.write_bytes(b"\xaa" * BEFORE + held + b"\xbb" * 77)
    return dataset_path(str(path), BEFORE, len(held), name)


def written(tmp_path, values, **options):
    return virtual(tmp_path, content(lambda f: f.create_dataset("a/b", data=values, **options)))


def little(values):
    values = np.ascontiguousarray(values)
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def whole(path):
    file = open_virtual(Disk(), path)
    return bytes(file.read(0, file.size))


VALUES = (np.arange(13 * 7 * 5) % 97).reshape(13, 7, 5)

STORED = {
    "contiguous": {},
    "chunks": {"chunks": (4, 3, 5)},
    "gzip": {"chunks": (4, 3, 2), "compression": "gzip"},
    "shuffle": {"chunks": (4, 3, 2), "shuffle": True},
    "shuffled gzip": {"chunks": (4, 3, 2), "shuffle": True, "compression": "gzip"},
    "fletcher32": {"chunks": (4, 3, 2), "fletcher32": True},
    "lzf": {"chunks": (13, 7, 5), "compression": "lzf"},
    "shuffled lzf": {"chunks": (13, 4, 5), "shuffle": True, "compression": "lzf"},
    "all": {"chunks": (5, 7, 5), "shuffle": True, "compression": "gzip", "fletcher32": True},
    "resizable": {"chunks": (4, 3, 2), "maxshape": (None, None, 9), "compression": "gzip"},
    "one chunk": {"chunks": (13, 7, 5), "compression": 9},
}


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "i1", ">i8", "u1", ">u2", "<c8", ">c16"])
@pytest.mark.parametrize("stored", STORED)
def test_elements_are_dense_and_little_endian(tmp_path, stored, dtype):
    values = VALUES.astype(dtype)
    path = written(tmp_path, values, **STORED[stored])
    assert whole(path) == little(values)


@pytest.mark.parametrize("stored", STORED)
def test_bfloat16_and_bool_are_their_bytes(tmp_path, stored):
    floats = VALUES.astype(ml_dtypes.bfloat16)
    path = written(tmp_path, floats.view("V2"), **STORED[stored])
    assert whole(path) == floats.tobytes()
    path = written(tmp_path, VALUES % 2 == 1, **STORED[stored])
    assert whole(path) == (VALUES % 2 == 1).tobytes()


@pytest.mark.parametrize(
    "shape", [(), (1,), (0,), (3, 0, 2), (9,), (3, 4), (2, 3, 4), (2, 1, 3, 5)]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_every_rank_is_read(tmp_path, shape, chunked):
    if chunked and not shape:
        pytest.skip("a scalar has no chunks")
    values = np.arange(math.prod(shape), dtype=">f4").reshape(shape)
    options = {"chunks": tuple(max(n // 2, 1) for n in shape)} if chunked else {}
    maximum = {"maxshape": tuple(n or None for n in shape)} if chunked else {}
    assert whole(written(tmp_path, values, **options, **maximum)) == little(values)


def test_a_compact_dataset_is_read(tmp_path):
    values = np.arange(24, dtype=">i4").reshape(2, 3, 4)

    def write(file):
        recipe = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        recipe.set_layout(h5py.h5d.COMPACT)
        kind, space = h5py.h5t.py_create(values.dtype), h5py.h5s.create_simple(values.shape)
        made = h5py.h5d.create(file.create_group("a").id, b"b", kind, space, recipe)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)

    assert whole(virtual(tmp_path, content(write))) == little(values)


@pytest.mark.parametrize("options", [{}, {"chunks": (2, 3)}, {"chunks": (2, 3), "shuffle": True}])
@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_what_was_never_written_is_the_fill_value(tmp_path, options, dtype):
    def write(file):
        made = file.create_dataset("a/b", (5, 7), dtype, fillvalue=5.0, **options)
        if options:
            made[2:4, 3:5] = 8.0

    expected = np.full((5, 7), 5.0, dtype)
    if options:
        expected[2:4, 3:5] = 8.0
    assert whole(virtual(tmp_path, content(write))) == little(expected)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """One file with every way of storing; the values by path."""
    folder = tmp_path_factory.mktemp("shelf")
    found = {}

    def write(file):
        for at, (options, dtype) in enumerate(
            itertools.product(STORED.values(), ["<f4", ">f8", "u1"])
        ):
            file.create_dataset(f"a/{at}", data=VALUES.astype(dtype), **options)
            found[f"a/{at}"] = little(VALUES.astype(dtype))

    held = content(write)
    return {virtual(folder, held, name): expected for name, expected in found.items()}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_range_is_that_of_the_whole(shelf, data):
    path = data.draw(st.sampled_from(sorted(shelf)))
    expected = shelf[path]
    low = data.draw(st.integers(0, len(expected)))
    length = data.draw(st.integers(0, len(expected) - low))
    file = open_virtual(Disk(), path)
    assert file.size == len(expected)
    assert file.read(low, length) == expected[low : low + length]
    width = data.draw(st.integers(1, 20))
    starts = data.draw(st.lists(st.integers(0, len(expected) - width), max_size=5))
    assert file.read_runs(width, starts) == b"".join(expected[at : at + width] for at in starts)


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), max_size=4), st.data())
def test_boxes_tile_a_run_in_order(shape, data):
    shape = tuple(shape)
    numbers = np.arange(math.prod(shape)).reshape(shape)
    low = data.draw(st.integers(0, numbers.size))
    high = data.draw(st.integers(low, numbers.size))
    cut = [*boxes(shape, low, high)]
    found = [
        numbers[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))].ravel()
        for start, size in cut
    ]
    assert np.array_equal(np.concatenate([[], *found]), np.arange(low, high))
    assert len(cut) <= max(2 * len(shape) - 1, 1)


# --- through the disk --------------------------------------------------------------------------


def test_what_is_read_is_counted(tmp_path):
    values = np.zeros((1000, 100))
    disk = Disk()
    file = open_virtual(disk, written(tmp_path, values, chunks=(10, 100), compression="gzip"))
    before = disk.traffic.read
    assert before > 0
    file.read(0, 8000)
    assert 0 < disk.traffic.read - before < 8000
    assert (disk.traffic.written, disk.traffic.copied) == (0, 0)


def test_sources_open_a_dataset_by_its_path(tmp_path):
    path = written(tmp_path, VALUES.astype(">f4"), chunks=(4, 3, 2))
    assert is_virtual(path)
    assert not is_virtual(str(tmp_path / "weights"))
    sources = Sources()
    file = sources.file(path)
    assert sources.file(path) is file
    assert file.path == str(tmp_path / "weights")
    assert sources.file(file.path).size == os.path.getsize(file.path)
    assert file.read(4, 8) == little(VALUES.astype(">f4"))[4:12]
    before = len(os.listdir("/proc/self/fd"))
    del file
    sources.close()
    assert len(os.listdir("/proc/self/fd")) == before - 2


def test_a_dataset_is_copied_to_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("ckptkit.storage.disk.COPY_BLOCK", 111)
    expected = little(VALUES.astype(">f4"))
    file = open_virtual(Disk(), written(tmp_path, VALUES.astype(">f4"), chunks=(4, 3, 2)))
    disk = Disk()
    with disk.create(str(tmp_path / "copy")) as target:
        target.copy_from(file, 5, 3, 1000)
        assert target.read(3, 1000) == expected[5:1005]
    assert disk.traffic.written == 1000
    with pytest.raises(UnsupportedError, match="cannot be written in place"):
        file.write(b"x", 0)
    with pytest.raises(UnsupportedError, match="cannot be written in place"):
        file.write_runs(1, [0], b"x")


@pytest.fixture
def eager_collector():
    """A collector that runs in the middle of everything."""
    before = gc.get_threshold()
    gc.set_threshold(20, 2, 2)
    yield
    gc.set_threshold(*before)


def test_many_threads_read_one_dataset(tmp_path, monkeypatch, eager_collector):
    monkeypatch.setattr(datasets, "CACHE", 3000)
    monkeypatch.setattr(datasets, "ALONE", 700)
    values = np.arange(40 * 50, dtype=">f8").reshape(40, 50)
    expected = little(values)
    small = open_virtual(Disk(), written(tmp_path, values, chunks=(7, 9), compression="gzip"))
    (tmp_path / "other").mkdir()
    path = written(tmp_path / "other", values, chunks=(20, 25), compression="gzip")
    large = open_virtual(Disk(), path)
    wrong = []

    def use(seed):
        for step in range(40):
            low = (seed * 4999 + step * 331) % (len(expected) - 500)
            found = {bytes(file.read(low, 500)) for file in (small, large)}
            if found != {expected[low : low + 500]}:
                wrong.append((seed, step))

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_decoded_chunks_are_bounded_together(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "_CACHE", datasets._Cache())
    monkeypatch.setattr(datasets, "CACHE", 5000)
    values = np.arange(200 * 50, dtype="<f8").reshape(200, 50)
    path = written(tmp_path, values, chunks=(2, 50), compression="gzip")
    files = [open_virtual(Disk(), path) for _ in range(3)]
    for file in files:
        assert file.read(0, file.size) == values.tobytes()
        assert 0 < datasets._CACHE._nbytes <= 5000
    for file in files:
        file.close()
    assert datasets._CACHE._nbytes == 0
    assert not datasets._CACHE._chunks


def test_a_chunk_is_decoded_once_for_neighbouring_reads(tmp_path, monkeypatch):
    values = np.arange(64 * 64, dtype="<f4").reshape(64, 64)
    file = open_virtual(Disk(), written(tmp_path, values, chunks=(16, 16), compression="gzip"))
    decoded = []

    def note(*given):
        decoded.append(1)
        return filters.unfilter(*given)

    monkeypatch.setattr(datasets, "unfilter", note)
    for at in range(0, file.size, 100):
        file.read(at, min(100, file.size - at))
    assert len(decoded) == 16


# --- what is damaged, and what is refused ------------------------------------------------------


def stored_chunk(path, origin):
    """Return where in the file a chunk is."""
    name, _, start, length, dataset = path.split("\0")
    with open(name, "rb") as file:
        file.seek(int(start))
        with h5py.File(io.BytesIO(file.read(int(length))), "r") as opened:
            info = opened[dataset].id.get_chunk_info_by_coord(origin)
    return name, int(start) + info.byte_offset, info.size


def damage(path, origin, change):
    name, offset, size = stored_chunk(path, origin)
    with open(name, "r+b") as file:
        file.seek(offset)
        old = file.read(size)
        new = change(old)
        assert len(new) == len(old)
        file.seek(offset)
        file.write(new)


@pytest.mark.parametrize("stored", ["gzip", "shuffled gzip", "fletcher32", "lzf", "all"])
def test_damage_names_dataset_and_chunk(tmp_path, stored):
    values = VALUES.astype("<f4")
    path = written(tmp_path, values, **STORED[stored])
    damage(path, (0, 0, 0), lambda old: old[:8] + bytes(b ^ 0x55 for b in old[8:]))
    file = open_virtual(Disk(), path)
    with pytest.raises(CorruptError, match=r"chunk at \[0, 0, 0\]") as caught:
        file.read(0, 4)
    assert (caught.value.path, caught.value.tensor) == (str(tmp_path / "weights"), "a/b")
    if STORED[stored]["chunks"][0] < 13:
        assert file.read(file.size - 4, 4) == values[-1, -1, -1].tobytes()


def test_a_chunk_that_unfolds_to_more_is_no_bomb(tmp_path):
    bomb = zlib.compress(bytes(50 << 20), 9)
    values = np.random.default_rng(1).integers(0, 256, (1, 60_000), np.uint8)
    path = written(tmp_path, values, chunks=(1, 60_000), compression="gzip")
    damage(path, (0, 0), lambda old: bomb[: len(old)].ljust(len(old), b"\0"))
    with pytest.raises(CorruptError, match="unfolds to more than the 60000 bytes"):
        whole(path)


def test_a_chunk_that_ends_early_is_damaged(tmp_path):
    values = np.random.default_rng(1).integers(0, 256, (1, 600), np.uint8)
    path = written(tmp_path, values, chunks=(1, 600), compression="gzip")
    damage(path, (0, 0), lambda old: zlib.compress(b"short").ljust(len(old), b"\0"))
    with pytest.raises(CorruptError, match="ends after 5 of the 600 bytes"):
        whole(path)


def test_a_file_that_ends_is_told_as_that(tmp_path):
    path = written(tmp_path, VALUES.astype("<f4"), **STORED["gzip"])
    file = open_virtual(Disk(), path)
    os.truncate(tmp_path / "weights", BEFORE + 100)
    with pytest.raises(ConflictError, match="the file ends here"):
        file.read(0, file.size)


def test_bytes_beyond_the_end_are_refused(tmp_path):
    file = open_virtual(Disk(), written(tmp_path, VALUES.astype("<f4"), **STORED["gzip"]))
    with pytest.raises(ConflictError, match="the tensor ends at byte 1820"):
        file.read(1800, 21)


def test_a_device_that_fails_is_told_as_that(tmp_path, monkeypatch):
    file = open_virtual(Disk(), written(tmp_path, VALUES.astype("<f4"), **STORED["gzip"]))

    def fail(*_):
        raise OSError(5, "broken")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(OSError, match="broken"):
        file.read(0, 100)


def test_content_that_is_none_is_damaged(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(5000))
    with pytest.raises(CorruptError, match="damaged"):
        open_virtual(Disk(), dataset_path(str(path), 0, 5008, "a/b"))
    with pytest.raises(FileNotFoundError):
        open_virtual(Disk(), dataset_path(str(tmp_path / "none"), 0, 5008, "a/b"))


@pytest.mark.parametrize("name", ["a", "a/c", "a/b/c", "", "a//b"])
def test_a_name_that_is_no_dataset_is_told(tmp_path, name):
    held = content(lambda f: f.create_dataset("a/b", data=VALUES))
    with pytest.raises(CorruptError) as caught:
        open_virtual(Disk(), virtual(tmp_path, held, name))
    assert caught.value.tensor == name


def test_odd_bytes_in_names_are_found(tmp_path):
    def write(file):
        file.create_dataset("a/é", data=VALUES)
        file.id.links.move(b"a", file.id, b"a\\\xff")

    assert whole(virtual(tmp_path, content(write), "a\\\udcff/é")) == VALUES.tobytes()


def elsewhere(file):
    file.create_dataset("a/c", data=VALUES)
    file["a/b"] = h5py.SoftLink("/a/c")


def outside(file):
    file.create_group("a")["b"] = h5py.ExternalLink("/etc/passwd", "/a")


def mapped(file):
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
    file.create_virtual_dataset("a/b", layout)


def spread(file):
    file.create_dataset("a/b", (3,), "f4", external=[("/etc/passwd", 0, 12)])


REFUSED = {
    "soft": (elsewhere, "leads elsewhere"),
    "external": (outside, "leads elsewhere"),
    "virtual": (mapped, "virtual dataset"),
    "external bytes": (spread, "in other files"),
    "strings": (lambda f: f.create_dataset("a/b", data=["x", "y"]), "no numbers"),
    "fixed strings": (lambda f: f.create_dataset("a/b", data=np.array([b"x"])), "no numbers"),
    "records": (
        lambda f: f.create_dataset("a/b", data=np.zeros(3, "i4,f4")),
        "no complex numbers",
    ),
    "scaled": (
        lambda f: f.create_dataset("a/b", data=VALUES, chunks=True, scaleoffset=2),
        r"filters \[6\]",
    ),
    "large chunks": (
        lambda f: f.create_dataset("a/b", (1 << 28, 2), "f4", chunks=(1 << 28, 2)),
        "a chunk of 2147483648 bytes",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_read_is_refused(tmp_path, what):
    write, reason = REFUSED[what]
    with pytest.raises(UnsupportedError, match=reason) as caught:
        open_virtual(Disk(), virtual(tmp_path, content(write)))
    assert caught.value.tensor == "a/b"


def test_a_process_ends_well_with_a_dataset_open(tmp_path):
    path = written(tmp_path, VALUES.astype(">f4"), **STORED["gzip"])
    program = (
        "import sys; from ckptkit.storage.virtual import open_virtual;"
        "from ckptkit.storage.disk import Disk, Sources;"
        f"kept = open_virtual(Disk(), {path!r}); kept.read(0, 8);"
        f"sources = Sources(); sources.file({path!r}).read(0, 8)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_process_ends_well_while_a_thread_holds_one_open(tmp_path):
    path = written(tmp_path, VALUES, chunks=(4, 3, 2))
    program = (
        "import threading\n"
        "from ckptkit.storage.virtual import open_virtual\n"
        "from ckptkit.storage.disk import Disk\n"
        f"kept = open_virtual(Disk(), {path!r})\n"
        "kept.read(0, 8)\n"
        "never = threading.Event()\n"
        "wait = lambda kept: never.wait()\n"
        "threading.Thread(target=wait, args=(kept,), daemon=True).start()\n"
        "del kept\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- filters -----------------------------------------------------------------------------------


@given(st.binary(max_size=400))
def test_fletcher32_is_that_of_the_library(data):
    values = np.frombuffer(data + b"x", np.uint8)
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        made = file.create_dataset("a", data=values, chunks=values.shape, fletcher32=True)
        _, stored = made.id.read_direct_chunk((0,))
    assert filters.fletcher32(memoryview(values)) == int.from_bytes(stored[-4:], "little")


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 300)), min_size=1),
    st.sampled_from([{"compression": "lzf"}, {"compression": "gzip"}]),
    st.sampled_from([1, 3, 4]),
)
def test_chunks_unfold_to_what_they_were(runs, options, item):
    data = b"".join(part * times for part, times in runs)
    values = np.frombuffer(data.ljust(-(-len(data) // item) * item, b"."), f"V{item}")
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        made = file.create_dataset("a", data=values, chunks=values.shape, shuffle=True, **options)
        skipped, stored = made.id.read_direct_chunk((0,))
        recipe = made.id.get_create_plist()
        numbers = [recipe.get_filter(at)[0] for at in range(recipe.get_nfilters())]
    found = filters.unfilter(stored, numbers, skipped, values.nbytes, item)
    assert found.tobytes() == values.tobytes()


@given(st.binary(max_size=200), st.integers(0, 300), st.sampled_from([1, 2, 3, 32000]))
def test_noise_unfolds_to_the_size_or_is_damage(data, size, number):
    try:
        found = filters.unfilter(data, [number], 0, size, 4)
    except CorruptError:
        return
    assert found.nbytes == size
