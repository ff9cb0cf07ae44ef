"""Files that ask for more memory or time than they are worth do not get it."""

from __future__ import annotations

import itertools
import os
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ckptkit
from ckptkit import _native
from ckptkit.engine.check import verify_path
from tests.hostile import forge
from tests.hostile.forge import STRING, VARIANT, assemble, body, handle, header, item, record
from tests.oracle import strings, table
from tests.oracle.crc import crc32c, mask
from tests.oracle.snappy import compress_runs
from tests.oracle.varint import put_varint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SLACK = 64 << 20
"""Bytes beyond the files' own that opening, reading and verifying them may take."""

THREADS = 40 << 20
"""Address space that the threads of a reader take by themselves."""

PROBE = """
import os, resource, sys
import numpy, ckptkit, ckptkit.engine.read
from ckptkit.engine.check import verify_path

path, slack = sys.argv[1], int(sys.argv[2])
with open("/proc/self/statm") as status:
    used = int(status.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + slack, used + slack))
try:
    with ckptkit.open(path) as checkpoint:
        for name in checkpoint:
            checkpoint[name].read()
except ckptkit.CkptError as error:
    print(type(error).__name__)
print(verify_path(path).ok)
"""


def bounded(path: str) -> list[str]:
    """Open, read and verify a checkpoint in a process that cannot have much memory."""
    folder = os.path.dirname(path)
    size = sum(entry.stat().st_size for entry in os.scandir(folder))
    result = subprocess.run(
        [sys.executable, "-c", PROBE, path, str(size + SLACK + THREADS)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def handle_bomb(folder: Path, size: int) -> str:
    sound = [body([item(0, *header()), item(0, b"w", record())])]
    return forge.write(folder, assemble(sound, listed=[handle(0, size)]), forge.PAYLOAD)


def prefix_bomb(folder: Path) -> str:
    """Return a checkpoint of 50 KiB whose keys, prefixes restored, would take 150 MiB."""
    first = item(0, b"k" * 20_000, b"")
    rest = [item(20_000, struct.pack(">H", n), b"") for n in range(8000)]
    return forge.write(folder, forge.one_block(first, *rest), forge.PAYLOAD)


def snappy_prefix_bomb(folder: Path) -> str:
    """Return the same in 40 KiB, where the keys would take 0.5 GiB."""
    first = item(0, b"k" * 60_000, b"")
    rest = [item(60_000, struct.pack(">H", n), b"") for n in range(9000)]
    packed = compress_runs(body([item(0, *header()), first, *rest]))
    return forge.write(folder, assemble([packed], kind=1), forge.PAYLOAD)


def snappy_claim(folder: Path) -> str:
    return forge.write(folder, assemble([put_varint((1 << 32) - 1) + b"\0" * 99], kind=1))


def string_bomb(folder: Path) -> str:
    payload = strings.header([8 << 30])[0]
    return forge.simple(folder, record(payload, [1], STRING, crc=0), payload)


def variant_bomb(folder: Path) -> str:
    size = 1 << 62
    payload = (
        put_varint(size) + struct.pack("<I", mask(crc32c(struct.pack("<Q", size)))) + b"\0" * 9
    )
    return forge.simple(folder, record(payload, [1], VARIANT, crc=0), payload)


def shape_bomb(folder: Path) -> str:
    return forge.simple(folder, record(dims=[1 << 50], size=1 << 52))


def count_bomb(folder: Path) -> str:
    return forge.simple(folder, record(dims=[1 << 61], dtype=STRING))


BOMBS: dict[str, Callable[[Path], str]] = {
    "handle of 16 GiB": lambda folder: handle_bomb(folder, 1 << 34),
    "handle of 4 EiB": lambda folder: handle_bomb(folder, 1 << 62),
    "keys": prefix_bomb,
    "compressed keys": snappy_prefix_bomb,
    "compressed claim": snappy_claim,
    "string": string_bomb,
    "variant": variant_bomb,
    "shape": shape_bomb,
    "strings": count_bomb,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bomb(tmp_path: Path, bomb: str) -> None:
    assert bounded(BOMBS[bomb](tmp_path)) == ["CorruptError", "False"]


def test_the_probe_lets_sound_checkpoints_through(tmp_path: Path) -> None:
    values = np.arange(1 << 20, dtype=np.float32)
    ckptkit.save(tmp_path / "model", {"w": values, "s": np.array([b"text"] * 100, object)})
    assert bounded(str(tmp_path / "model")) == ["True"]


def test_prefix_bomb_says_so(tmp_path: Path) -> None:
    forge.refused(prefix_bomb(tmp_path), ckptkit.CorruptError, "keys and values hold", "limit")


def test_long_names_are_no_bomb(tmp_path: Path) -> None:
    names = [f"{'outer/' * 50}{n:07d}" for n in range(280_000)]
    value = record(b"", [0])
    keys, key_ends = _native.names_encode(["", *names])
    first = header()[1]
    values = first + value * len(names)
    value_ends = np.concatenate([[0], np.arange(len(names)) + 1]) * len(value) + len(first)
    index = _native.table_encode(keys, key_ends, values, value_ends)
    assert len(keys) > len(index) + SLACK
    path = forge.write(tmp_path, index, b"values" * (4 << 20))
    assert [*ckptkit.open(path)] == names


def test_overlapping_tensors_are_read_once(tmp_path: Path) -> None:
    size, count = 1 << 20, 300
    data = np.random.default_rng(1).bytes(size)
    sums = [_native.crc32c(data[n : size - n]) for n in range(count)]
    items = [
        item(0, b"%06d" % n, record(b"", [size - 2 * n], 4, offset=n, size=size - 2 * n, crc=crc))
        for n, crc in enumerate(sums)
    ]
    path = forge.write(tmp_path, forge.one_block(*items), data)
    totals = set()
    verdict = verify_path(path, lambda done, total: totals.add(total))
    assert totals == {size}
    assert verdict.ok
    assert verdict.checked_bytes == sum(size - 2 * n for n in range(count))
    damaged = bytearray(data)
    damaged[5] ^= 1
    path = forge.write(tmp_path, forge.one_block(*items), bytes(damaged))
    errors = [p for p in verify_path(path).problems if p.severity == "error"]
    assert [p.tensor for p in errors] == [f"{n:06d}" for n in range(6)]


def test_many_slices_that_interlock(tmp_path: Path) -> None:
    """A staircase, in which sweeping along either axis keeps most slices in sight."""
    side = 1500
    slices = []
    for n in range(side):
        slices.append([(n, side - n), (n, 1)])
        if n:
            slices.append([(0, n), (n, 1)])
    from tests.oracle.ordered import slice_key

    parts = [
        (slice_key(b"w", extents), record(b"", [e[1] for e in extents], 4, size=extents[0][1]))
        for extents in slices
    ]
    whole = b"w", record(b"", [side, side], 4, crc=0, slices=slices)
    items = [item(0, *pair) for pair in sorted([*parts, whole])]
    path = forge.write(tmp_path, forge.one_block(*items), b"\0" * side)
    assert ckptkit.open(path)["w"].shape == (side, side)


def test_every_varint_in_a_footer_is_bounded(tmp_path: Path) -> None:
    sound = table.encode(list(forge.SOUND))
    for numbers in itertools.product([0, 1 << 31, (1 << 63) + 1, (1 << 64) - 1], repeat=2):
        index = sound[:-48] + forge.footer(handle(0, 8), handle(*numbers))
        forge.refused(forge.write(tmp_path, index), ckptkit.CorruptError)
