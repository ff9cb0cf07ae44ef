"""Edits that tests cut short: what is there before, what is done, and what there is to find.

Every scene plays in one folder. :func:`play` makes it in a new one; :func:`settle` opens what a
failure left, recovers it where it says so, and tells whether it is as before or as after.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import ckptkit
from ckptkit import _native
from ckptkit.engine import amend, run
from ckptkit.errors import NeedsRecoveryError
from ckptkit.storage.sidecar import MARK, undo_numbers
from tests.crash.forgetful import differing
from tests.golden.handmade import Bundle, grid
from tests.oracle.varint import put_number, take_varint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from ckptkit.storage.disk import Disk

    Files = dict[str, bytes]
    Do = Callable[[Path, Disk | None], object]

PIECES = 400, 2600
"""Bytes of a step and of a piece of a journal, where a scene is to have many of both."""


def values(seed: int = 1) -> dict[str, Any]:
    """Return tensors: some long enough for several pieces, and text."""
    rng = np.random.default_rng(seed)
    return {
        "w": rng.standard_normal((40, 24)).astype("float32"),
        "b": np.arange(60, dtype="float32"),
        "v": rng.standard_normal((30, 20)).astype("float32"),
        "text": ["some", "text"],
    }


# --- what is there before ----------------------------------------------------------------------


def plain(folder: Path) -> None:
    """Make a checkpoint of two shards."""
    ckptkit.save(folder / "m", values(), layout=ckptkit.Layout(shards=2))


def with_dead_bytes(folder: Path) -> None:
    """Make a checkpoint that was appended to."""
    plain(folder)
    edit("w += 1", "b += 1", how="append")(folder, None)


def sliced(folder: Path, *, big_endian: bool = False) -> None:
    """Make a checkpoint with a tensor in slices, which lie in two shards."""
    bundle = Bundle(shards=2, big_endian=big_endian)
    tensors = values()
    bundle.add_slices(b"w", tensors["w"], grid((40, 24), ([11, 30], [7])), shards=(0, 1))
    bundle.add(b"b", tensors["b"])
    bundle.write(folder / "m")


def many(folder: Path) -> None:
    """Make a checkpoint of many small tensors: checksums are most of what a journal holds."""
    ckptkit.save(folder / "m", {f"t/{n:03d}": np.uint8([n]) for n in range(90)})


def big_endian(folder: Path) -> None:
    """Make one with its bytes the other way round."""
    sliced(folder, big_endian=True)


def linked(folder: Path) -> None:
    """Make a checkpoint that shares its shards with another one."""
    ckptkit.save(folder / "old", values(), layout=ckptkit.Layout(shards=2))
    edit("rename ^text$ -> words", name="old", to="m", how="link")(folder, None)


def with_donor(folder: Path) -> None:
    """Make a checkpoint and another one, with its bytes the other way round, beside it."""
    plain(folder)
    bundle = Bundle(big_endian=True)
    bundle.add(b"w", values(seed=2)["w"].astype("float64"))
    bundle.write(folder / "donor")


def saved_model(folder: Path) -> None:
    """Make a SavedModel with a fingerprint whose hash is that of the index."""
    inner = folder / "m" / "variables"
    inner.mkdir(parents=True)
    (folder / "m" / "saved_model.pb").write_bytes(b"\x08\x01")
    ckptkit.save(inner / "variables", values(), layout=ckptkit.Layout(shards=2))
    index = _native.fingerprint64((inner / "variables.index").read_bytes())
    fingerprint = put_number(1, 7) + put_number(5, index) + put_number(6, 3)
    (folder / "m" / "fingerprint.pb").write_bytes(fingerprint)


# --- what is done ------------------------------------------------------------------------------


def edit(
    *statements: str,
    name: str = "m",
    to: str | None = None,
    donor: str | None = None,
    **options: Any,
) -> Do:
    """Return what edits a checkpoint in a folder, with values of another one there."""

    def do(folder: Path, disk: Disk | None) -> object:
        others = None if donor is None else {"donor": str(folder / donor)}
        with ckptkit.open(folder / name) as found:
            draft = found.edit(*statements, others=others)
            plan = draft.plan(None if to is None else folder / to, **options)
        return plan.run(device="numpy", disk=disk)

    return do


def undo(folder: Path, disk: Disk | None) -> object:
    """Take the latest edit back."""
    return ckptkit.undo(folder / "m", disk=disk)


@dataclass(frozen=True)
class Scene:
    """One way of writing.

    Attributes:
        make: Makes what is there before.
        do: Writes.
        pieces: Bytes of a step and of a piece, where it goes piece by piece.
        result: Name of the checkpoint that it writes.
        after: Says of recovering ``forward`` and ``back`` which state that is.
    """

    make: Callable[[Path], None]
    do: Do
    pieces: tuple[int, int] | None = None
    result: str = "m"
    states: tuple[str, str] = ("after", "before")

    @property
    def is_new(self) -> bool:
        """Whether the result is at a new place."""
        return self.result != "m"

    def prepare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Set sizes as they are to be."""
        if self.pieces is not None:
            chunk, piece = self.pieces
            monkeypatch.setattr(run, "MAX_CHUNK", chunk)
            monkeypatch.setattr(amend, "piece_bytes", lambda _: piece)


def undone(make: Callable[[Path], None], *done: Do, pieces: tuple[int, int] | None = None) -> Scene:
    """Return the scene in which the last of some edits is taken back."""

    def before(folder: Path) -> None:
        make(folder)
        for do in done:
            do(folder, None)

    return Scene(before, undo, pieces=pieces, states=("before", "after"))


LITTLE = ("w[:, 1] *= 2", "b[3] = 7")
MUCH = ("w *= 2", "b += 1", "v[:, 2:17] *= 0.5")
MEASURED = ("w = x / norm(x)", "b = (x - mean(x)) / std(x)", "v[:, 2:17] += 0.1 * normal()")
GIVEN = ('w = 0.5 * x + 0.5 * cast(t("donor:w"), float32)', 'b[3] = norm(t("donor:w"))')
GROWING = ("cast w -> bfloat16", "copy b -> twin", "v[0] = 3")
THREE, ONE = ckptkit.Layout(shards=3), ckptkit.Layout(shards=1)

SCENES = {
    "patch": Scene(plain, edit(*LITTLE, how="patch")),
    "patch in pieces": Scene(plain, edit(*MUCH, how="patch"), pieces=PIECES),
    "patch with undo": Scene(plain, edit(*LITTLE, how="patch", keep_undo=True)),
    "patch in pieces with undo": Scene(
        plain, edit(*MUCH[:2], how="patch", keep_undo=True), pieces=PIECES
    ),
    "patch of slices": Scene(sliced, edit("w[5:35, 3:9] *= 2", "b[3] = 7", how="patch")),
    "patch of slices in pieces": Scene(sliced, edit("w *= 2", how="patch"), pieces=PIECES),
    "patch of big-endian": Scene(big_endian, edit("w[5:35, 3:9] *= 2", "b[3] = 7", how="patch")),
    "patch by statistics": Scene(plain, edit(*MEASURED, how="patch")),
    "patch by statistics in pieces": Scene(plain, edit(*MEASURED, how="patch"), pieces=PIECES),
    "patch by statistics with undo": Scene(
        plain, edit(*MEASURED, how="patch", keep_undo=True), pieces=PIECES
    ),
    "append by statistics": Scene(plain, edit(*MEASURED, how="append")),
    "patch from a donor": Scene(with_donor, edit(*GIVEN, donor="donor", how="patch")),
    "patch from a donor in pieces": Scene(
        with_donor, edit(*GIVEN, donor="donor", how="patch"), pieces=PIECES
    ),
    "append": Scene(plain, edit(*GROWING, how="append")),
    "append with undo": Scene(plain, edit(*GROWING, how="append", keep_undo=True)),
    "append of names": Scene(plain, edit("rename ^w$ -> u", "drop text", how="append")),
    "compact": Scene(with_dead_bytes, edit("v *= 2", how="copy")),
    "compact to more shards": Scene(plain, edit(layout=THREE)),
    "compact to fewer shards": Scene(with_dead_bytes, edit(layout=ONE, how="copy")),
    "link": Scene(plain, edit(*LITTLE, to="new", how="link"), result="new"),
    "broken links, patch": Scene(linked, edit(*LITTLE, how="patch", break_links=True)),
    "broken links, append": Scene(linked, edit(*LITTLE, how="append", break_links=True)),
    "compact beside a link": Scene(linked, edit("b *= 2", how="copy")),
    "undo of patch": undone(plain, edit(*LITTLE, how="patch", keep_undo=True)),
    "undo of patch in pieces": undone(
        plain, edit(*MUCH[:2], how="patch", keep_undo=True), pieces=PIECES
    ),
    "undo of append": undone(plain, edit(*GROWING, how="append", keep_undo=True)),
    "undo of the second": undone(
        plain,
        edit(*GROWING, how="append", keep_undo=True),
        edit("w[3] = 1", how="patch", keep_undo=True),
    ),
    "model, patch": Scene(saved_model, edit(*LITTLE, how="patch")),
    "model, patch in pieces": Scene(saved_model, edit(*MUCH, how="patch"), pieces=PIECES),
    "model, append": Scene(saved_model, edit("w *= 2", how="append")),
    "model, compact": Scene(saved_model, edit("v *= 2", how="copy", layout=ONE)),
    "model, undo of append": undone(saved_model, edit("w *= 2", how="append", keep_undo=True)),
}

MANY = Scene(many, edit("** *= 2", how="patch"), pieces=(24, 50))
"""Many calls, each about very little."""


# --- what there is to find ---------------------------------------------------------------------


def files(folder: Path) -> Files:
    """Return the contents of all files by their paths in a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def visible(folder: Path) -> Files:
    """Return the contents of the files that are not hidden."""
    return {name: held for name, held in files(folder).items() if MARK not in name}


def hidden(folder: Path) -> list[str]:
    """Return the names of what is hidden, folders too."""
    return sorted(path.name for path in folder.rglob("*") if MARK in path.name)


def read(path: Path) -> dict[str, bytes | list[bytes]]:
    """Return the values of all tensors, which match their checksums."""
    with ckptkit.open(path) as found:
        assert found.verify().ok
        arrays = {name: tensor.read() for name, tensor in found.items()}
    return {
        name: list(array.ravel()) if array.dtype == object else array.tobytes()
        for name, array in arrays.items()
    }


def hash_in(fingerprint: bytes) -> int:
    """Return the hash of the index that a fingerprint holds."""
    at = found = 0
    while at < len(fingerprint):
        field_, at = take_varint(fingerprint, at)
        value, at = take_varint(fingerprint, at)
        found = value if field_ >> 3 == 5 else found
    return found


@dataclass
class Played:
    """A scene that was played to its end once, in a folder of its own.

    Attributes:
        before, after: The files that can be seen.
        kept: How many undos are kept before and after.
    """

    scene: Scene
    before: Files
    after: Files
    kept: tuple[int, int]
    found: set[tuple[str, str]] = field(default_factory=set)


def prepared(scene: Scene, folder: Path) -> Files:
    """Make what is there before in a new folder; return its files."""
    folder.mkdir(exist_ok=True)
    scene.make(folder)
    return visible(folder)


def play(scene: Scene, folder: Path) -> Played:
    """Play a scene to its end, and look at both ends of it."""
    before = prepared(scene, folder)
    read(folder / "m")
    kept = len(undo_numbers(str(bundle_of(folder / "m"))))
    scene.do(folder, None)
    after = visible(folder)
    read(folder / scene.result)
    assert before != after
    for held in (before, after):
        if "m/fingerprint.pb" in held:
            index = held["m/variables/variables.index"]
            assert hash_in(held["m/fingerprint.pb"]) == _native.fingerprint64(index)
    now = len(undo_numbers(str(bundle_of(folder / "m"))))
    assert len(hidden(folder)) == now
    return Played(scene, before, after, (kept, now))


def bundle_of(path: Path) -> Path:
    """Return the prefix of a bundle, in a SavedModel or not."""
    return path / "variables" / "variables" if path.is_dir() else path


def settle(played: Played, there: Path) -> tuple[str, str]:
    """Open what a failure left, and recover it where that is asked for.

    Returns what recovering said, and the state: ``before`` or ``after``. It is one of them to the
    byte: what is written behind the end of a shard has a journal, that takes it away again.
    """
    scene, path = played.scene, there / played.scene.result
    said = "nothing"
    try:
        ckptkit.open(path).close()
    except NeedsRecoveryError as error:
        assert f"ckptkit recover {path}" in str(error)
        said = ckptkit.recover(path).state
        assert said in {"forward", "back"}
    except FileNotFoundError:
        assert scene.is_new
    state = state_of(played, there)
    assert said == "nothing" or state == scene.states[said == "back"]
    clean(played, there, state)
    played.found.add((said, state))
    return said, state


def state_of(played: Played, there: Path) -> str:
    """Tell in which of the two states the files are."""
    found = visible(there)
    if played.scene.is_new and f"{played.scene.result}.index" not in found:
        # Until then nobody takes a shard for a checkpoint.
        found = {name: held for name, held in found.items() if name in played.before}
    if not differing(found, played.after):
        return "after"
    assert differing(found, played.before) == []
    return "before"


def clean(played: Played, there: Path, state: str) -> None:
    """See that recovering finds nothing more to do, and leaves nothing but undos that work."""
    path = there / played.scene.result
    try:
        assert ckptkit.recover(path).state == "nothing"
    except FileNotFoundError:
        assert played.scene.is_new
        assert state == "before"
    assert state_of(played, there) == state
    undos = undo_numbers(str(bundle_of(path)))
    wanted = played.kept[state == "after"]
    # Going forward drops the journal, and what was to become of it.
    may_be_lost = wanted > played.kept[0]
    assert len(undos) == wanted or (may_be_lost and len(undos) == played.kept[0])
    assert hidden(there) == [f".{bundle_of(path).name}.ckptkit-undo-{n:04d}" for n in undos]
    if len(undos) > min(played.kept):
        ckptkit.undo(path)
        other = played.after if played.scene.do is undo else played.before
        assert differing(visible(there), other) == []


def names_of(folder: Path) -> list[str]:
    """Return the names in a folder."""
    return sorted(os.listdir(folder))
