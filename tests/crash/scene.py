"""Edits that tests cut short: what is there before, what is done, and what there is to find.

Every scene plays in one folder. :func:`play` makes it in a new one; :func:`settle` opens what a
failure left, recovers it where it says so, and tells whether it is as before or as after.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ckptkit
from ckptkit import _native
from ckptkit.engine import overwrite, run
from ckptkit.errors import NeedsRecoveryError
from ckptkit.storage.sidecar import MARK, undo_numbers
from tests.crash.forgetful import differing
from tests.crash.orders import Inline, Late
from tests.oracle.varint import take_varint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from ckptkit.storage.disk import Disk

    Files = dict[str, bytes]
    Do = Callable[[Path, Disk | None], object]

PIECES = 400, 2600
"""Bytes of a step and of a piece of a journal, where a scene is to have many of both."""

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


def undo(name: str = "m") -> Do:
    """Return what takes the latest edit back."""
    return lambda folder, disk: ckptkit.undo(folder / name, disk=disk)


@dataclass(frozen=True)
class Scene:
    """One way of writing.

    Attributes:
        make: Makes what is there before.
        do: Writes.
        pieces: Bytes of a step and of a piece, where it goes piece by piece.
        name: Name of the checkpoint that it edits.
        new: Name of the one that it writes, if that is another one.
        index: Name of the file that makes a new one of it, where that is not its own.
        states: Says of recovering ``forward`` and ``back`` which state that is.
        undoes: It takes an edit back.
        sound: Looks with the eyes of others at what is there, before or after.
        late: What happens side by side happens as late as it can, not as early.
    """

    make: Callable[[Path], None]
    do: Do
    pieces: tuple[int, int] | None = None
    name: str = "m"
    new: str = ""
    index: str = ""
    states: tuple[str, str] = ("after", "before")
    undoes: bool = False
    sound: Callable[[Path], None] = lambda _: None
    late: bool = False

    @property
    def result(self) -> str:
        """Name of the checkpoint that it writes."""
        return self.new or self.name

    @property
    def is_new(self) -> bool:
        """Whether the result is at a new place."""
        return bool(self.new)

    def prepare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Set sizes, and the order of what happens side by side, as they are to be."""
        monkeypatch.setattr(overwrite, "writers", Late if self.late else Inline)
        if self.pieces is not None:
            chunk, piece = self.pieces
            monkeypatch.setattr(run, "MAX_CHUNK", chunk)
            monkeypatch.setattr(overwrite, "piece_bytes", lambda *_, **__: piece)
            monkeypatch.setattr(overwrite, "TOGETHER", 0)
            monkeypatch.setattr(overwrite, "WIDE", 300)


def undone(make: Callable[[Path], None], *done: Do, name: str = "m", **about: Any) -> Scene:
    """Return the scene in which the last of some edits is taken back."""

    def before(folder: Path) -> None:
        make(folder)
        for do in done:
            do(folder, None)

    states = "before", "after"
    return Scene(before, undo(name), name=name, states=states, undoes=True, **about)


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
    read(folder / scene.name)
    scene.sound(folder / scene.name)
    kept = len(undo_numbers(str(stem_of(folder / scene.name))))
    scene.do(folder, None)
    after = visible(folder)
    read(folder / scene.result)
    scene.sound(folder / scene.result)
    assert before != after
    for held in (before, after):
        if "m/fingerprint.pb" in held:
            index = held["m/variables/variables.index"]
            assert hash_in(held["m/fingerprint.pb"]) == _native.fingerprint64(index)
    now = len(undo_numbers(str(stem_of(folder / scene.name))))
    assert len(hidden(folder)) == now
    return Played(scene, before, after, (kept, now))


def stem_of(path: Path) -> Path:
    """Return what hidden files are named after: a checkpoint, or what is in a folder of one."""
    weights = path / "model.weights.h5"
    if weights.exists():
        return weights
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
    scene = played.scene
    if scene.is_new and (scene.index or scene.new) not in found:
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
    undos = undo_numbers(str(stem_of(path)))
    wanted = played.kept[state == "after"]
    # Going forward drops the journal, and what was to become of it.
    may_be_lost = wanted > played.kept[0]
    assert len(undos) == wanted or (may_be_lost and len(undos) == played.kept[0])
    assert hidden(there) == [f".{stem_of(path).name}.ckptkit-undo-{n:04d}" for n in undos]
    if len(undos) > min(played.kept):
        ckptkit.undo(path)
        other = played.after if played.scene.undoes else played.before
        assert differing(visible(there), other) == []
