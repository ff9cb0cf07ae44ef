"""Checksums over many tensors: noted on the way, or read where nothing was noted."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ckptkit.engine.spans import Noted
from ckptkit.storage.disk import Disk

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "file").write_bytes(CONTENT)
    return str(tmp_path / "file")


def found(noted: Noted, path: str, start: int, end: int) -> int:
    """Return the sum, and see that it is right, and how many bytes were read for it."""
    before = noted.disk.traffic.read
    assert noted.sum_range(path, start, end - start) == zlib.crc32(CONTENT[start:end])
    return noted.disk.traffic.read - before


def test_what_was_read_in_parts_is_not_read_again(path: str) -> None:
    noted = Noted(Disk(), [path])
    for start, end in ((300, 500), (100, 300), (500, 510)):
        noted.file(path).read_into(bytearray(end - start), start)
    assert found(noted, path, 100, 510) == 0
    assert found(noted, path, 300, 510) == 0
    assert found(noted, path, 400, 400) == 0


@pytest.mark.parametrize(("start", "end"), [(99, 510), (100, 511), (100, 400), (200, 510)])
def test_what_the_parts_do_not_cover_is_read(path: str, start: int, end: int) -> None:
    noted = Noted(Disk(), [path])
    for at in (100, 300):
        noted.file(path).read(at, 200)
    noted.file(path).read(500, 10)
    assert found(noted, path, start, end) == end - start


def test_of_other_files_nothing_is_noted(path: str) -> None:
    noted = Noted(Disk(), [])
    noted.file(path).read(0, 100)
    assert found(noted, path, 0, 100) == 100


def test_what_is_written_counts_as_it_is_afterwards(tmp_path: Path, path: str) -> None:
    target = tmp_path / "new"
    target.write_bytes(bytes(len(CONTENT)))
    noted = Noted(Disk(), [str(target)], writable=True)
    file = noted.file(str(target))
    # What is read may be written over later.
    file.read(0, 1000)
    file.write(np.frombuffer(CONTENT, np.float32)[:250], 0)
    file.write(CONTENT[:50], 1000)
    file.write(CONTENT[1000:1100], 1000)
    assert found(noted, str(target), 0, 1100) == 0
    file.write_runs(100, [1100], CONTENT[1100:1200])
    assert found(noted, str(target), 0, 1200) == 1200
