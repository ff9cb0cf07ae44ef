"""Genuine tensors above 4 GiB, in files that are mostly holes and take no room."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

import ckptkit
from ckptkit import _native
from ckptkit.cli import main
from ckptkit.formats.keras.archive.layout import Part, headers, lay_out
from tests.hostile.models import BIAS, KERNEL, config, dumped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HUGE = 5 << 28
"""Elements of a tensor of 5 GiB."""


def huge(path: Path) -> Path:
    """Write a file with such a tensor, of which nothing but metadata takes room."""
    with h5py.File(path, "w") as file:
        recipe = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        recipe.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        recipe.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        group = file.create_group("layers/dense/vars")
        group.attrs["name"] = "head"
        space = h5py.h5s.create_simple((HUGE // 1024, 1024))
        h5py.h5d.create(group.id, b"0", h5py.h5t.IEEE_F32LE, space, recipe)
        file[BIAS] = np.ones(2, np.float32)
    return path


def zeros(count: int) -> int:
    """Return the CRC-32 of so many zeros, without having them."""
    total, power, length = 0, _native.crc32(b"\0"), 1
    while count:
        if count & 1:
            total = _native.crc32_combine(total, power, length)
        power, length, count = _native.crc32_combine(power, power, length), 2 * length, count >> 1
    return total


def joined(*parts: tuple[int, int]) -> int:
    """Return the CRC-32 of parts of which sums and lengths are known."""
    total = 0
    for found, length in parts:
        total = _native.crc32_combine(total, found, length)
    return total


def huge_archive(path: Path) -> Path:
    """Write such a file into an archive, with the checksum that it has."""
    inner = huge(path.with_name("inner.h5"))
    size = inner.stat().st_size
    with h5py.File(inner) as file:
        start, nbytes = file[KERNEL].id.get_offset(), file[KERNEL].nbytes
    raw = np.memmap(inner, np.uint8, "r")
    before, after = bytes(raw[:start]), bytes(raw[start + nbytes :])
    crc = joined(
        (_native.crc32(before), len(before)),
        (zeros(nbytes), nbytes),
        (_native.crc32(after), len(after)),
    )
    text = dumped(config()).encode()
    parts = [Part("config.json", len(text)), Part("model.weights.h5", size)]
    layout = lay_out(parts)
    with open(path, "wb") as out:
        out.truncate(layout.end)
        for offset, content in headers(layout, [_native.crc32(text), crc]):
            out.seek(offset)
            out.write(content)
        place = layout.places
        for offset, content in (
            (place[0].data_offset, text),
            (place[1].data_offset, before),
            (place[1].data_offset + start + nbytes, after),
        ):
            out.seek(offset)
            out.write(content)
    inner.unlink()
    return path


@pytest.mark.parametrize(
    ("name", "make"),
    [("m.weights.h5", huge), ("m.keras", huge_archive)],
    ids=["weights", "archive"],
)
def test_tensors_above_4_gib(
    tmp_path: Path, name: str, make: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path / name)
    size, row = path.stat().st_size, HUGE // 1024 - 1
    assert size > 5 << 30
    assert main(["ls", str(path)]) == 0
    assert "5.0 GiB" in capsys.readouterr().out
    target = f"layer:head/kernel[{row}, 1023]"
    line = [
        "edit",
        str(path),
        "--in-place",
        "-q",
        "-e",
        f"{target} = 2.5",
        "-e",
        "layer:head/bias = 3",
    ]
    assert main(line) == 0
    assert path.stat().st_size == size
    with ckptkit.open(path) as found:
        np.testing.assert_array_equal(found[KERNEL][row, 1020:], np.float32([0, 0, 0, 2.5]))
        np.testing.assert_array_equal(found[BIAS].read(), np.float32([3, 3]))
    assert path.stat().st_blocks * 512 < 16 << 20
    if name.endswith(".keras"):
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo("model.weights.h5")
        with ckptkit.open(path) as found:
            kernel = found.catalog[KERNEL].source.pieces[0].extent
            data = member.header_offset + 30 + len(member.filename) + 20
        with open(path, "rb") as file:
            file.seek(data)
            before = file.read(kernel.offset - data)
            file.seek(kernel.offset + kernel.length)
            after = file.read(data + member.file_size - kernel.offset - kernel.length)
        last = np.float32(2.5).tobytes()
        assert (
            joined(
                (_native.crc32(before), len(before)),
                (zeros(kernel.length - 4), kernel.length - 4),
                (_native.crc32(last), len(last)),
                (_native.crc32(after), len(after)),
            )
            == member.CRC
        )
