"""Salvage of what a bad index, or a lost one, was about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit.errors import CorruptError, UnsupportedError
from ckptkit.formats.tensorflow.salvage import outline
from tests.golden.damage import flip
from tests.golden.handmade import texts
from tests.hostile import forge
from tests.unit.engine.salvage.saves import assert_equal, fates, index, read, shard, values

pytestmark = pytest.mark.usefixtures("unsynced")


def many(tmp_path: Path, seed: int, name: str) -> str:
    """Write a checkpoint whose index has several blocks."""
    rng = np.random.default_rng(seed)
    names = [f"{number:05d}/{'scope/' * 12}variable" for number in range(9000)]
    numbers = rng.integers(0, 1 << 30, len(names)).astype("int32")
    prefix = tmp_path / name
    ckptkit.save(prefix, dict(zip(names, numbers, strict=True)))
    return str(prefix)


def test_a_bad_block_is_read_around(tmp_path: Path, out: str) -> None:
    path = many(tmp_path, 1, "many")
    wanted = read(path)
    content = bytearray(index(path).read_bytes())
    content[1000:1400] = bytes(400)
    index(path).write_bytes(content)
    found = ckptkit.salvage(path, out)
    assert found.incomplete
    assert not found.ok
    (text,) = [line for line in found.index if "block at bytes 0 to" in line]
    after = read(out)
    first = min(after)
    assert f"before {first!r}" in text
    assert after == {name: one for name, one in wanted.items() if name >= first}
    assert len(after) > 1000
    donor = many(tmp_path, 2, "other")
    found = ckptkit.salvage(path, tmp_path / "found", donor)
    assert not found.incomplete
    assert found.ok
    assert {fate.how for fate in found.fates} == {"found"}
    assert read(str(tmp_path / "found")) == wanted


@pytest.mark.parametrize("cut", [8, 48, 60, 200])
def test_an_index_without_its_end(tmp_path: Path, out: str, cut: int) -> None:
    path = many(tmp_path, 1, "many")
    wanted = read(path)
    content = index(path).read_bytes()
    index(path).write_bytes(content[:-cut])
    found = ckptkit.salvage(path, out)
    assert read(out) == wanted
    assert found.intact == len(wanted)
    assert any("footer" in line for line in found.index)


def test_one_byte_of_the_index_is_put_right(model: str, out: str) -> None:
    flip(index(model), 40)
    found = ckptkit.salvage(model, out)
    assert found.ok
    assert any("one byte was put right" in line for line in found.index)
    assert_equal(read(out), values(1))


def test_doubtful_records_are_kept_where_that_is_asked(
    model: str, donor: str, out: str, tmp_path: Path
) -> None:
    flip(index(model), 520, length=6)
    with pytest.raises(CorruptError, match="nothing can be saved"):
        ckptkit.salvage(model, out)
    found = ckptkit.salvage(model, out, keep_damaged=True)
    after = read(out)
    assert set(fates(found).values()) == {"kept"}
    assert after.keys() <= values(1).keys()
    found = ckptkit.salvage(model, tmp_path / "found", donor)
    assert_equal(read(str(tmp_path / "found")), values(1))


def test_records_that_cannot_be_are_left_out(tmp_path: Path, out: str) -> None:
    sound = forge.record()
    records = [
        forge.header(),
        (b"a", sound),
        (b"b", b"\xff\xff"),
        (b"c", forge.record(dims=(2, 4))),
        (b"d", forge.record(shard=7)),
        (b"e", forge.record(dtype=99)),
        (b"f", sound),
    ]
    found = ckptkit.salvage(forge.write(tmp_path, records, forge.PAYLOAD), out)
    assert fates(found) == dict.fromkeys("bcde", "lost")
    assert list(read(out)) == ["a", "f"]
    assert sum("is left out" in line for line in found.index) == 4


def test_keys_that_are_there_twice_and_unsorted(tmp_path: Path, out: str) -> None:
    items = [
        forge.item(0, b"w", forge.record()),
        forge.item(0, b"a", forge.record()),
        forge.item(0, b"w", forge.record(dims=(3, 2))),
    ]
    found = ckptkit.salvage(forge.write(tmp_path, forge.one_block(*items), forge.PAYLOAD), out)
    assert {name: one.shape for name, one in read(out).items()} == {"a": (2, 3), "w": (2, 3)}
    assert any("1 keys are there twice" in line for line in found.index)


def test_a_lost_header(tmp_path: Path, out: str) -> None:
    path = forge.write(tmp_path, [(b"w", forge.record())], forge.PAYLOAD)
    found = ckptkit.salvage(path, out)
    assert read(out)["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert any("header is lost" in line for line in found.index)


def test_a_header_that_claims_many_shards_makes_no_files(tmp_path: Path, out: str) -> None:
    claimed = (1 << 31) - 1
    path = forge.write(tmp_path, [forge.header(claimed), (b"w", forge.record())])
    Path(f"{path}.data-00000-of-{claimed}").write_bytes(forge.PAYLOAD)
    with pytest.raises(CorruptError, match="nothing can be saved"):
        ckptkit.salvage(path, out)


def test_a_later_version_is_refused(tmp_path: Path, out: str) -> None:
    records = [forge.header(version=b"\x08\x02\x10\x02"), (b"w", forge.record())]
    with pytest.raises(UnsupportedError, match="version 2"):
        ckptkit.salvage(forge.write(tmp_path, records, forge.PAYLOAD), out)


def test_payloads_of_a_donor_are_found_where_no_record_points(tmp_path: Path, out: str) -> None:
    old = {"a": np.arange(5), "b": np.arange(9) * 3.0, "c": np.arange(4)}
    ckptkit.save(tmp_path / "model", old)
    # The donor has the same b at another place, so that the sizes do not fit.
    ckptkit.save(tmp_path / "donor", {"new": np.arange(50), "b": old["b"], "bb": np.arange(4) + 1})
    path = str(tmp_path / "model")
    blocks = [
        [forge.header(), (b"a", forge.record(old["a"].tobytes(), (5,), 9))],
        [(b"b", b"this block will be lost")],
        [(b"c", forge.record(old["c"].tobytes(), (4,), 9, offset=112))],
    ]
    bodies = [forge.body([forge.item(0, *one) for one in block]) for block in blocks]
    content = forge.assemble(bodies, separators=[b"a", b"b", b"c"])
    index(path).write_bytes(content.replace(b"this block will be lost", bytes(23)))
    found = ckptkit.salvage(path, out, tmp_path / "donor")
    assert {fate.tensor: (fate.how, fate.same) for fate in found.fates} == {
        "b": ("found", True),
        "bb": ("filled", False),
    }
    assert_equal(read(out), old | {"bb": np.arange(4) + 1})
    assert any("found where no record points" in note for note in found.notes)


# --- a lost index ------------------------------------------------------------------------------


def test_a_lost_index_needs_a_donor_or_sizes(model: str, out: str) -> None:
    index(model).unlink()
    with pytest.raises(CorruptError, match="--donor"):
        ckptkit.salvage(model, out)


def test_a_lost_index_by_a_donor(model: str, donor: str, out: str) -> None:
    index(model).unlink()
    found = ckptkit.salvage(shard(model, 1), out, donor)
    assert found.ok
    assert set(fates(found).values()) == {"found"}
    assert {fate.tensor for fate in found.fates if fate.same} == {"const", "empty"}
    assert any("2 of them are confirmed" in note for note in found.notes)
    assert found.index == ("there is no index: m.index",)
    assert_equal(read(out), values(1))


def test_a_lost_index_by_lines(model: str, out: str, tmp_path: Path) -> None:
    lines = ["# name dtype shape", ""]
    for name, one in values(1).items():
        dtype = "string" if one.dtype == object else one.dtype.name
        lines.append(f"{name}  {dtype} {list(one.shape)}")
    (tmp_path / "sizes").write_text("\n".join(lines))
    index(model).unlink()
    found = ckptkit.salvage(model, out, sizes=tmp_path / "sizes")
    assert found.ok
    assert any("1 of them are confirmed" in note for note in found.notes)
    assert_equal(read(out), values(1))


def test_a_tiling_that_nothing_confirms_is_said_to_be_one(tmp_path: Path, out: str) -> None:
    ckptkit.save(tmp_path / "m", {"a": np.arange(5.0), "b": np.arange(3.0)})
    index(str(tmp_path / "m")).unlink()
    (tmp_path / "sizes").write_text("b float64 [3]\na float64 [5]\n")
    found = ckptkit.salvage(tmp_path / "m", out, sizes=tmp_path / "sizes")
    assert any("no checksum confirms" in note for note in found.notes)
    assert "no checksum confirms 2 of the tensors" in list(found.lines())[-1]


def test_sizes_that_do_not_fit_are_refused_where_they_disagree(
    model: str, out: str, tmp_path: Path
) -> None:
    other = values(2)
    other["layer1/kernel"] = np.zeros((8, 3), "float32")
    ckptkit.save(tmp_path / "other", other, layout=ckptkit.Layout(shards=2))
    index(model).unlink()
    with pytest.raises(CorruptError, match="do not fit") as caught:
        ckptkit.salvage(model, out, tmp_path / "other")
    assert ".data-0000" in str(caught.value.path)
    assert caught.value.offset is not None
    assert not list(Path(out).parent.glob("out*"))


def test_sizes_that_strings_contradict(tmp_path: Path, out: str) -> None:
    ckptkit.save(tmp_path / "m", {"a": np.arange(5.0), "s": texts(b"x", b"yy")})
    index(str(tmp_path / "m")).unlink()
    (tmp_path / "sizes").write_text("a float64 [4]\ns string [2]\n")
    with pytest.raises(CorruptError, match="no 2 strings start here") as caught:
        ckptkit.salvage(tmp_path / "m", out, sizes=tmp_path / "sizes")
    assert (caught.value.tensor, caught.value.offset) == ("s", 32)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "empty"),
        ("a float32\n", "expected name dtype"),
        ("a float33 [1]\n", "no dtype"),
        ("a float32 [1]\na float32 [1]\n", "twice"),
        ("a float32 [4611686018427387904, 9]\n", "more than a tensor"),
        ("{}", "ls --json prints: nothing is called 'tensors'"),
        ('{"tensors": [{"name": "a"}]}', "ls --json"),
        ('{"tensors": 3}', "ls --json"),
        ("{" * 100_000, "ls --json"),
        ('{"tensors": [{"name": "a", "dtype": "int8", "shape": [-1]}]}', "no sizes"),
    ],
)
def test_tables_that_are_none(
    model: str, out: str, tmp_path: Path, table: str, message: str
) -> None:
    (tmp_path / "sizes").write_text(table)
    index(model).unlink()
    with pytest.raises(CorruptError, match=message):
        ckptkit.salvage(model, out, sizes=tmp_path / "sizes")


def test_a_table_without_an_end_is_not_read_to_the_end(
    model: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outline, "MAX_BYTES", 1 << 16)
    index(model).unlink()
    with pytest.raises(CorruptError, match="at most 65536 bytes"):
        ckptkit.salvage(model, out, sizes="/dev/zero")


def test_alignment_of_the_donor_is_that_of_the_checkpoint(tmp_path: Path, out: str) -> None:
    # TensorFlow's own writer can align payloads; strings of other lengths move those behind.
    def write(folder: Path, text: bytes) -> str:
        folder.mkdir()
        values = {
            "a": np.arange(3, dtype="int8"),
            "s": texts(text),
            "z": np.arange(5, dtype="int8"),
        }
        ckptkit.save(folder / "dense", values)
        records, data = [forge.header()], b""
        with ckptkit.open(folder / "dense") as dense:
            for name, tensor in dense.items():
                piece = tensor.tensor.source.pieces[0]  # type: ignore[union-attr]
                extent = piece.extent
                payload = Path(extent.path).read_bytes()[extent.offset :][: extent.length]
                code = {"int8": 6, "string": 7}[tensor.dtype]
                value = forge.record(
                    payload, tensor.shape, code, offset=len(data), crc=piece.checksum.value
                )
                records.append((name.encode(), value))
                data += payload + bytes(-len(payload) % 42)
        return forge.write(folder, records, data)

    path, donor = write(tmp_path / "m", b"x" * 60), write(tmp_path / "d", b"y")
    wanted = read(path)
    index(path).unlink()
    found = ckptkit.salvage(path, out, donor)
    assert found.ok
    assert_equal(read(out), wanted)
