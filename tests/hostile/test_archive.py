"""Archives of ``.keras`` files that break their format, or ask for what is not done."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ckptkit import CorruptError, UnsupportedError
from ckptkit.errors import FormatError
from ckptkit.formats.keras.archive import reader as reading
from ckptkit.formats.keras.archive.inflated import contents, inflate, read_text_member
from ckptkit.formats.keras.archive.reader import read_archive
from ckptkit.storage.disk import Disk
from tests.hostile.archives import FULL, SOUND, Forged, deflate, forge, wide, zip64

if TYPE_CHECKING:
    from pathlib import Path

    from ckptkit.formats.keras.archive.reader import Archive


def read(folder: Path, content: bytes) -> Archive:
    path = folder / "model.keras"
    path.write_bytes(content)
    with Disk().open(str(path)) as file:
        return read_archive(file)


def refused(folder: Path, content: bytes, error: type[FormatError], *parts: str) -> FormatError:
    """Require that an archive is refused, with the reason."""
    with pytest.raises(error) as caught:
        read(folder, content)
    assert type(caught.value) is error
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    assert caught.value.path == str(folder / "model.keras")
    return caught.value


def test_sound(tmp_path: Path) -> None:
    content = forge(SOUND, Forged(b"b"), comment=b"c")
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    assert [member.name for member in read(tmp_path, content).members] == ["config.json", "b"]


# --- the end -----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\5\6", b"x" * 100, forge(SOUND)[:-1]])
def test_no_end_record(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path, content, CorruptError, "no end record")


def test_end_record_far_from_the_end(tmp_path: Path) -> None:
    content = forge(SOUND) + bytes(70_000)
    refused(tmp_path, content, CorruptError, "no end record")


def test_bytes_after_the_end(tmp_path: Path) -> None:
    refused(tmp_path, forge(SOUND) + b"xy", CorruptError, "comment of 0 bytes, 2 bytes follow")


def test_comment_cut_short(tmp_path: Path) -> None:
    content = forge(SOUND, comment=b"abc")[:-1]
    refused(tmp_path, content, CorruptError, "comment of 3 bytes, 2 bytes follow")


def test_an_end_record_in_the_comment(tmp_path: Path) -> None:
    # The last one counts, as it does for zipfile; what it says has to hold.
    content = forge(SOUND, comment=forge())
    refused(tmp_path, content, CorruptError, "should end at")


@pytest.mark.parametrize("end", [{"disk": 1}, {"start": 1}, {"here": 0}])
def test_archives_of_several_files(tmp_path: Path, end: dict[str, int]) -> None:
    refused(tmp_path, forge(SOUND, **end), UnsupportedError, "one of several")


def test_member_in_another_file(tmp_path: Path) -> None:
    refused(tmp_path, forge(replace(SOUND, disk=3)), CorruptError, "member on disk 3")


@pytest.mark.parametrize(
    "end", [{"offset": 0}, {"offset": FULL}, {"length": FULL}, {"length": 0}, {"offset": 1 << 30}]
)
def test_directory_elsewhere(tmp_path: Path, end: dict[str, int]) -> None:
    refused(tmp_path, forge(SOUND, **end), CorruptError, "should end at")


def test_bytes_before_the_archive(tmp_path: Path) -> None:
    refused(tmp_path, b"#!/bin/sh\n" + forge(SOUND), CorruptError, "should end at")


def test_bytes_between_directory_and_end(tmp_path: Path) -> None:
    refused(tmp_path, forge(SOUND, before_end=b"?"), CorruptError, "should end at")


@pytest.mark.parametrize(
    ("count", "reason"),
    [(0, "57 bytes after the last of 0"), (2, "2 members need"), (0xFFFF, "65535 members need")],
)
def test_count_that_is_not_true(tmp_path: Path, count: int, reason: str) -> None:
    refused(tmp_path, forge(SOUND, count=count, here=count), CorruptError, reason)


def test_count_of_zip64_that_is_not_true(tmp_path: Path) -> None:
    start = len(SOUND.local())
    for count in (1 << 32, (1 << 64) - 1):
        ends = wide(57, start, start + 57, count)
        content = forge(SOUND, before_end=ends, count=0xFFFF, here=0xFFFF)
        refused(tmp_path, content, CorruptError, f"{count} members need")


def test_zip64(tmp_path: Path) -> None:
    start = len(SOUND.local())
    assert len(read(tmp_path, forge(SOUND, before_end=wide(57, start, start + 57))).members) == 1
    for ends, reason in (
        (wide(57, start, start + 56), "no zip64 end record"),
        (wide(57, start, 1 << 63), "no zip64 end record"),
        (wide(56, start, start + 57), "says 57 bytes"),
        (wide(57, start, start + 57, rest=45), "goes on for 45 bytes"),
        (wide(57, start, start + 57, count=2), "says 1 records"),
    ):
        refused(tmp_path, forge(SOUND, before_end=ends), CorruptError, reason)
    for disks in ({"disk": 1}, {"start": 1}, {"disks": 2}):
        ends = wide(57, start, start + 57, **disks)
        refused(tmp_path, forge(SOUND, before_end=ends), UnsupportedError, "one of several")


def test_directory_too_long_to_be_one(tmp_path: Path) -> None:
    length = reading.LARGEST_HEADERS + 1
    path = tmp_path / "model.keras"
    end = wide(length, 0, length) + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, length, 0, 0)
    with path.open("wb") as file:
        file.truncate(length)
        file.seek(length)
        file.write(end)
    with Disk().open(str(path)) as opened:
        with pytest.raises(UnsupportedError, match=f"directory has {length} bytes"):
            read_archive(opened)
        assert opened._disk.traffic.read < 100_000


def test_local_headers_too_long_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [replace(SOUND, name=b"%d" % n, there={"extra": bytes(1000)}) for n in range(10)]
    assert len(read(tmp_path, forge(*many)).members) == 10
    monkeypatch.setattr(reading, "LARGEST_HEADERS", 5000)
    refused(tmp_path, forge(*many), UnsupportedError, "'4'", "local headers of 5155 bytes")


# --- headers ---------------------------------------------------------------------------------


def test_no_record_where_one_should_be(tmp_path: Path) -> None:
    content = forge(SOUND).replace(b"PK\1\2", b"PK\1\3")
    refused(tmp_path, content, CorruptError, "starts with 504b0102, found 504b0103")


@pytest.mark.parametrize("header", [1, 42])
def test_no_local_header_where_one_should_be(tmp_path: Path, header: int) -> None:
    content = forge(Forged(b"a", bytes(100), header=header))
    error = refused(tmp_path, content, CorruptError, "'a'", "starts with 504b0304")
    assert error.offset == header


@pytest.mark.parametrize("header", [14, 1 << 20, FULL - 1])
def test_local_header_behind_the_members(tmp_path: Path, header: int) -> None:
    refused(tmp_path, forge(replace(SOUND, header=header)), CorruptError, "not before the central")


def test_local_header_that_runs_into_the_directory(tmp_path: Path) -> None:
    content = bytearray(forge(SOUND))
    content[28] = 200
    refused(tmp_path, bytes(content), CorruptError, "local header of 241 bytes at 0 runs into")


@pytest.mark.parametrize(
    ("there", "what"),
    [
        ({"name": b"config.jsoN"}, "its name is 'config.jsoN' in the local header"),
        ({"name": b"x"}, "its name is 'x'"),
        ({"name": b"config.json.x"}, "its name is 'config.json.x'"),
        ({"flags": 0x800}, "its flags is 2048"),
        ({"method": 8}, "its method is 8"),
        ({"crc": 0}, "its CRC-32 is 0"),
        ({"compressed": 1}, "its compressed size is 1"),
        ({"size": 3}, "its size is 3"),
        ({"flags": 8}, "its flags is 8"),
    ],
)
def test_headers_that_disagree(tmp_path: Path, there: dict[str, object], what: str) -> None:
    refused(tmp_path, forge(replace(SOUND, there=there)), CorruptError, what, "central directory")


def test_zip64_in_one_header_only(tmp_path: Path) -> None:
    local = {"size": FULL, "compressed": FULL, "extra": zip64(2, 2)}
    (member,) = read(tmp_path, forge(replace(SOUND, there=local))).members
    assert (member.size, member.header_length) == (2, 30 + 11 + 20)
    local["extra"] = zip64(3, 2)
    refused(tmp_path, forge(replace(SOUND, there=local)), CorruptError, "its size is 3")
    local["extra"] = zip64(2)
    refused(tmp_path, forge(replace(SOUND, there=local)), CorruptError, "needs 8 bytes")
    local["extra"] = b""
    refused(
        tmp_path, forge(replace(SOUND, there=local)), CorruptError, "zip64 extra, there is none"
    )
    local["extra"] = zip64(2, 2) * 2
    refused(tmp_path, forge(replace(SOUND, there=local)), CorruptError, "second zip64")


def test_zip64_sizes_beyond_the_file(tmp_path: Path) -> None:
    huge = (1 << 64) - 1
    member = replace(SOUND, size=FULL, compressed=FULL, extra=zip64(huge, huge))
    refused(tmp_path, forge(member), CorruptError, "run into the central directory")


def test_zip64_offset_beyond_the_file(tmp_path: Path) -> None:
    member = replace(SOUND, header=FULL, extra=zip64((1 << 64) - 1), there={"extra": b""})
    refused(tmp_path, forge(member), CorruptError, "not before the central directory")
    member = replace(member, extra=zip64(0))
    assert read(tmp_path, forge(member)).members[0].header_offset == 0


def test_extra_field_beyond_its_extra(tmp_path: Path) -> None:
    member = replace(SOUND, extra=b"\xfe\xca\5\0abcd")
    refused(tmp_path, forge(member), CorruptError, "extra field needs 5 bytes, 4 are left")


def test_extra_field_with_another_name(tmp_path: Path) -> None:
    unicode = struct.pack("<2HBI", 0x7075, 5 + 11, 1, zlib.crc32(b"config.json"))
    assert read(tmp_path, forge(replace(SOUND, extra=unicode + b"config.json"))).members
    member = replace(SOUND, extra=unicode + b"config.yaml")
    refused(tmp_path, forge(member), CorruptError, "another name")


def test_data_that_runs_into_the_directory(tmp_path: Path) -> None:
    member = replace(SOUND, size=3, compressed=3)
    refused(tmp_path, forge(member), CorruptError, "its 3 bytes from 41 on run into")


def test_stored_with_two_sizes(tmp_path: Path) -> None:
    refused(tmp_path, forge(replace(SOUND, size=1)), CorruptError, "1 bytes in 2")


def test_members_that_overlap(tmp_path: Path) -> None:
    inner = Forged(b"b", b"xyz")
    outer = Forged(b"a", inner.local())
    content = forge(outer, replace(inner, header=31), here=2, count=2)
    # The second copy of the inner member is left out.
    out = outer.local() + outer.record(0) + inner.record(31)
    length = len(outer.record(0) + inner.record(31))
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, length, len(outer.local()), 0)
    refused(tmp_path, out + end, CorruptError, "'b'", "within 'a', which ends at 65")
    refused(tmp_path, content, CorruptError, "'b'", "within 'a'")


def test_one_member_under_two_names(tmp_path: Path) -> None:
    content = forge(Forged(b"a"), Forged(b"a", header=0))
    refused(tmp_path, content, CorruptError, "starts at 0, within 'a'")


def test_names_that_are_there_twice(tmp_path: Path) -> None:
    content = forge(SOUND, Forged(b"b"), replace(SOUND, data=b"[]"))
    refused(tmp_path, content, CorruptError, "2 members have the name 'config.json'")


# --- what is not read ----------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [1, 0x41, 0x2000])
def test_encrypted(tmp_path: Path, flags: int) -> None:
    refused(tmp_path, forge(replace(SOUND, flags=flags)), UnsupportedError, "encrypted")


def test_patches(tmp_path: Path) -> None:
    refused(tmp_path, forge(replace(SOUND, flags=0x20)), UnsupportedError, "a patch")


@pytest.mark.parametrize("method", [1, 9, 12, 14, 93, 99])
def test_other_methods(tmp_path: Path, method: int) -> None:
    content = forge(replace(SOUND, method=method))
    refused(tmp_path, content, UnsupportedError, f"compression method {method}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"", "empty"),
        (b"/etc/passwd", "absolute"),
        (b"..", "'..'"),
        (b"../a", "'..'"),
        (b"a/../../b", "'..'"),
        (b"C:a", "drive"),
        (b"c:/a", "drive"),
        (b"a\\b", "backslash"),
        (b"..\\a", "backslash"),
        (b"a\0b", "NUL"),
    ],
)
def test_names_that_lead_elsewhere(tmp_path: Path, name: bytes, reason: str) -> None:
    refused(tmp_path, forge(SOUND, Forged(name)), UnsupportedError, reason, "relative paths")


@pytest.mark.parametrize("name", [b"a..b", b"...", b"assets/", b"1:2", b"a b", b"caf\xe9"])
def test_names_that_do_not(tmp_path: Path, name: bytes) -> None:
    (member,) = read(tmp_path, forge(Forged(name))).members
    assert member.name.encode("utf-8", "surrogateescape") == name


@pytest.mark.parametrize(
    ("mode", "reason"),
    [(0o120777, "symbolic link"), (0o010644, "neither a file"), (0o060644, "neither a file")],
)
def test_links_and_devices(tmp_path: Path, mode: int, reason: str) -> None:
    refused(tmp_path, forge(replace(SOUND, mode=mode)), UnsupportedError, reason)


def test_pickled_weights(tmp_path: Path) -> None:
    content = forge(SOUND, Forged(b"model.weights.npz"))
    refused(tmp_path, content, UnsupportedError, "pickled arrays", "Keras refuses")


# --- descriptors -----------------------------------------------------------------------------


def test_descriptors(tmp_path: Path) -> None:
    crc = zlib.crc32(b"{}")
    unknown = {"crc": 0, "size": 0, "compressed": 0}
    for after in (struct.pack("<3I", crc, 2, 2), b"PK\7\x08" + struct.pack("<IQQ", crc, 2, 2)):
        sound = replace(SOUND, flags=8, after=after, there=unknown)
        (member,) = read(tmp_path, forge(sound)).members
        assert member.end == member.data_offset + 2 + len(after)
        for bad in (b"", after[:-1], after.replace(b"\2", b"\3", 1), bytes(24)):
            content = forge(replace(sound, after=bad))
            refused(tmp_path, content, CorruptError, "no descriptor after the data")
        # What the local header does say has to be so.
        content = forge(replace(sound, there=unknown | {"size": 3}))
        refused(tmp_path, content, CorruptError, "its size is 3")
    # Nobody knows how much of the file is data if only the descriptor says it.
    content = forge(replace(SOUND, flags=8, after=after, size=0, compressed=0))
    refused(tmp_path, content, CorruptError, "no descriptor")


def test_a_member_within_the_descriptor_of_another(tmp_path: Path) -> None:
    after = struct.pack("<3I", zlib.crc32(b"{}"), 2, 2)
    first = replace(SOUND, flags=8, after=after)
    content = bytearray(forge(first, Forged(b"b")))
    place = content.rindex(b"PK\1\2") + 42
    content[place : place + 4] = (43).to_bytes(4, "little")
    refused(tmp_path, bytes(content), CorruptError, "'b'", "within 'config.json'", "ends at 55")


# --- contents ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "other", "reason"),
    [
        (b"{}", {"crc": 1}, "checksum mismatch: stored 00000001"),
        (deflate(b"{}"), {"method": 8, "size": 2, "crc": 1}, "checksum mismatch"),
        (deflate(b"{}"), {"method": 8, "size": 1}, "more than the 1 bytes"),
        (deflate(b"{}"), {"method": 8, "size": 3}, "inflates to 2 bytes, it should have 3"),
        (deflate(b"{}")[:-1], {"method": 8, "size": 2}, "bytes end before"),
        (b"", {"method": 8, "size": 2}, "bytes end before"),
        (deflate(b"{}") + b"xyz", {"method": 8, "size": 2}, "3 of its bytes come after"),
        (deflate(b"{}") + bytes(3 << 20), {"method": 8, "size": 2}, "3145728 of its bytes"),
        (b"\xff" * 9, {"method": 8, "size": 2}, "does not inflate: "),
        (deflate(bytes(50 << 20)), {"method": 8, "size": 1 << 20}, "more than the 1048576 bytes"),
        (deflate(bytes(3 << 20)), {"method": 8, "size": 5 << 20}, "inflates to 3145728 bytes"),
    ],
)
def test_contents_that_are_not_what_they_should_be(
    tmp_path: Path, data: bytes, other: dict[str, int], reason: str
) -> None:
    archive = read(tmp_path, forge(Forged(b"config.json", data, **other)))
    with Disk().open(str(tmp_path / "model.keras")) as file:
        for act in (read_text_member, inflate, lambda *both: list(contents(*both))):
            with pytest.raises(CorruptError, match=reason) as caught:
                act(file, archive.members[0])
            assert caught.value.offset == archive.members[0].data_offset


def test_text_of_more_bytes_than_text_has(tmp_path: Path) -> None:
    size = (256 << 20) + 1
    archive = read(tmp_path, forge(Forged(b"config.json", deflate(b"{}"), method=8, size=size)))
    reason = f"has {size} bytes; texts have at most"
    with (
        Disk().open(str(tmp_path / "model.keras")) as file,
        pytest.raises(UnsupportedError, match=reason),
    ):
        read_text_member(file, archive.members[0])


def test_bomb(tmp_path: Path) -> None:
    size = (4 << 30) + 1
    bomb = Forged(
        b"model.weights.h5",
        bytes(1000),
        method=8,
        size=FULL,
        compressed=FULL,
        extra=zip64(size, 1000),
    )
    archive = read(tmp_path, forge(bomb))
    reason = f"1000 bytes say that they inflate to {size}"
    with (
        Disk().open(str(tmp_path / "model.keras")) as file,
        pytest.raises(UnsupportedError, match=reason),
    ):
        inflate(file, archive.members[0])


# --- every byte ----------------------------------------------------------------------------------


def small() -> bytes:
    """Return a small archive with everything in it that headers can have."""
    members = (
        SOUND,
        Forged(b"metadata.json", deflate(b"ab"), method=8, size=2, crc=zlib.crc32(b"ab")),
        Forged(
            b"w",
            b"xy",
            flags=8,
            size=FULL,
            compressed=FULL,
            extra=zip64(2, 2),
            after=struct.pack("<IQQ", zlib.crc32(b"xy"), 2, 2),
        ),
    )
    offset = sum(len(member.local()) for member in members)
    length = sum(len(member.record(0)) for member in members)
    ends = wide(length, offset, offset + length, 3)
    return forge(*members, before_end=ends, comment=b"!")


def sound_or_refused(folder: Path, content: bytes) -> None:
    try:
        archive = read(folder, content)
    except FormatError:
        return
    with Disk().open(str(folder / "model.keras")) as file:
        for member in archive.members:
            assert member.data_offset + member.compressed <= member.end <= len(content)
            with suppress(FormatError):
                assert len(read_text_member(file, member)) == member.size


def test_every_byte_flipped(tmp_path: Path) -> None:
    content = small()
    assert len(read(tmp_path, content).members) == 3
    for at in range(len(content)):
        for bits in (0x01, 0x80, 0xFF):
            flipped = bytearray(content)
            flipped[at] ^= bits
            sound_or_refused(tmp_path, bytes(flipped))


def test_every_truncation(tmp_path: Path) -> None:
    content = small()
    for length in range(len(content)):
        refused(tmp_path, content[:length], CorruptError)
        sound_or_refused(tmp_path, content[length + 1 :])
