"""What can be read of a bundle whose index is damaged: where keys may be lost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit.columns import Columns
from ckptkit.formats.tensorflow.salvage.bundle import Bundle, Gap, merged, read_bundle
from tests.hostile import forge

if TYPE_CHECKING:
    from pathlib import Path

KEYS = st.none() | st.text("abc", max_size=2)
EMPTY = Bundle("p", Columns(), {})


def lost(gap: Gap, key: str) -> bool:
    after, before = gap
    if after is not None and before is not None and after >= before:
        return True
    return (after is None or after < key) and (before is None or key < before)


@given(st.lists(st.tuples(KEYS, KEYS), max_size=6), st.text("abc", max_size=3))
def test_a_key_is_lost_in_any_of_the_gaps(gaps: list[Gap], key: str) -> None:
    bundle = replace(EMPTY, gaps=tuple(merged(gaps)))
    assert bundle.lost_within(key) == any(lost(gap, key) for gap in gaps)


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([], []),
        ([("a", "c"), ("b", "d")], [("a", "d")]),
        ([("c", None), ("a", "b"), (None, "a")], [(None, "a"), ("a", "b"), ("c", None)]),
        ([("a", None), ("b", "c")], [("a", None)]),
        ([("b", "a")], [(None, None)]),
    ],
)
def test_gaps_are_joined_where_they_overlap(gaps: list[Gap], expected: list[Gap]) -> None:
    assert list(merged(gaps)) == expected


def test_many_damaged_blocks_take_no_time_for_each_key(tmp_path: Path) -> None:
    # Comparing every key with every damaged block would take hours.
    count = 10_000
    records = [forge.header(), *((b"%06d" % number, b"") for number in range(count))]
    bodies = [forge.body([forge.item(0, *one)]) for one in records]
    content = bytearray(forge.assemble(bodies, separators=[key for key, _ in records]))
    size = len(bodies[1]) + 5
    start = len(bodies[0]) + 5
    for number in range(1, count, 2):
        content[start + number * size] ^= 0xFF
        content[start + number * size + 4] ^= 0xFF
    bundle = read_bundle(forge.write(tmp_path, bytes(content)))
    assert len(bundle.damage) == count // 2
    assert len(bundle.gaps) == count // 2
    held = [bundle.lost_within(f"{number:06d}") for number in range(count)]
    assert held == [number % 2 == 1 for number in range(count)]
