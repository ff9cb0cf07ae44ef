"""Strings and variants whose bytes do not hold what their shapes say."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

import ckptkit
from ckptkit import CorruptError, UnsupportedError
from ckptkit.engine.check import verify_path
from tests.hostile.forge import STRING, VARIANT, found, header, record, simple, write
from tests.oracle import strings, variants
from tests.oracle.crc import crc32c, mask
from tests.oracle.varint import put_varint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hostile.forge import Sequence

TEXTS = [b"one", b"", b"three"]
PAYLOAD, CRC = strings.encode(TEXTS)
MESSAGES = [b"first", b"", b"third"]
VARIANTS, VARIANTS_CRC = variants.encode(MESSAGES)


def text(folder: Path, payload: bytes, crc: int = CRC, dims: Sequence[int] = (3,)) -> str:
    return simple(folder, record(payload, dims, STRING, crc=crc), payload)


def variant(
    folder: Path, payload: bytes, crc: int = VARIANTS_CRC, dims: Sequence[int] = (3,)
) -> str:
    return simple(folder, record(payload, dims, VARIANT, crc=crc), payload)


def test_the_forge_makes_sound_payloads(tmp_path: Path) -> None:
    for path in (text(tmp_path, PAYLOAD), variant(tmp_path, VARIANTS)):
        assert len(ckptkit.open(path)["w"].read()) == 3
        assert verify_path(path).problems == ()


def lengths(numbers: Sequence[int], tail: bytes = b"") -> bytes:
    """Return a string payload with right checksums whose lengths are wrong."""
    return strings.header([*numbers])[0] + tail


@pytest.mark.parametrize("length", [4, 8 << 30, 1 << 62, (1 << 63) - 1])
def test_string_length_beyond_the_tensor(tmp_path: Path, length: int) -> None:
    found(text(tmp_path, lengths([length, 0, 1], b"abc")), CorruptError)


def test_string_length_of_64_bits(tmp_path: Path) -> None:
    found(text(tmp_path, put_varint((1 << 64) - 1) + PAYLOAD), CorruptError)


def test_string_length_of_more_than_ten_bytes(tmp_path: Path) -> None:
    found(text(tmp_path, b"\xff" * 11 + b"\0" * 20), CorruptError, "varint")


def test_string_length_not_minimal(tmp_path: Path) -> None:
    payload = b"\x83\x00" + PAYLOAD[1:]
    found(text(tmp_path, payload), CorruptError, "minimal")


def test_string_lengths_checksum(tmp_path: Path) -> None:
    payload = bytearray(PAYLOAD)
    payload[4] ^= 1
    found(text(tmp_path, bytes(payload)), CorruptError, "lengths", offset=3)


def test_string_bytes_checksum(tmp_path: Path) -> None:
    payload = bytearray(PAYLOAD)
    payload[-1] ^= 1
    problem = found(text(tmp_path, bytes(payload)), CorruptError, "expected", "found", offset=0)
    assert f"bytes 0 to {len(PAYLOAD)}: expected {CRC:08x}" in problem.message


def test_string_size_too_small(tmp_path: Path) -> None:
    value = record(PAYLOAD[:-1], [3], STRING, crc=CRC)
    found(simple(tmp_path, value, PAYLOAD), CorruptError)


def test_string_size_too_large(tmp_path: Path) -> None:
    payload = PAYLOAD + b"x"
    found(text(tmp_path, payload, crc32c(b"x", CRC)), CorruptError)


def test_string_lengths_cut_by_the_end(tmp_path: Path) -> None:
    found(text(tmp_path, b"\x03\x00\x85" + b"\x80" * 6), CorruptError)


def test_string_lengths_that_add_up_to_2_to_63(tmp_path: Path) -> None:
    found(text(tmp_path, lengths([1 << 62, 1 << 62, 1 << 62])), CorruptError)


def test_string_lengths_of_a_big_endian_machine(tmp_path: Path) -> None:
    payload, crc = strings.encode(TEXTS, big_endian=True)
    records = [header(endianness=1), (b"w", record(payload, [3], STRING, crc=crc))]
    path = write(tmp_path, records, payload)
    assert ckptkit.open(path)["w"].read().tolist() == TEXTS
    assert verify_path(path).problems == ()
    found(write(tmp_path, [header(), records[1]], payload), CorruptError, "lengths", offset=3)


def test_no_strings_but_bytes(tmp_path: Path) -> None:
    payload = strings.encode([])[0] + b"x"
    found(text(tmp_path, payload, dims=[0]), CorruptError)


@pytest.mark.parametrize("length", [6, 1 << 34, 1 << 62, (1 << 64) - 1])
def test_variant_length_beyond_the_tensor(tmp_path: Path, length: int) -> None:
    crc = crc32c(struct.pack("<Q", length) + b"first")
    payload = put_varint(length) + b"first" + struct.pack("<I", mask(crc)) + b"\0" * 10
    found(variant(tmp_path, payload), CorruptError)


def test_variant_length_of_more_than_ten_bytes(tmp_path: Path) -> None:
    found(variant(tmp_path, b"\xff" * 11 + b"\0" * 20), CorruptError)


def test_variant_length_not_minimal(tmp_path: Path) -> None:
    found(variant(tmp_path, b"\x85\x00" + VARIANTS[1:]), CorruptError, "minimal")


def test_variant_running_checksum(tmp_path: Path) -> None:
    payload = bytearray(VARIANTS)
    payload[6] ^= 1
    found(variant(tmp_path, bytes(payload)), CorruptError, "variant", offset=6)


def test_variant_checksum_of_the_record(tmp_path: Path) -> None:
    path = variant(tmp_path, VARIANTS, VARIANTS_CRC ^ 1)
    found(path, CorruptError, "checksum of bytes 0 to", offset=0)


def test_variants_cut_short(tmp_path: Path) -> None:
    found(variant(tmp_path, VARIANTS[:-2]), CorruptError)


def test_bytes_after_the_last_variant(tmp_path: Path) -> None:
    found(variant(tmp_path, VARIANTS + b"\0"), CorruptError)


def test_variants_of_a_big_endian_machine(tmp_path: Path) -> None:
    value = record(VARIANTS, [3], VARIANT, crc=VARIANTS_CRC)
    path = write(tmp_path, [header(endianness=1), (b"w", value)], VARIANTS)
    with pytest.raises(UnsupportedError, match="big-endian") as caught:
        ckptkit.open(path)["w"].read()
    assert caught.value.tensor == "w"
    (problem,) = verify_path(path).problems
    assert "big-endian" in problem.message
    assert problem.severity == "warning"
