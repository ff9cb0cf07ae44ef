"""Headers: shard counts, versions, byte orders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import ckptkit
from ckptkit import CorruptError, EditError, UnsupportedError
from ckptkit.engine.check import verify_path
from tests.hostile.forge import PAYLOAD, SOUND, header, record, refused, warned, write
from tests.oracle import table
from tests.oracle.varint import put_number

if TYPE_CHECKING:
    from pathlib import Path

    from ckptkit.placement import Way

W = SOUND[1]


def test_no_header(tmp_path: Path) -> None:
    refused(write(tmp_path, [W], PAYLOAD), CorruptError, "no header")


def test_empty_table(tmp_path: Path) -> None:
    refused(write(tmp_path, table.encode([])), CorruptError, "no header")


def test_header_does_not_decode(tmp_path: Path) -> None:
    refused(write(tmp_path, [(b"", b"\xff"), W], PAYLOAD), CorruptError, "header does not decode")


def test_header_field_of_the_wrong_type(tmp_path: Path) -> None:
    refused(write(tmp_path, [(b"", b"\x0a\x01a"), W], PAYLOAD), CorruptError, "header")


@pytest.mark.parametrize("shards", [0, -1, -(1 << 31)])
def test_too_few_shards(tmp_path: Path, shards: int) -> None:
    path = write(tmp_path, [header(shards), W], PAYLOAD)
    refused(path, CorruptError, f"says {shards} shards", "at least 1")


def test_too_many_shards(tmp_path: Path) -> None:
    path = write(tmp_path, [header((1 << 31) - 1), W], PAYLOAD)
    refused(path, CorruptError, "shard 0 of 2147483647 is missing", "'w'", file=".data-00000-of-")


def test_shard_count_beyond_32_bits(tmp_path: Path) -> None:
    refused(write(tmp_path, [header(1 << 40), W], PAYLOAD), CorruptError, "header")


def test_shard_number_not_below_the_count(tmp_path: Path) -> None:
    path = write(tmp_path, [header(), (b"w", record(shard=1))], PAYLOAD)
    refused(path, CorruptError, "shard 1", "1 shards", tensor="w")


def test_unreferenced_shards_may_be_missing(tmp_path: Path) -> None:
    path = write(tmp_path, [header((1 << 31) - 1)], b"")
    assert len(ckptkit.open(path)) == 0
    warned(path, "shard 0 of 2147483647 is missing")


def test_negative_version(tmp_path: Path) -> None:
    path = write(tmp_path, [header(version=put_number(1, -1)), W], PAYLOAD)
    refused(path, CorruptError, "version -1")


def test_version_for_later_readers(tmp_path: Path) -> None:
    path = write(tmp_path, [header(version=put_number(2, 2)), W], PAYLOAD)
    refused(path, UnsupportedError, "version 2 or later")


@pytest.mark.parametrize("bad", [put_number(3, 1), b"\x1a\x02\x05\x01"], ids=["plain", "packed"])
def test_version_that_excludes_this_reader(tmp_path: Path, bad: bytes) -> None:
    refused(write(tmp_path, [header(version=bad), W], PAYLOAD), UnsupportedError, "not of")


@pytest.mark.parametrize("version", [b"", put_number(1, 99), put_number(3, 2)])
def test_versions_that_are_fine(tmp_path: Path, version: bytes) -> None:
    path = write(tmp_path, [header(version=version), W], PAYLOAD)
    assert verify_path(path).problems == ()


def test_unknown_endianness_is_little(tmp_path: Path) -> None:
    path = write(tmp_path, [header(endianness=7), W], PAYLOAD)
    assert ckptkit.open(path)["w"].read()[1, 2] == 5
    assert verify_path(path).ok


def test_big_endian_data_is_swapped(tmp_path: Path) -> None:
    payload = np.arange(6, dtype=">f4").tobytes()
    path = write(tmp_path, [header(endianness=1), (b"w", record(payload))], payload)
    assert ckptkit.open(path)["w"].read().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert verify_path(path).problems == ()


@pytest.mark.parametrize("how", ["append", "patch"])
def test_shards_that_are_only_claimed_take_no_memory_in_place(tmp_path: Path, how: Way) -> None:
    claimed = (1 << 31) - 1
    (tmp_path / "model.index").write_bytes(table.encode([header(claimed), (b"w", record())]))
    (tmp_path / f"model.data-00000-of-{claimed}").write_bytes(PAYLOAD)
    with ckptkit.open(tmp_path / "model") as found:
        draft = found.edit("w *= 2")
        with pytest.raises(EditError, match="2,147,483,647 shards, of which 1 are there"):
            draft.plan(how=how)
        draft.plan(tmp_path / "copy").run()
    with ckptkit.open(tmp_path / "copy") as found:
        assert found["w"].read().tolist() == (2 * np.arange(6.0).reshape(2, 3)).tolist()
