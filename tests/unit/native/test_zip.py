"""Headers of zip archives: what decodes agrees with zipfile, nothing else is decoded."""

from __future__ import annotations

import io
import struct
import zipfile
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import _native

names = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0/"), min_size=1, max_size=20
)
entries = st.dictionaries(names, st.binary(max_size=100), max_size=4)
# zipfile takes the mark of an end record within a comment for one.
comments = st.binary(max_size=30).filter(lambda comment: b"PK\5\6" not in comment)


def pack(named: dict[str, bytes], limit: int = (1 << 31) - 1, comment: bytes = b"") -> bytes:
    """Return an archive that uses zip64 above a limit."""
    out = io.BytesIO()
    with (
        mock.patch.object(zipfile, "ZIP64_LIMIT", limit),
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if limit >> 20 else 0) as archive,
    ):
        archive.comment = comment
        for name, content in named.items():
            archive.writestr(name, content)
    return out.getvalue()


@given(entries, st.sampled_from([(1 << 31) - 1, 0, 60]), comments)
def test_headers_agree_with_zipfile(named: dict[str, bytes], limit: int, comment: bytes) -> None:
    content = pack(named, limit, comment)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos, start, said = archive.infolist(), archive.start_dir, archive.comment
    count, offset, length, whole, found = _native.zip_end(content, len(content))
    assert (count, offset, whole, found) == (len(named), start, True, said)

    records = _native.zip_directory(content[offset : offset + length], count)
    assert sum(record[-1] for record in records) == length
    for info, record in zip(infos, records, strict=True):
        year, month, day, hour, minute, second = info.date_time
        date, time = (year - 1980) << 9 | month << 5 | day, hour << 11 | minute << 5 | second // 2
        same = (info.flag_bits, info.compress_type, date << 16 | time, info.CRC)
        sizes = (info.compress_size, info.file_size)
        flag = "utf-8" if info.flag_bits & 0x800 else "cp437"
        assert record[0].decode(flag) == info.orig_filename
        assert record[1] == info.create_system << 8 | info.create_version
        assert record[2] == info.extract_version
        assert record[3:9] == same + sizes
        assert record[9:11] == (info.external_attr, info.header_offset)

        local = _native.zip_local(content[info.header_offset :])
        assert local[0] == record[0]
        assert local[2:8] == record[3:9]
        wide = info.file_size * 1.05 > limit
        assert local[9] is wide
        assert local[8] == 30 + len(local[0]) + (20 if wide else 0)


@given(entries, st.sampled_from([(1 << 31) - 1, 0]), st.data())
def test_mutated_headers_decode_within_bounds_or_not(
    named: dict[str, bytes], limit: int, data: st.DataObject
) -> None:
    content = bytearray(pack(named, limit))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    size = len(content)
    try:
        count, offset, length, _, _ = _native.zip_end(content, size)
    except _native.DecodeError as error:
        assert 0 <= error.offset <= size
    else:
        assert count * 46 <= length
        assert offset + length <= size - 22
        try:
            records = _native.zip_directory(content[offset : offset + length], count)
        except _native.DecodeError as error:
            assert 0 <= error.offset <= length
        else:
            assert sum(record[-1] for record in records) == length
    try:
        found = _native.zip_local(content)
    except _native.DecodeError as error:
        assert 0 <= error.offset <= size
    else:
        assert 30 + len(found[0]) <= found[8] <= size


@given(st.binary(max_size=100), st.integers(0, 1 << 63))
def test_any_bytes(data: bytes, number: int) -> None:
    for decode in (
        lambda: _native.zip_end(data, len(data)),
        lambda: _native.zip_directory(data, number or 1),
        lambda: _native.zip_local(data),
        lambda: _native.zip_descriptor(data, 0x504B0304, number, number),
    ):
        with pytest.raises(_native.DecodeError):
            decode()


def test_a_tail_longer_than_its_file() -> None:
    with pytest.raises(ValueError, match="tail of 30 bytes of a file of 22"):
        _native.zip_end(bytes(30), 22)


def test_numbers_that_no_field_holds() -> None:
    with pytest.raises(OverflowError):
        _native.zip_directory(b"", -1)
    with pytest.raises(OverflowError):
        _native.zip_descriptor(b"", 1 << 32, 0, 0)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("mark", [b"", b"PK\7\x08"])
def test_descriptors(mark: bytes, wide: bool) -> None:
    stored = mark + struct.pack("<IQQ" if wide else "<III", 1, 2, 3)

    assert _native.zip_descriptor(stored + b"PK\1\2", 1, 2, 3) == (len(mark), len(stored))
    with pytest.raises(_native.DecodeError, match="CRC-32 00000001, 2 bytes and 4 bytes"):
        _native.zip_descriptor(stored, 1, 2, 4)
