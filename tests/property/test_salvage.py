"""Laws of salvage: what it gives is right or named, and what is whole is saved."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptkit
from ckptkit.errors import CkptError
from tests.golden.handmade import same
from tests.property.strategies import NAMES, arrays

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("unsynced")

FEW = ("float32", "int8", "bfloat16", "string", "complex64", "bool")


@st.composite
def saves(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Draw two saves of one model, and into how many shards they are cut."""
    names = draw(st.lists(NAMES, min_size=1, max_size=9, unique=True))
    first, second = {}, {}
    for name in names:
        first[name] = draw(arrays(FEW))
        same = draw(st.booleans())
        second[name] = first[name] if same else _other(draw, first[name])
    return first, second, draw(st.integers(1, 3))


def _other(draw: st.DrawFn, like: Any) -> Any:
    if like.dtype == object:
        values = np.empty(like.size, object)
        values[:] = draw(st.lists(st.binary(max_size=9), min_size=like.size, max_size=like.size))
        return values.reshape(like.shape)
    bits = np.random.default_rng(draw(st.integers(0, 99))).bytes(like.nbytes)
    if like.dtype == bool:
        return ~like
    return np.frombuffer(bits, like.dtype).reshape(like.shape)


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[str, int, int, int]]:
    """Draw what happens to files: which one, what, and where, in parts of its length."""
    kind = st.sampled_from(["flip", "flip", "fill", "cut", "delete", "insert"])
    one = st.tuples(kind, st.integers(0, 3), st.integers(0, 10**6), st.integers(1, 30))
    return draw(st.lists(one, min_size=1, max_size=4))


def apply(prefix: str, damage: list[tuple[str, int, int, int]]) -> None:
    folder, name = os.path.split(prefix)
    for kind, which, at, length in damage:
        files = sorted(one for one in os.listdir(folder) if one.startswith(name + "."))
        if not files:
            return
        path = Path(folder) / files[which % len(files)]
        content = bytearray(path.read_bytes())
        place = at % (len(content) + 1)
        if kind == "delete":
            path.unlink()
            continue
        if kind == "cut":
            del content[place:]
        elif kind == "insert":
            content[place:place] = bytes(length)
        else:
            for number in range(place, min(place + length, len(content))):
                content[number] = content[number] ^ (1 << at % 8) if kind == "flip" else at % 256
        path.write_bytes(content)


def whole(prefix: str, original: str) -> set[str]:
    """Return the tensors of a checkpoint with a whole index whose bytes were not touched."""
    if not os.path.exists(prefix + ".index"):
        return set()
    index = [Path(path + ".index").read_bytes() for path in (prefix, original)]
    if index[0] != index[1]:
        return set()
    names = set()
    with ckptkit.open(original) as checkpoint:
        for name in checkpoint:
            found = []
            for piece in checkpoint[name].tensor.source.pieces:  # type: ignore[union-attr]
                extent = piece.extent
                path = prefix + extent.path.removeprefix(original)
                there = Path(path).read_bytes() if os.path.exists(path) else b""
                was = Path(extent.path).read_bytes()
                part = slice(extent.offset, extent.offset + extent.length)
                found.append(os.path.exists(path) and there[part] == was[part])
            if all(found):
                names.add(name)
    return names


@settings(max_examples=120)
@given(saves(), damages(), st.booleans(), st.booleans())
def test_what_is_given_is_right_or_named(
    fresh: Callable[[], Path],
    drawn: tuple[dict[str, Any], dict[str, Any], int],
    damage: list[tuple[str, int, int, int]],
    with_donor: bool,
    keep: bool,
) -> None:
    first, second, shards = drawn
    folder = fresh()
    for place in ("good", "bad", "out", "donor"):
        (folder / place).mkdir()
    good, donor = str(folder / "good" / "m"), str(folder / "donor" / "m")
    layout = ckptkit.Layout(shards=shards)
    ckptkit.save(good, first, layout=layout)
    ckptkit.save(donor, second, layout=layout)
    for file in (folder / "good").iterdir():
        shutil.copy(file, folder / "bad")
    bad = str(folder / "bad" / "m")
    apply(bad, damage)
    before = {path.name: path.read_bytes() for path in (folder / "bad").iterdir()}
    untouched = whole(bad, good)
    try:
        found = ckptkit.salvage(
            bad, folder / "out" / "m", donor if with_donor else None, keep_damaged=keep
        )
    except (CkptError, FileNotFoundError):
        assert not untouched
        assert not list((folder / "out").iterdir())
        return
    finally:
        after = {path.name: path.read_bytes() for path in (folder / "bad").iterdir()}
        assert after == before
    fates = {fate.tensor: fate.how for fate in found.fates}
    unsure = {fate.tensor for fate in found.of("found") if not fate.same}
    data_whole = all(
        after.get(file.name) == file.read_bytes()
        for file in (folder / "good").iterdir()
        if not file.name.endswith(".index")
    )
    with ckptkit.open(folder / "out" / "m") as saved:
        assert saved.verify().ok
        assert untouched <= set(saved)
        assert len(saved) == found.tensors
        for name in saved:
            how, values = fates.get(name), saved[name].read()
            if how == "kept" or (name in unsure and not data_whole):
                continue
            assert how in {None, "found", "filled"}
            original = name in first and same(values, first[name])
            if how == "filled":
                assert same(values, second[name])
            else:
                assert original, (name, how, found)
        assert all(name not in saved for name, how in fates.items() if how == "lost")
    if found.ok:
        assert set(first) <= set(fates) | set(ckptkit.open(folder / "out" / "m"))
