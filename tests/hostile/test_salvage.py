"""Salvage of what was made to harm: no memory by a claimed number, no hang, no way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ckptkit
from ckptkit import _native
from ckptkit.errors import CkptError
from tests.golden.damage import flip
from tests.hostile import forge
from tests.hostile.watched import watch
from tests.oracle import table
from tests.oracle.varint import put_varint

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("unsynced")

HUGE = (1 << 62) - 8


def salvaged(path: str, out: Path, **given: Any) -> ckptkit.api.Salvaged | None:
    try:
        return ckptkit.salvage(path, out, **given)
    except CkptError:
        assert not out.exists()
        return None


def beside(*records: forge.Record) -> list[forge.Record]:
    """Return records with a sound one among them."""
    return [forge.header(), *records, (b"z", forge.record())]


@pytest.mark.parametrize(
    "value",
    [
        forge.record(offset=HUGE),
        forge.record(dims=(1 << 40,), size=4 << 40),
        forge.record(dims=(1 << 60,), size=HUGE, dtype=3),
        forge.record(dims=(1 << 50,), dtype=forge.STRING, size=1 << 51),
        forge.record(dims=(1 << 50,), dtype=forge.STRING, size=24),
        forge.record(dims=(1 << 50,), dtype=forge.VARIANT, size=1 << 60),
        forge.record(dims=(), dtype=forge.STRING, size=24, offset=HUGE),
        forge.record(dtype=forge.RESOURCE),
        forge.record(shard=(1 << 31) - 1),
        forge.record(slices=[[(0, 2), (0, 1)]] * 3),
        forge.record(dims=(1 << 40, 1 << 20), size=0, slices=[[(0, -1), (0, -1)]]),
        forge.record(dims=(4, 4), size=0, slices=[[(0, -1)]]),
        b"\xff" * 40,
    ],
)
def test_records_that_claim_much_are_left_out(tmp_path: Path, value: bytes) -> None:
    path = forge.write(tmp_path, beside((b"a", value)), forge.PAYLOAD)
    found = salvaged(path, tmp_path / "out")
    assert found is not None
    assert [(fate.tensor, fate.how) for fate in found.fates] == [("a", "lost")]
    with ckptkit.open(tmp_path / "out") as saved:
        assert list(saved) == ["z"]


def test_a_slice_in_slices_that_cannot_be_behind_its_tensor(tmp_path: Path) -> None:
    key = _native.slice_key(b"a", [(0, 1), (0, -1)])
    whole = forge.record(b"", slices=[[(0, 1), (0, -1)], [(1, 1), (0, -1)]])
    slice_of_slices = forge.record(b"", slices=[[(0, 9)]])
    blocks = [
        forge.body([forge.item(0, *forge.header()), forge.item(0, b"a", whole)]),
        forge.body([forge.item(0, key, slice_of_slices), forge.item(0, b"z", forge.record())]),
    ]
    path = forge.write(tmp_path, forge.assemble(blocks, separators=[b"a", b"z"]), forge.PAYLOAD)
    found = salvaged(path, tmp_path / "out")
    assert found is not None
    assert [(fate.tensor, fate.how) for fate in found.fates] == [("a", "lost")]


def test_strings_that_claim_much(tmp_path: Path) -> None:
    payload = put_varint(HUGE) + bytes(4) + b"text"
    records = beside((b"a", forge.record(payload, (), forge.STRING, offset=24)))
    path = forge.write(tmp_path, records, forge.PAYLOAD + payload)
    found = salvaged(path, tmp_path / "out", keep_damaged=True)
    assert found is not None
    assert [(fate.tensor, fate.how) for fate in found.fates] == [("a", "lost")]


@pytest.mark.parametrize("size", [1 << 34, HUGE, (1 << 64) - 1])
def test_handles_that_claim_much(tmp_path: Path, size: int) -> None:
    body = forge.body([forge.item(0, *one) for one in forge.SOUND])
    bad = forge.assemble([body], listed=[forge.handle(0, size)])
    # The block is found all the same, by its checksum.
    found = salvaged(forge.write(tmp_path, bad, forge.PAYLOAD), tmp_path / "out")
    assert found is not None
    assert found.intact == 1


def test_blocks_that_claim_many_restarts_or_long_entries(tmp_path: Path) -> None:
    sound = forge.item(0, b"w", forge.record())
    for bad in (
        forge.one_block(sound, count=(1 << 32) - 1),
        forge.one_block(sound, forge.item(0, b"x", b"", length=(1 << 32) - 1)),
        forge.one_block(sound, forge.item((1 << 32) - 1, b"x", b"value")),
        forge.one_block(sound, restarts=(0, 1, 2, 3)),
    ):
        for file in tmp_path.glob("out*"):
            file.unlink()
        found = salvaged(forge.write(tmp_path, bad, forge.PAYLOAD), tmp_path / "out")
        assert found is None or found.tensors == 1


def test_keys_that_unfold(tmp_path: Path) -> None:
    # Each key shares a megabyte with the one before: a few kilobytes would become gigabytes.
    items = [forge.item(0, b"k" * (1 << 20), b"v")]
    items += [forge.item(1 << 20, b"%04d" % n, b"v") for n in range(3000)]
    path = forge.write(tmp_path, forge.one_block(*items), forge.PAYLOAD)
    done = watch([["salvage", path, tmp_path / "out"]], tmp_path, tmp_path)
    assert done.codes == (3,), done.err
    assert "bug" not in done.err[0]


def test_a_table_of_sizes_that_claims_much(tmp_path: Path) -> None:
    (tmp_path / "model.data-00000-of-00001").write_bytes(bytes(100))
    (tmp_path / "sizes").write_text(f"a string [{1 << 50}]\n")
    done = watch(
        [["salvage", tmp_path / "model", tmp_path / "out", "--sizes", tmp_path / "sizes"]],
        tmp_path,
        tmp_path,
    )
    assert done.codes == (3,), done.err
    assert "no 1125899906842624 strings start here" in done.err[0]


def test_many_files_of_many_counts(tmp_path: Path) -> None:
    for count in range(1, 200):
        for number in range(min(count, 2)):
            (tmp_path / f"model.data-{number:05d}-of-{count:05d}").touch()
    (tmp_path / "model.data-00000-of-9999999999").touch()
    (tmp_path / "model.index").write_bytes(table.encode([(b"w", forge.record())]))
    assert salvaged(str(tmp_path / "model"), tmp_path / "out") is None


def test_folders_and_links_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "model.data-00000-of-00001").mkdir()
    (tmp_path / "model.index").write_bytes(table.encode(list(forge.SOUND)))
    assert salvaged(str(tmp_path / "model"), tmp_path / "out") is None
    (tmp_path / "other.data-00000-of-00001").write_bytes(forge.PAYLOAD)
    (tmp_path / "other.index").mkdir()
    assert salvaged(str(tmp_path / "other"), tmp_path / "out") is None


def test_a_graph_that_is_none(tmp_path: Path) -> None:
    values = np.empty((), object)
    values[()] = b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
    ckptkit.save(tmp_path / "m", {"_CHECKPOINTABLE_OBJECT_GRAPH": values, "a": np.arange(3)})
    flip(tmp_path / "m.data-00000-of-00001", -1)
    found = salvaged(str(tmp_path / "m"), tmp_path / "out", keep_damaged=True)
    assert found is not None
    assert any("does not parse" in note for note in found.notes)


def test_names_cannot_pass_for_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ckptkit.cli import main

    name = "a\nnothing is lost\x1b[2J"
    ckptkit.save(tmp_path / "m", {name: np.arange(3), "b": np.arange(3)})
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(bytes([9]) + data.read_bytes()[1:])
    assert main(["salvage", str(tmp_path / "m"), str(tmp_path / "out")]) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "nothing is lost" not in out.splitlines()
