"""Archives of ``.keras`` files: what is read agrees with zipfile, what is laid out equals it."""

from __future__ import annotations

import gc
import io
import os
import random
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import CorruptError, UnsupportedError, _native
from ckptkit.formats.keras.archive import inflated, layout
from ckptkit.formats.keras.archive.inflated import contents, inflate, read_text_member
from ckptkit.formats.keras.archive.layout import Part, headers, lay_out
from ckptkit.formats.keras.archive.reader import ENDS, crc_places, read_archive
from ckptkit.storage.disk import Disk

if TYPE_CHECKING:
    from pathlib import Path

    from ckptkit.formats.keras.archive.reader import Archive

Made = list[tuple[zipfile.ZipInfo, bytes]]

FIRST = (1980, 1, 1, 0, 0, 0)

names = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\\/:."), min_size=1
).filter(lambda name: len(name.encode()) < 300)
extras = st.lists(
    st.tuples(st.sampled_from([0x5455, 0x7875, 0xCAFE]), st.binary(max_size=20)), max_size=2
).map(lambda fields: b"".join(struct.pack("<2H", i, len(c)) + c for i, c in fields))
# zipfile takes the mark of an end record within a comment for one.
comments = st.binary(max_size=50).filter(lambda comment: b"PK\5\6" not in comment)


@st.composite
def members(draw: st.DrawFn) -> Made:
    made = []
    for name in draw(st.lists(names, max_size=5, unique=True)):
        year = draw(st.integers(1980, 2107))
        info = zipfile.ZipInfo(
            name, (year, *draw(st.sampled_from([FIRST[1:], (12, 31, 23, 59, 58)])))
        )
        info.compress_type = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
        info.external_attr = draw(st.sampled_from([0o600, 0o100644, 0o40755])) << 16 | 0x20
        info.comment = draw(st.binary(max_size=20))
        info.extra = draw(extras)
        info.internal_attr = draw(st.integers(0, 1))
        made.append((info, draw(st.binary(max_size=2000))))
    return made


def pack(made: Made, comment: bytes = b"", *, seekable: bool = True) -> bytes:
    """Return the archive that zipfile makes; without descriptors if it can seek."""
    out = io.BytesIO() if seekable else _Stream()
    with zipfile.ZipFile(out, "w") as archive:
        archive.comment = comment
        for info, content in made:
            archive.writestr(info, content, info.compress_type)
    return out.getvalue()


class _Stream(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise OSError

    def seek(self, *place: int) -> int:
        raise OSError


def opened(folder: Path, content: bytes) -> tuple[Archive, str]:
    path = str(folder / f"{zlib.crc32(content)}.zip")
    with open(path, "wb") as file:
        file.write(content)
    with Disk().open(path) as file:
        return read_archive(file), path


def written(folder: Path, parts: list[Part], pieces: list[bytes], comment: bytes = b"") -> bytes:
    """Return the bytes of an archive that was laid out."""
    plan = lay_out(parts, comment)
    out = bytearray(plan.end)
    for place, piece in zip(plan.places, pieces, strict=True):
        out[place.data_offset : place.end] = piece
    for offset, header in headers(plan, [zlib.crc32(piece) for piece in pieces]):
        out[offset : offset + len(header)] = header
    assert len(out) == plan.end
    return bytes(out)


def agree(archive: Archive, path: str) -> None:
    """Require that zipfile finds the same."""
    with zipfile.ZipFile(path) as twin:
        infos = twin.infolist()
        assert archive.comment == twin.comment
        assert archive.directory_offset == twin.start_dir
    assert len(archive.members) == len(infos)
    for member, info in zip(archive.members, infos, strict=True):
        assert member.name == info.filename
        assert (member.method, member.flags) == (info.compress_type, info.flag_bits)
        assert (member.crc32, member.size) == (info.CRC, info.file_size)
        assert (member.compressed, member.header_offset) == (info.compress_size, info.header_offset)
        assert member.data_offset == member.header_offset + member.header_length
        assert len(member.local) == member.header_length
        assert len(member.record) == member.record_length
    assert archive.end == os.path.getsize(path)


@given(made=members(), comment=comments, seekable=st.booleans())
def test_what_is_read_agrees_with_zipfile(
    tmp_path_factory: pytest.TempPathFactory, made: Made, comment: bytes, seekable: bool
) -> None:
    content = pack(made, comment, seekable=seekable)
    archive, path = opened(tmp_path_factory.getbasetemp(), content)
    agree(archive, path)
    with Disk().open(path) as file:
        for member, (_, text) in zip(archive.members, made, strict=True):
            assert read_text_member(file, member) == text
            assert (member.descriptor >= 0) is (member.flags >> 3 & 1 == 1)
            for place in crc_places(member):
                assert content[place : place + 4] == member.crc32.to_bytes(4, "little")
    os.unlink(path)


def test_patched_checksums_are_those_that_zipfile_reads(tmp_path: Path) -> None:
    for seekable in (True, False):
        content = bytearray(pack([(zipfile.ZipInfo("a"), b"abc")], seekable=seekable))
        (member,) = opened(tmp_path, bytes(content))[0].members
        content[member.data_offset : member.data_offset + 3] = b"xyz"
        for place in crc_places(member):
            content[place : place + 4] = zlib.crc32(b"xyz").to_bytes(4, "little")
        assert zipfile.ZipFile(io.BytesIO(bytes(content))).read("a") == b"xyz"
        archive, path = opened(tmp_path, bytes(content))
        with Disk().open(path) as file:
            assert read_text_member(file, archive.members[0]) == b"xyz"


def test_member_by_name(tmp_path: Path) -> None:
    archive, _ = opened(tmp_path, pack([(zipfile.ZipInfo("a"), b""), (zipfile.ZipInfo("b"), b"2")]))

    assert archive.member("b") == archive.members[1]
    assert archive.member("c") is None


def test_names_in_an_old_code_page_are_kept_as_bytes(tmp_path: Path) -> None:
    content = pack([(zipfile.ZipInfo("ab"), b"")]).replace(b"ab", b"\xff\x82")
    (member,) = opened(tmp_path, content)[0].members

    assert member.name == "\udcff\udc82"
    assert written(tmp_path, [Part(member.name, 0, like=member)], [b""]) == content


def test_gaps_between_members_are_no_fault(tmp_path: Path) -> None:
    made = [(zipfile.ZipInfo("a", FIRST), b"1"), (zipfile.ZipInfo("b", FIRST), b"2")]
    content = bytearray(pack(made))
    with zipfile.ZipFile(io.BytesIO(content)) as twin:
        second, start = twin.infolist()[1].header_offset, twin.start_dir
    content[start:start] = content[second:start]
    moved = content.rindex(b"PK\1\2")
    content[moved + 42 : moved + 46] = start.to_bytes(4, "little")
    content[-6:-2] = (start + start - second).to_bytes(4, "little")
    archive, path = opened(tmp_path, bytes(content))

    agree(archive, path)


# --- layout ------------------------------------------------------------------------------------


@given(
    made=members(),
    comment=comments,
    limit=st.sampled_from([(1 << 31) - 1, 0, 100, 1000, 2000]),
)
def test_laid_out_equals_zipfile(
    tmp_path_factory: pytest.TempPathFactory, made: Made, comment: bytes, limit: int
) -> None:
    # zip64 starts where zipfile starts it, wherever that is.
    for info, _ in made:
        info.compress_type = zipfile.ZIP_STORED
    with (
        mock.patch.object(zipfile, "ZIP64_LIMIT", limit),
        mock.patch.object(layout, "NARROW", limit),
    ):
        content = pack(made, comment)
        archive, path = opened(tmp_path_factory.getbasetemp(), content)
        os.unlink(path)
        old = archive.members
        pieces = [piece for _, piece in made]
        parts = [Part(one.name, one.size, like=one) for one in old]
        assert written(tmp_path_factory.getbasetemp(), parts, pieces, comment) == content

        # Other contents, in another order: as zipfile writes them with the same facts.
        changed = [(info, piece + piece[:50]) for info, piece in reversed(made)]
        parts = [
            Part(info.filename, len(piece), like=one)
            for (info, piece), one in zip(changed, reversed(old), strict=True)
        ]
        found = written(tmp_path_factory.getbasetemp(), parts, [piece for _, piece in changed])
        fresh = [(_again(info), piece) for info, piece in changed]
        wide = [len(a[1]) * 1.05 > limit for a in made]
        if wide == [len(a[1]) * 1.05 > limit for a in reversed(changed)]:
            assert found == pack(fresh)


def _again(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    fresh = zipfile.ZipInfo(info.filename, info.date_time)
    for name in ("external_attr", "internal_attr", "comment", "extra"):
        setattr(fresh, name, getattr(info, name))
    return fresh


@given(named=st.dictionaries(names, st.binary(max_size=500), max_size=5))
def test_new_members_are_those_that_keras_writes(
    tmp_path_factory: pytest.TempPathFactory, named: dict[str, bytes]
) -> None:
    made = [(zipfile.ZipInfo(name, FIRST), content) for name, content in named.items()]
    parts = [Part(name, len(content)) for name, content in named.items()]

    found = written(tmp_path_factory.getbasetemp(), parts, [*named.values()])
    assert found == pack(made)


@given(made=members(), seekable=st.booleans(), data=st.data())
def test_what_is_laid_out_reads_back(
    tmp_path_factory: pytest.TempPathFactory, made: Made, seekable: bool, data: st.DataObject
) -> None:
    # From deflated members, and from those with descriptors, with other names and sizes.
    archive, path = opened(tmp_path_factory.getbasetemp(), pack(made, seekable=seekable))
    os.unlink(path)
    renamed = data.draw(st.booleans())
    parts = [
        Part(f"{member.name}é" if renamed else member.name, size, like=member)
        for member in archive.members
        for size in [data.draw(st.integers(0, 500))]
    ]
    pieces = [os.urandom(part.size) for part in parts]
    content = written(tmp_path_factory.getbasetemp(), parts, pieces, b"comment")
    found, path = opened(tmp_path_factory.getbasetemp(), content)

    agree(found, path)
    with zipfile.ZipFile(path) as twin:
        for info, (old, _), part, piece in zip(twin.infolist(), made, parts, pieces, strict=True):
            assert (info.filename, twin.read(info)) == (part.name, piece)
            assert (info.date_time, info.comment) == (old.date_time, old.comment)
            assert (info.external_attr, info.internal_attr) == (
                old.external_attr,
                old.internal_attr,
            )
            assert info.extra == old.extra
    os.unlink(path)


@pytest.mark.parametrize("size", [2_045_222_520, 2_045_222_522, 2_100_000_000, 4_500_000_000])
def test_huge_members(tmp_path: Path, size: int) -> None:
    parts = [Part("metadata.json", 9), Part("model.weights.h5", size), Part("assets/a", 5)]
    plan = lay_out(parts, b"huge")
    path = str(tmp_path / "huge.keras")
    with open(path, "wb") as file:
        file.truncate(plan.end)
        for offset, header in headers(plan, [1, 2, 3]):
            file.seek(offset)
            file.write(header)
    with Disk().open(path) as file:
        archive = read_archive(file)
        assert file._disk.traffic.read < 100_000

    agree(archive, path)
    assert [member.crc32 for member in archive.members] == [1, 2, 3]
    assert [(m.header_offset, m.data_offset, m.end) for m in archive.members] == [
        (place.header_offset, place.data_offset, place.end) for place in plan.places
    ]
    weights = archive.members[1]
    # Between 2.045 GB and 2 GiB the local header has a zip64 field, and the central one none.
    wide = size > 2_045_222_521
    assert weights.header_length == 30 + 16 + (20 if wide else 0)
    assert weights.record_length == 46 + 16 + (20 if size >= 1 << 31 else 0)
    assert archive.members[2].record_length == 46 + 8 + (12 if size >= 1 << 31 else 0)
    # The same parts, from what was read, give the same headers.
    again = lay_out([Part(m.name, m.size, like=m) for m in archive.members], b"huge")
    assert headers(again, [1, 2, 3]) == headers(plan, [1, 2, 3])


def test_more_members_than_16_bits_count(tmp_path: Path) -> None:
    parts = [Part(f"{number:x}", 0) for number in range(65_536)]
    archive, path = opened(tmp_path, written(tmp_path, parts, [b""] * len(parts)))

    assert len(archive.members) == len(parts)
    agree(archive, path)


def test_extra_fields_that_leave_no_room(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a", FIRST)
    info.extra = struct.pack("<2H", 0xCAFE, 65_531) + bytes(65_531)
    (old,) = opened(tmp_path, pack([(info, b"1")]))[0].members
    with mock.patch.object(layout, "NARROW", 1):
        content = written(tmp_path, [Part("a", 2, like=old)], [b"12"])

    (member,) = opened(tmp_path, content)[0].members
    assert (member.header_length, member.size) == (31 + 20, 2)


# --- contents ------------------------------------------------------------------------------------


def deflated(content: bytes) -> bytes:
    info = zipfile.ZipInfo("model.weights.h5", FIRST)
    info.compress_type = zipfile.ZIP_DEFLATED
    return pack([(info, content)])


@pytest.mark.parametrize("size", [0, 1, 5000, (1 << 20) - 1, 1 << 20, (3 << 20) + 17])
@pytest.mark.parametrize("kind", ["zeros", "noise"])
def test_inflated(tmp_path: Path, size: int, kind: str) -> None:
    content = bytes(size) if kind == "zeros" else random.Random(1).randbytes(size)
    archive, path = opened(tmp_path, deflated(content))
    with Disk().open(path) as file, inflate(file, archive.members[0]) as found:
        with open(found.path, "rb") as copy:
            assert copy.read() == content
        assert found.path.endswith(".h5")
        pieces = list(contents(file, archive.members[0]))
        assert all(len(piece) <= inflated.PIECE for piece in pieces)
        assert b"".join(pieces) == content
    assert not os.path.exists(found.path)
    found.close()


def test_temporary_file_goes_with_its_object(tmp_path: Path) -> None:
    archive, path = opened(tmp_path, deflated(b"abc"))
    with Disk().open(path) as file:
        found = inflate(file, archive.members[0])
    kept = found.path
    assert os.path.exists(kept)
    del found
    gc.collect()
    assert not os.path.exists(kept)


def test_temporary_file_of_a_failure_goes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(deflated(bytes(1000)))
    content[content.index(b"PK\1\2") + 16] ^= 1
    content[14] ^= 1
    archive, path = opened(tmp_path, bytes(content))
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with Disk().open(path) as file, pytest.raises(CorruptError, match="checksum mismatch"):
        inflate(file, archive.members[0])

    assert list(folder.iterdir()) == []


def test_another_process_keeps_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    inflated._remove(str(path), os.getpid() + 1)
    assert path.exists()
    inflated._remove(str(path), os.getpid())
    assert not path.exists()
    inflated._remove(str(path), os.getpid())


def test_bombs_are_refused_before_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, path = opened(tmp_path, deflated(bytes(1 << 20)))
    (member,) = archive.members
    monkeypatch.setattr(inflated, "FLOOR", 1 << 10)
    with Disk().open(path) as file:
        with pytest.raises(UnsupportedError, match=f"{member.compressed} .* 1048576") as caught:
            inflate(file, member, 1 << 19)
        assert caught.value.path == path
        inflate(file, member, 1 << 20).close()
        monkeypatch.setattr(inflated, "RATIO", 1 << 20)
        inflate(file, member, 1 << 19).close()
        with pytest.raises(UnsupportedError, match="texts have at most 1000"):
            read_text_member(file, member, 1000)
        assert read_text_member(file, member, 1 << 20) == bytes(1 << 20)


def test_native_checksum_is_zlibs() -> None:
    assert _native.crc32(b"abc") == zlib.crc32(b"abc")


def test_of_an_archive_without_a_comment_nothing_but_headers_is_read(tmp_path: Path) -> None:
    content = pack([(zipfile.ZipInfo("model.weights.h5"), bytes(200_000))])
    path = tmp_path / "plain.keras"
    path.write_bytes(content)
    disk = Disk()
    with disk.open(str(path)) as file:
        assert read_archive(file).members[0].size == 200_000
    assert disk.traffic.read <= len(content) - 200_000 + ENDS
