"""Index tables that break their own format."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

import ckptkit
from ckptkit import CorruptError
from ckptkit.engine.check import verify_path
from tests.hostile import forge
from tests.hostile.forge import assemble, body, handle, header, item, one_block, record, refused
from tests.oracle import table
from tests.oracle.snappy import compress_literal
from tests.oracle.varint import put_varint

if TYPE_CHECKING:
    from pathlib import Path

SOUND = table.encode(list(forge.SOUND))
ENTRY = item(0, b"w", record())


def write(folder: Path, index: bytes) -> str:
    return forge.write(folder, index, forge.PAYLOAD)


def test_the_forge_makes_sound_tables(tmp_path: Path) -> None:
    path = write(tmp_path, one_block(ENTRY))
    assert ckptkit.open(path)["w"].read().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert verify_path(path).problems == ()
    again = assemble([compress_literal(body([item(0, *header()), ENTRY]))], kind=1)
    assert ckptkit.open(write(tmp_path, again))["w"].read().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_wrong_magic(tmp_path: Path) -> None:
    path = write(tmp_path, SOUND[:-1] + b"\0")
    error = refused(path, CorruptError, "model.index", "57fb808b247547db", "57fb808b24754700")
    assert error.offset == len(SOUND) - 8


@pytest.mark.parametrize("length", [0, 1, 47])
def test_file_shorter_than_a_footer(tmp_path: Path, length: int) -> None:
    refused(write(tmp_path, SOUND[-length:] if length else b""), CorruptError, "48", str(length))


def test_index_cut_short(tmp_path: Path) -> None:
    refused(write(tmp_path, SOUND[: len(SOUND) - 20]), CorruptError, "cut short")


def test_data_block_checksum(tmp_path: Path) -> None:
    damaged = bytearray(SOUND)
    damaged[10] ^= 1
    error = refused(write(tmp_path, bytes(damaged)), CorruptError, "checksum", "stored", "computed")
    assert error.offset is not None


def test_index_block_checksum(tmp_path: Path) -> None:
    damaged = bytearray(SOUND)
    damaged[-50] ^= 1
    refused(write(tmp_path, bytes(damaged)), CorruptError, "checksum", "stored", "computed")


def test_metaindex_checksum_is_a_warning(tmp_path: Path) -> None:
    meta = bytearray(table.seal(body([])))
    meta[0] ^= 1
    path = write(tmp_path, assemble([body([item(0, *header()), ENTRY])], metaindex=bytes(meta)))
    forge.warned(path, "metaindex", "model.index", "checksum")


def test_footer_padding_is_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, assemble([body([item(0, *header()), ENTRY])], padding=b"x"))
    forge.warned(path, "padding", "model.index")


def test_gap_bytes_are_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, assemble([body([item(0, *header()), ENTRY])], gap=b"between"))
    forge.warned(path, "7 bytes", "model.index")


@pytest.mark.parametrize("size", [1 << 34, 1 << 62, (1 << 64) - 1])
def test_index_handle_beyond_the_file(tmp_path: Path, size: int) -> None:
    start = len(SOUND) - 48
    bad = SOUND[:start] + forge.footer(handle(0, 8), handle(10, size))
    error = refused(write(tmp_path, bad), CorruptError, "index block", str(size), str(start))
    assert error.offset == start


@pytest.mark.parametrize("size", [1 << 34, 1 << 62, (1 << 64) - 1])
def test_data_handle_beyond_the_file(tmp_path: Path, size: int) -> None:
    bad = assemble([body([item(0, *header()), ENTRY])], listed=[handle(0, size)])
    refused(write(tmp_path, bad), CorruptError, "data block", str(size))


def test_handle_offset_overflows(tmp_path: Path) -> None:
    bad = assemble([body([item(0, *header()), ENTRY])], listed=[handle((1 << 64) - 4, 8)])
    refused(write(tmp_path, bad), CorruptError, "data block", "passes")


def test_handle_does_not_decode(tmp_path: Path) -> None:
    bad = assemble([body([item(0, *header()), ENTRY])], listed=[b"\xff" * 11])
    refused(write(tmp_path, bad), CorruptError, "varint")


def test_varint_of_more_than_ten_bytes_in_the_footer(tmp_path: Path) -> None:
    bad = SOUND[:-48] + b"\xff" * 40 + struct.pack("<Q", table.MAGIC)
    refused(write(tmp_path, bad), CorruptError, "varint")


def test_block_type_unknown(tmp_path: Path) -> None:
    bad = assemble([body([item(0, *header()), ENTRY])], kind=2)
    refused(write(tmp_path, bad), CorruptError, "block type 2")


@pytest.mark.parametrize("count", [0, 1 << 20, (1 << 32) - 1])
def test_restart_count(tmp_path: Path, count: int) -> None:
    refused(
        write(tmp_path, one_block(ENTRY, count=count)), CorruptError, f"claims {count} restarts"
    )


def test_block_shorter_than_its_restart_count(tmp_path: Path) -> None:
    refused(write(tmp_path, assemble([b"ab"])), CorruptError, "shorter than 4 bytes")


@pytest.mark.parametrize(
    ("restarts", "message"),
    [
        ((0, 1 << 30), "beyond the entries"),
        ((0, 3), "where no entry starts"),
        ((5,), "where no entry starts"),
        ((0, 0), "where no entry starts"),
    ],
    ids=["out of range", "inside an entry", "first not 0", "twice"],
)
def test_restart_offset(tmp_path: Path, restarts: tuple[int, ...], message: str) -> None:
    refused(write(tmp_path, one_block(ENTRY, restarts=restarts)), CorruptError, "restart", message)


def test_restart_entry_shares_a_prefix(tmp_path: Path) -> None:
    first = item(0, *header())
    entries = [first, item(0, b"va", record()), item(1, b"w", record())]
    at = len(first) + len(entries[1])
    bad = assemble([body(entries, (0, at))])
    refused(write(tmp_path, bad), CorruptError, "restart 1 shares 1 bytes")


def test_entry_lengths_overflow_32_bits(tmp_path: Path) -> None:
    huge = put_varint(0) + put_varint((1 << 32) - 1) + put_varint((1 << 32) - 1) + b"w"
    refused(write(tmp_path, one_block(huge)), CorruptError, "key", str((1 << 32) - 1))


def test_entry_length_of_more_than_32_bits(tmp_path: Path) -> None:
    huge = put_varint(0) + put_varint(1 << 40) + put_varint(0) + b"w"
    refused(write(tmp_path, one_block(huge)), CorruptError, "32 bits")


def test_value_passes_the_block(tmp_path: Path) -> None:
    cut = put_varint(0) + put_varint(1) + put_varint(1000) + b"w"
    refused(write(tmp_path, one_block(cut)), CorruptError, "value", "1000")


def test_key_shares_more_than_there_is(tmp_path: Path) -> None:
    bad = one_block(item(3, b"w", record()))
    refused(write(tmp_path, bad), CorruptError, "shares 3 bytes with a key of 0")


def test_duplicate_keys(tmp_path: Path) -> None:
    refused(write(tmp_path, one_block(ENTRY, ENTRY)), CorruptError, "key is not greater")


def test_unsorted_keys(tmp_path: Path) -> None:
    bad = one_block(ENTRY, item(0, b"a", record()))
    refused(write(tmp_path, bad), CorruptError, "key is not greater")


def test_unsorted_blocks(tmp_path: Path) -> None:
    blocks = [body([item(0, *header()), ENTRY]), body([item(0, b"a", record())])]
    bad = assemble(blocks, separators=[b"w", b"x"])
    refused(write(tmp_path, bad), CorruptError, "not greater")


def test_separator_below_its_block(tmp_path: Path) -> None:
    bad = assemble([body([item(0, *header()), ENTRY])], separators=[b"a"])
    refused(write(tmp_path, bad), CorruptError, "separator")


def test_separator_not_below_the_next_block(tmp_path: Path) -> None:
    blocks = [body([item(0, *header())]), body([ENTRY])]
    refused(write(tmp_path, assemble(blocks, separators=[b"w", b"x"])), CorruptError, "separator")


def test_data_block_listed_twice(tmp_path: Path) -> None:
    first = body([item(0, *header()), ENTRY])
    bad = assemble([first, body([])], listed=[handle(0, len(first))] * 2)
    refused(write(tmp_path, bad), CorruptError, "starts before the block before ends")


def test_data_block_without_entries(tmp_path: Path) -> None:
    bad = assemble([body([item(0, *header()), ENTRY]), body([])])
    refused(write(tmp_path, bad), CorruptError, "no entry")


def test_snappy_garbage(tmp_path: Path) -> None:
    refused(write(tmp_path, assemble([b"\x40" + b"\xff" * 30], kind=1)), CorruptError, "snappy")


def test_snappy_claims_more_than_it_can_hold(tmp_path: Path) -> None:
    bad = assemble([put_varint((1 << 32) - 1) + b"\0" * 20], kind=1)
    refused(write(tmp_path, bad), CorruptError, "claims to hold 4294967295")


def test_two_parts_of_one_name_in_the_index_are_not_lost(tmp_path: Path) -> None:
    names = [f"layer/{n:03d}".encode() for n in range(40)]
    path = write(tmp_path, table.encode([header(), *((name, record()) for name in names)]))
    assert [*ckptkit.open(path)] == [name.decode() for name in names]
