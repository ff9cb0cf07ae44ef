"""Verifying and comparing: what is read, what is found, and what is said about it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptkit
from ckptkit.engine import check, compare, mixture, sums
from ckptkit.engine.check import verify_path
from ckptkit.engine.crew import each
from ckptkit.engine.findings import Problem
from tests.golden.damage import flip
from tests.golden.handmade import Bundle, texts
from tests.hostile import forge
from tests.property.strategies import arrays, slicings, tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ckptkit.engine.compare import Difference

pytestmark = pytest.mark.usefixtures("unsynced")


def save(path: Path, values: Mapping[str, object], **layout: Any) -> str:
    ckptkit.save(path, values, layout=ckptkit.Layout(**layout))
    return str(path)


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> int:
    """Cells so small that tensors span several."""
    monkeypatch.setattr(sums, "CELL", 64)
    monkeypatch.setattr(sums, "STREAMS", 2)
    return 64


# --- verify --------------------------------------------------------------------------------------


@given(tensors(), st.integers(1, 3))
def test_sound_checkpoints_verify(
    cells: int, fresh: Callable[[], Path], values: dict[str, Any], shards: int
) -> None:
    path = save(fresh() / "m", values, shards=shards)
    steps: list[tuple[int, int]] = []
    verdict = verify_path(path, lambda done, total: steps.append((done, total)))
    size = sum(tensor.nbytes for tensor in ckptkit.open(path).values())
    assert verdict == ckptkit.open(path).verify()
    assert verdict.ok
    assert verdict.problems == ()
    assert verdict.checked_bytes == size
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert {total for _, total in steps} <= {size}
    assert not steps or steps[-1] == (size, size)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=8), st.data())
def test_damage_is_found_wherever_cells_are_cut(
    cells: int, fresh: Callable[[], Path], sizes: list[int], data: st.DataObject
) -> None:
    values = {f"t{n}": np.full(size, n, np.uint8) for n, size in enumerate(sizes)}
    path = save(fresh() / "m", values)
    if not sum(sizes):
        return
    offset = data.draw(st.integers(0, sum(sizes) - 1))
    flip(f"{path}.data-00000-of-00001", offset)
    ends = np.cumsum(sizes)
    hit = int(np.searchsorted(ends, offset, "right"))
    start, end = int(ends[hit] - sizes[hit]), int(ends[hit])
    verdict = verify_path(path)
    (problem,) = verdict.problems
    assert (problem.tensor, problem.offset) == (f"t{hit}", start)
    assert f"bytes {start} to {end}: expected " in problem.message
    assert verdict.checked_bytes == sum(sizes)


def test_long_strings_are_streamed(cells: int, tmp_path: Path) -> None:
    values = {f"s{n}": texts(b"x" * 50 * n, b"", b"y" * 1000) for n in range(5)}
    path = save(tmp_path / "m", values)
    assert verify_path(path).ok
    place = ckptkit.open(path)["s3"].tensor.source.pieces[0].extent
    flip(place.path, place.offset + 500)
    (problem,) = verify_path(path).problems
    assert (problem.tensor, problem.offset) == ("s3", place.offset)


def test_every_shard_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "m", {f"t{n}": np.zeros(10) for n in range(6)}, shards=3)
    flip(f"{path}.data-00000-of-00003", 100)
    flip(f"{path}.data-00002-of-00003", 0)
    problems = verify_path(path).problems
    assert [(p.path[-7:], p.tensor, p.offset) for p in problems] == [
        ("f-00003", "t1", 80),
        ("f-00003", "t4", 0),
    ]


def test_an_empty_checkpoint_verifies(tmp_path: Path) -> None:
    assert verify_path(save(tmp_path / "m", {})) == check.Verdict(
        ok=True, checked_bytes=0, problems=()
    )


def test_a_file_that_got_shorter_costs_only_what_it_lost(cells: int, tmp_path: Path) -> None:
    path = save(tmp_path / "m", {f"t{n}": np.zeros(50, np.uint8) for n in range(6)})
    checkpoint = ckptkit.open(path)
    with open(f"{path}.data-00000-of-00001", "r+b") as file:
        file.truncate(220)
    verdict = checkpoint.verify()
    assert [problem.tensor for problem in verdict.problems] == ["t4", "t5"]
    assert verdict.problems[0].message == "bytes 200 to 250 are beyond the end of the file"


def test_a_string_tensor_that_got_shorter(tmp_path: Path) -> None:
    path = save(tmp_path / "m", {"s": texts(b"abc" * 10)})
    checkpoint = ckptkit.open(path)
    with open(f"{path}.data-00000-of-00001", "r+b") as file:
        file.truncate(20)
    (problem,) = checkpoint.verify().problems
    assert (problem.tensor, problem.offset) == ("s", 20)
    assert "file ends here" in problem.message


def test_problems_and_verdicts_as_json(tmp_path: Path) -> None:
    path = save(tmp_path / "m", {"w": np.zeros(3)})
    flip(f"{path}.data-00000-of-00001", 8)
    found = json.loads(json.dumps(verify_path(path).to_dict()))
    assert found["ok"] is False
    assert found["checked_bytes"] == 24
    (problem,) = found["problems"]
    assert problem == {
        "path": f"{path}.data-00000-of-00001",
        "tensor": "w",
        "offset": 0,
        "message": problem["message"],
        "severity": "error",
    }


def test_errors_come_before_warnings() -> None:
    verdict = check._verdict(
        [Problem("a", None, None, "odd", "warning"), Problem("b", "t", 3, "bad")], 0
    )
    assert [problem.message for problem in verdict.problems] == ["bad", "odd"]
    assert str(verdict.problems[0]) == "b: tensor 't': at byte 3: bad"


def test_jobs_stop_at_the_first_error() -> None:
    begun: list[int] = []

    def job(number: int) -> Callable[[np.ndarray], int]:
        def run(scratch: np.ndarray) -> int:
            assert scratch.nbytes == 8
            begun.append(number)
            if number == 3:
                raise OSError(5, "broken")
            return 1

        return run

    with pytest.raises(OSError, match="broken"):
        each((job(n) for n in range(10_000)), 8, lambda done: None)
    assert len(begun) < 10_000


def test_an_interrupt_in_a_progress_bar_gets_out(tmp_path: Path) -> None:
    path = save(tmp_path / "m", {"w": np.zeros(3)})

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_path(path, stop)


# --- compare -------------------------------------------------------------------------------------


def pair(
    folder: Path, a: Mapping[str, object], b: Mapping[str, object], *, values: bool = True
) -> tuple[Difference, ...]:
    one, other = save(folder / "a", a), save(folder / "b", b)
    return ckptkit.diff(one, other, values=values)


@given(tensors(), tensors(), st.integers(1, 3))
def test_checkpoints_equal_themselves_however_they_are_cut(
    fresh: Callable[[], Path], a: dict[str, Any], b: dict[str, Any], shards: int
) -> None:
    folder = fresh()
    one, other = save(folder / "a", a), save(folder / "c", a, shards=shards)
    for values in (False, True):
        assert ckptkit.diff(one, other, values=values) == ()
    found = ckptkit.diff(one, save(folder / "b", b))
    assert {d.name for d in found if d.kind == "only_in_a"} == set(a) - set(b)
    assert {d.name for d in found if d.kind == "only_in_b"} == set(b) - set(a)
    same = {
        name
        for name in set(a) & set(b)
        if a[name].dtype == b[name].dtype
        and a[name].shape == b[name].shape
        and a[name].tobytes() == b[name].tobytes()
        and list(a[name].ravel()) == list(b[name].ravel())
    }
    assert not same & {d.name for d in found}


def test_names_dtypes_and_shapes(tmp_path: Path) -> None:
    a = {"gone": np.zeros(2), "kind": np.zeros(2, np.int32), "long": np.zeros((2, 3)), "same": 1}
    b = {"kind": np.zeros(2, np.int64), "long": np.zeros(6), "new": texts(b"x"), "same": 1}
    found = pair(tmp_path, a, b, values=False)
    assert [(d.name, d.kind, d.a, d.b) for d in found] == [
        ("gone", "only_in_a", "float64[2]", None),
        ("new", "only_in_b", None, "string[1]"),
        ("kind", "dtype", "int32", "int64"),
        ("long", "shape", "[2, 3]", "[6]"),
    ]
    assert all(d.count is None for d in found)


def test_equal_extents_of_other_ranks_are_other_shapes(tmp_path: Path) -> None:
    a = {"a": np.zeros((2, 3)), "b": np.zeros((1,)), "c": np.zeros(())}
    b = {"a": np.zeros((3, 2)), "b": np.zeros(()), "c": np.zeros((1, 1))}
    assert [d.kind for d in pair(tmp_path, a, b)] == ["shape"] * 3


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (np.float32([1, 2, 4]), np.float32([1, 2, 5]), (1, 0.2, 1)),
        (np.float64([NAN, 1]), np.float64([NAN, 3]), (2, 2 / 3, 1)),
        (np.float64([NAN, 1]), np.float64([2, 1]), (INF, INF, 1)),
        (np.float64([INF, 1]), np.float64([INF, 0]), (1, 1, 1)),
        (np.float64([INF]), np.float64([-INF]), (INF, INF, 1)),
        (np.float64([1.7e308]), np.float64([-1.7e308]), (INF, INF, 1)),
        (np.float64([0.0]), np.float64([-0.0]), (0, 0, 0)),
        (np.float16([1]), np.float16([1.5]), (0.5, 1 / 3, 1)),
        (np.int64([2**62, 7]), np.int64([2**62 + 1, 7]), (1, 2**-62, 1)),
        (np.uint64([2**64 - 1]), np.uint64([0]), (2**64 - 1, 1, 1)),
        (np.int64([-(2**63)]), np.int64([2**63 - 1]), (2**64, 2, 1)),
        (np.int8([-128, 0]), np.int8([127, 1]), (255, 255 / 128, 2)),
        (np.bool_([True, False]), np.bool_([False, False]), (1, 1, 1)),
        (np.complex64([3j, 1]), np.complex64([-1j, 1]), (4, 4 / 3, 1)),
        (np.complex128([complex(NAN, 1)]), np.complex128([complex(1, NAN)]), (0, 0, 0)),
        (texts(b"a", b"b", b"c"), texts(b"a", b"x", b"y"), (None, None, 2)),
        (
            np.array([1, 2], ml_dtypes.bfloat16),
            np.array([1, 3], ml_dtypes.bfloat16),
            (1, 1 / 3, 1),
        ),
        (np.array([-8, 1], ml_dtypes.int4), np.array([7, 1], ml_dtypes.int4), (15, 15 / 8, 1)),
        (np.float32(2), np.float32(1), (1, 0.5, 1)),
    ],
)
def test_how_far_values_are_apart(
    tmp_path: Path, a: Any, b: Any, expected: tuple[float | None, float | None, int]
) -> None:
    (found,) = pair(tmp_path, {"w": a}, {"w": b})
    assert found.kind == "values"
    assert (found.max_abs, found.max_rel, found.count) == pytest.approx(expected)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["count"] == expected[2]


def test_values_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    (found,) = pair(tmp_path, {"w": np.zeros(2)}, {"w": np.ones(2)}, values=False)
    assert (found.kind, found.count) == ("values", None)
    assert found.a is not None
    assert found.a.startswith("crc32c:")


def test_other_dtypes_of_one_shape_are_measured(tmp_path: Path) -> None:
    found = pair(tmp_path, {"w": np.float32([1, 2])}, {"w": np.int64([1, 4])})
    assert [(d.kind, d.a, d.b, d.max_abs, d.count) for d in found] == [
        ("dtype", "float32", "int64", 2.0, 1)
    ]
    (tmp_path / "text").mkdir()
    (text,) = pair(tmp_path / "text", {"w": np.float32([1])}, {"w": texts(b"1")})
    assert (text.kind, text.count) == ("dtype", None)


def test_blocks_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "ELEMENTS", 7)
    a = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    b = a.copy()
    b[0, 0, 0], b[2, 3, 4] = 9, 0
    (found,) = pair(tmp_path, {"w": a}, {"w": b})
    assert (found.max_abs, found.max_rel, found.count) == (59, 1, 2)


@given(st.data(), arrays(), st.booleans())
def test_slices_equal_the_whole(
    fresh: Callable[[], Path], data: st.DataObject, values: Any, big_endian: bool
) -> None:
    slices = data.draw(slicings(values.shape))
    folder = fresh()
    one = Bundle()
    one.add(b"w", values)
    other = Bundle(big_endian=big_endian)
    if len(slices) > 1:
        other.add_slices(b"w", values, slices)
    else:
        other.add(b"w", values)
    a, b = one.write(folder / "a"), other.write(folder / "b")
    assert ckptkit.diff(a, b) == ckptkit.diff(b, a, values=True) == ()


def test_byte_orders_are_compared_by_value(tmp_path: Path) -> None:
    values = {"f": np.float32([1, 2]), "z": np.complex64([1 + 2j]), "s": texts(b"a", b"b")}
    paths = []
    for big_endian in (False, True):
        bundle = Bundle(big_endian=big_endian)
        for name, array in values.items():
            bundle.add(name.encode(), array)
        paths.append(bundle.write(tmp_path / f"big-{big_endian}"))
    seen: list[tuple[int, int]] = []
    assert ckptkit.diff(*paths, progress=lambda done, total: seen.append((done, total))) == ()
    assert seen[-1][0] == seen[-1][1] > 0
    changed = Bundle(big_endian=True)
    changed.add(b"f", np.float32([1, 3]))
    path = changed.write(tmp_path / "changed")
    found = {d.name: d for d in ckptkit.diff(paths[0], path)}
    assert found["f"].kind == "values"
    assert found["f"].count is None
    assert found["z"].kind == found["s"].kind == "only_in_a"


def test_opaque_values_are_compared_by_checksum(tmp_path: Path) -> None:
    paths = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        payload = bytes([number]) * 24
        paths.append(forge.simple(folder, forge.record(payload, dtype=99), payload))
    (found,) = ckptkit.diff(*paths, values=True)
    assert (found.kind, found.count) == ("values", None)
    assert ckptkit.diff(paths[0], paths[0], values=True) == ()


def test_strangers_are_counted_shard_by_shard(tmp_path: Path) -> None:
    """As the definition has it, whatever rows fail, and whatever rows count."""
    names = [f"w{number:02d}" for number in range(60)]
    save(tmp_path / "m", dict.fromkeys(names, np.arange(3.0)), max_shard_bytes=24 * 13)
    columns = ckptkit.open(tmp_path / "m").catalog.columns
    rng = np.random.default_rng(5)
    for _ in range(200):
        failing = np.flatnonzero(rng.random(60) < rng.choice([0.1, 0.9, 1.0])).tolist()
        among = np.flatnonzero(rng.random(60) < 0.8).tolist() if rng.random() < 0.5 else None
        expected = []
        for shard in sorted(columns.files):
            rows = [row for row in among or range(60) if columns.shard[row] == shard]
            wrong = len({*rows} & {*failing})
            if 3 <= wrong == len(rows) or (len(rows) >= 10 and wrong >= 0.9 * len(rows)):
                expected.append((shard, columns.shards, wrong, len(rows)))
        assert [tuple(one) for one in mixture.strangers(columns, failing, among)] == expected
